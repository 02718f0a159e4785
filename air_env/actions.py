"""What an agent may do in a step, as a space and as what the space means.

    dict        Dict(z_pres, z_where, z_what): the object itself
    latents     Box(-1, 1): the object, flat, in units of its prior
    posterior   Box(-1, 1): a distribution q; the environment draws the object from it and pays -log q

The return of the first two is ``log p(x, z, n) - log p(x | c_0)``. That of the third has the agent's
entropy as well: it is a sample of the ELBO, so that whoever maximises it without discount maximises the
ELBO (docs/reinforcement_learning.md).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from air_env.flat_actions import FlatLatents, FlatPosterior
from air_env.model import Action, SceneModel
from air_env.priors import CategoricalPrior
from air_env.spaces import LATENT_BOUND, read_shaped, within


class ActionMode(Protocol):
    """How actions of a space become objects."""

    @property
    def space(self) -> spaces.Space[Any]:
        """Of one episode's actions."""
        ...

    @property
    def noise_size(self) -> int:
        """How many random numbers the environment draws for a step of one episode."""
        ...

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Any:
        """Reads what a caller hands in, for `act`.

        Args:
            values: A batch of actions, tensors or arrays; latents that are ignored are checked as well.
            num_envs: Number of episodes; None reads one action without a batch axis into a batch of one.
            check: False skips the checks that read values, which on a GPU wait for it.

        Raises:
            ValueError: They are not of the space; the message says what is wrong.
        """
        ...

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the random numbers of one episode's step, ``[noise_size]``."""
        ...

    def act(
        self, values: Any, noise: Float[Tensor, "batch noise"], first: Bool[Tensor, "batch"] | None = None
    ) -> tuple[Action, Float[Tensor, "batch"] | None]:
        """The objects, and ``log q`` of them in nats where the environment drew them.

        ``first`` says which episodes take their first action, the one that chooses the camera; by default all.
        """
        ...


class DictActions:
    """The object itself: ``z_pres``, ``z_where`` and ``z_what`` by name."""

    noise_size = 0

    def __init__(self, model: SceneModel) -> None:
        self.model = model
        prior = model.prior_what
        self.space = spaces.Dict(
            {
                "z_pres": spaces.Discrete(2),
                "z_where": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (model.where_dim,), np.float32),
                "z_what": spaces.Discrete(prior.num_categories)
                if isinstance(prior, CategoricalPrior)
                else spaces.Box(-LATENT_BOUND, LATENT_BOUND, prior.event_shape, np.float32),
                **_camera_space(model),
            }
        )

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Action:
        """Reads a dict of ``z_pres [batch]``, ``z_where [batch, where]``, ``z_what``, ``z_camera [batch, camera]``."""
        batch = () if num_envs is None else (num_envs,)
        names = ["z_pres", "z_where", "z_what", *_camera_space(self.model)]
        if not isinstance(values, Mapping) or set(values) != set(names):
            found = f"one with {sorted(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"an action is a dict of {', '.join(names)}; got {found}")
        z_pres = read_shaped("action 'z_pres'", values["z_pres"], batch, self.model)
        if check and not ((z_pres == 0) | (z_pres == 1)).all():
            raise ValueError("action 'z_pres' must be 1 (draw an object) or 0 (stop)")
        z_where = read_where("action 'z_where'", values["z_where"], batch, self.model, check=check)
        z_what = read_what("action 'z_what'", values["z_what"], batch, self.model, check=check)
        z_camera = read_camera("action 'z_camera'", values.get("z_camera"), batch, self.model, check=check)
        if num_envs is None:
            return Action(z_pres[None], z_where[None], z_what[None], None if z_camera is None else z_camera[None])
        return Action(z_pres, z_where, z_what, z_camera)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Action, noise: Tensor, first: Tensor | None = None) -> tuple[Action, None]:
        """The objects, which are the action."""
        del noise, first
        return values, None


ACTION_MODES: dict[str, Callable[[SceneModel], ActionMode]] = {
    "dict": DictActions,
    "latents": FlatLatents,
    "posterior": FlatPosterior,
}
"""Name -> class, made for a model."""


def make_action_mode(name: str, model: SceneModel) -> ActionMode:
    """Makes a registered action mode."""
    if name not in ACTION_MODES:
        raise ValueError(f"action_mode {name!r} is unknown; choose one of {', '.join(ACTION_MODES)}")
    return ACTION_MODES[name](model)


def read_where(name: str, value: Any, batch: tuple[int, ...], model: SceneModel, *, check: bool = True) -> Tensor:
    """Reads windows ``[*batch, 3]``, in the model's device and dtype.

    Raises:
        ValueError: They are misshapen, not numbers, not finite or beyond `LATENT_BOUND`.
    """
    return within(name, read_shaped(name, value, (*batch, model.where_dim), model), LATENT_BOUND, check)


def read_camera(
    name: str, value: Any, batch: tuple[int, ...], model: SceneModel, *, check: bool = True
) -> Tensor | None:
    """Reads cameras ``[*batch, camera]``, in the model's device and dtype; None where the model has none.

    Raises:
        ValueError: As `read_where`; or there is a camera, and no value, or the other way round.
    """
    if (value is None) != (model.camera_dim == 0):
        wanted = f"shape {(*batch, model.camera_dim)}" if model.camera_dim else "none: this scene has no camera"
        raise ValueError(f"{name} is {'missing' if value is None else 'given'}, wanted {wanted}")
    if value is None:
        return None
    return within(name, read_shaped(name, value, (*batch, model.camera_dim), model), LATENT_BOUND, check)


def _camera_space(model: SceneModel) -> dict[str, spaces.Box]:
    shape = (model.camera_dim,)
    return {"z_camera": spaces.Box(-LATENT_BOUND, LATENT_BOUND, shape, np.float32)} if model.camera_dim else {}


def read_what(name: str, value: Any, batch: tuple[int, ...], model: SceneModel, *, check: bool = True) -> Tensor:
    """Reads codes ``[*batch, what]`` or categories ``[*batch]``, in the model's device and dtype.

    Raises:
        ValueError: As `read_where`; or a category is not one of the model's.
    """
    prior = model.prior_what
    latents = read_shaped(name, value, (*batch, *prior.event_shape), model)
    if not isinstance(prior, CategoricalPrior):
        return within(name, latents, LATENT_BOUND, check)
    if check and not ((latents >= 0) & (latents < prior.num_categories) & (latents == latents.floor())).all():
        raise ValueError(f"{name} must be categories from 0 to {prior.num_categories - 1}")
    return latents.long()
