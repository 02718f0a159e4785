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

from air_env.explanation import Action
from air_env.flat_actions import FlatLatents, FlatPosterior
from air_env.model import SceneModel
from air_env.reading import read_shaped
from air_env.registry import Registry


class ActionMode(Protocol):
    """How actions of a space become objects."""

    @property
    def space(self) -> spaces.Space:
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
        self, values: Any, noise: Float[Tensor, "batch noise"], first: Bool[Tensor, "batch"]
    ) -> tuple[Action, Float[Tensor, "batch"]]:
        """The objects, and ``log q`` of them in nats: 0 where the environment did not draw them.

        ``first`` says which episodes take their first action, the one that chooses ``z_scene``.
        """
        ...


class DictActions:
    """The object itself: ``z_pres``, ``z_where`` and ``z_what`` by name, and ``z_scene`` where there is one."""

    noise_size = 0

    def __init__(self, model: SceneModel) -> None:
        self.model = model
        asked = {name: prior.space() for name, prior in model.priors.items() if prior.size}
        self.space = spaces.Dict({"z_pres": spaces.Discrete(2), **asked})
        self._empty = {name for name, prior in model.priors.items() if prior.size == 0}

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Action:
        """Reads a dict of ``z_pres [batch]``, ``z_where [batch, where]``, ``z_what``, ``z_scene [batch, scene]``.

        What has length zero may be missing.
        """
        batch = () if num_envs is None else (num_envs,)
        names = ["z_pres", *self.model.priors]
        if not isinstance(values, Mapping) or set(values) | self._empty != set(names):
            found = f"one with {sorted(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
            asked = ", ".join(name for name in names if name not in self._empty)
            raise ValueError(f"an action is a dict of {asked}; got {found}")
        values = {name: np.empty((*batch, 0)) for name in self._empty} | dict(values)
        z_pres = read_shaped("action 'z_pres'", values["z_pres"], batch, self.model.log_p_count)
        if check and not ((z_pres == 0) | (z_pres == 1)).all():
            raise ValueError("action 'z_pres' must be 1 (draw an object) or 0 (stop)")
        parts = {"z_pres": z_pres} | {
            name: prior.read(f"action {name!r}", values[name], batch, check=check)
            for name, prior in self.model.priors.items()
        }
        return Action(**(parts if batch else {name: part[None] for name, part in parts.items()}))

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Action, noise: Tensor, first: Tensor) -> tuple[Action, Tensor]:
        """The objects, which are the action."""
        del noise, first
        return values, values.z_pres.new_zeros(values.z_pres.shape)


ACTION_MODES: Registry[Callable[[SceneModel], ActionMode]] = Registry(
    "action_mode", {"dict": DictActions, "latents": FlatLatents, "posterior": FlatPosterior}
)
"""Name -> class, made for a model."""
