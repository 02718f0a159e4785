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
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from air_env.flat_actions import FlatLatents, FlatPosterior
from air_env.model import Action, SceneModel
from air_env.priors import CategoricalPrior
from air_env.spaces import read_shaped, within

LATENT_BOUND = 50.0
"""Largest absolute value of a latent in an action.

Wide enough for the steps of a trained agent that never happen, whose latents nothing holds near the prior; narrow
enough for ``exp(log_scale)``, which overflows float32 at 88.
"""


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

    def act(self, values: Any, noise: Float[Tensor, "batch noise"]) -> tuple[Action, Float[Tensor, "batch"] | None]:
        """The objects, and ``log q`` of them in nats where the environment drew them."""
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
            }
        )

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Action:
        """Reads a dict of ``z_pres [batch]``, ``z_where [batch, where]`` and ``z_what``."""
        batch = () if num_envs is None else (num_envs,)
        names = list(self.space)
        if not isinstance(values, Mapping) or set(values) != set(names):
            found = f"one with {sorted(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"an action is a dict of z_pres, z_where, z_what; got {found}")
        z_pres = read_shaped("action 'z_pres'", values["z_pres"], batch, self.model)
        if check and not ((z_pres == 0) | (z_pres == 1)).all():
            raise ValueError("action 'z_pres' must be 1 (draw an object) or 0 (stop)")
        z_where = read_where("action 'z_where'", values["z_where"], batch, self.model, check=check)
        z_what = read_what("action 'z_what'", values["z_what"], batch, self.model, check=check)
        if num_envs is None:
            return Action(z_pres[None], z_where[None], z_what[None])
        return Action(z_pres, z_where, z_what)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Action, noise: Tensor) -> tuple[Action, None]:
        """The objects, which are the action."""
        del noise
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
