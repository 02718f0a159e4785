"""Actions that are vectors of entries in [-1, 1], as stock RL algorithms want them (`air_env.actions`).

What the entries of a latent mean is for its prior to say (`air_env.priors`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from air_env.explanation import Action
from air_env.model import SceneModel
from air_env.reading import read_shaped, within

LOGIT_SCALE = 10.0
"""The logit of drawing an object that an entry of 1 is."""


class LatentBox(spaces.Box):
    """The space of `FlatLatents`, which says how many of its last entries name a category.

    Args:
        size: Number of entries.
        num_categories: Of ``z_what``; 0 where it is a code.
    """

    def __init__(self, size: int, num_categories: int) -> None:
        super().__init__(-1, 1, (size,), np.float32)
        self.num_categories = num_categories


class ActionMode(ABC):
    """How actions of a space become objects.

    Attributes:
        space: The space of one episode's actions.
        noise_size: How many random numbers the environment draws for a step of one episode.
    """

    space: spaces.Space
    noise_size = 0

    def __init__(self, model: SceneModel) -> None:
        self.model = model

    @abstractmethod
    def read(self, values: object, num_envs: int | None, *, check: bool = True) -> Any:
        """Reads what a caller hands in, for `act`.

        Args:
            values: A batch of actions, tensors or arrays; latents that are ignored are checked as well.
            num_envs: Number of episodes; None reads one action without a batch axis into a batch of one.
            check: False skips the checks that read values, which on a GPU wait for it.

        Raises:
            ValueError: They are not of the space; the message says what is wrong.
        """

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the random numbers of one episode's step, ``[noise_size]``."""
        del rng
        return np.empty(0)

    @abstractmethod
    def act(
        self, values: Any, noise: Float[Tensor, "batch noise"], first: Bool[Tensor, "batch"]
    ) -> tuple[Action, Float[Tensor, "batch"]]:
        """The objects, and ``log q`` of them in nats: 0 where the environment did not draw them.

        ``first`` says which episodes take their first action, the one that chooses ``z_scene``.
        """


class _FlatActions(ActionMode):
    """A vector of entries in [-1, 1]: one for ``z_pres``, then those of ``z_where``, ``z_scene`` and ``z_what``."""

    def __init__(self, model: SceneModel, sizes: Sequence[int]) -> None:
        super().__init__(model)
        self.sizes = [1, *sizes]
        self.priors = (model.prior_where, model.prior_scene, model.prior_what)
        self.space = spaces.Box(-1, 1, (sum(self.sizes),), np.float32)

    def read(self, values: object, num_envs: int | None, *, check: bool = True) -> Tensor:
        """Reads a vector, or a matrix of one for each episode."""
        batch = () if num_envs is None else (num_envs,)
        flat = read_shaped("action", values, (*batch, sum(self.sizes)), self.model.log_p_count)
        flat = within("action", flat, 1.0, check)
        return flat[None] if num_envs is None else flat


class FlatLatents(_FlatActions):
    """The object, as a vector of entries in [-1, 1]; `AIRSceneEnv` has the table of them."""

    def __init__(self, model: SceneModel) -> None:
        what = model.prior_what
        super().__init__(model, [model.where_dim, model.scene_dim, what.size])
        self.space = LatentBox(sum(self.sizes), what.size if what.categorical else 0)

    def act(self, values: Tensor, noise: Tensor, first: Tensor) -> tuple[Action, Tensor]:
        """The objects."""
        del noise, first
        z_pres, *entries = values.split(self.sizes, -1)
        where, scene, what = (prior.decode(part) for prior, part in zip(self.priors, entries, strict=True))
        present = (z_pres[..., 0] > 0).to(values.dtype)
        return Action(present, where, what, scene), torch.zeros_like(present)


class FlatPosterior(_FlatActions):
    """A distribution over the object, as a vector of entries in [-1, 1]; `AIRSceneEnv` has the table of them.

    The environment draws with its own generator, so that a seed decides an episode, and ``log q`` is
    subtracted from the reward. Means and standard deviations get gradients through the drawn object.
    """

    def __init__(self, model: SceneModel) -> None:
        priors = (model.prior_where, model.prior_scene, model.prior_what)
        super().__init__(model, [sum(prior.parameter_sizes) for prior in priors])
        self.noise_sizes = [1, *(prior.noise_size for prior in priors)]
        self.noise_size = sum(self.noise_sizes)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Uniform for what is discrete, normal for the others."""
        return np.concatenate([rng.random(1), *(prior.noise(rng) for prior in self.priors)])

    def act(
        self, values: Tensor, noise: Float[Tensor, "batch noise"], first: Bool[Tensor, "batch"]
    ) -> tuple[Action, Float[Tensor, "batch"]]:
        """The objects that the noise draws, and their ``log q``."""
        logit, *entries = values.split(self.sizes, -1)
        uniform, *noises = noise.split(self.noise_sizes, -1)
        logit = LOGIT_SCALE * logit[..., 0]
        present = uniform[..., 0] < logit.sigmoid()
        where, scene, what = (
            prior.draw(part, own) for prior, part, own in zip(self.priors, entries, noises, strict=True)
        )
        log_q = F.logsigmoid(torch.where(present, logit, -logit))
        log_q = log_q + torch.where(present, where[1] + what[1], 0.0) + torch.where(first, scene[1], 0.0)
        return Action(present.to(values.dtype), where[0], what[0], scene[0]), log_q

    def encode(
        self,
        logit: Float[Tensor, "*batch"],
        where: Sequence[Tensor],
        what: Sequence[Tensor],
        scene: Sequence[Tensor] = (),
    ) -> Float[Tensor, "*batch action"]:
        """The action of a distribution; parameters beyond what the space can say are clipped.

        Args:
            logit: Of drawing an object.
            where: Mean and standard deviation of ``z_where``.
            what: Mean and standard deviation of ``z_what``, or the logits of its categories.
            scene: Mean and standard deviation of ``z_scene``, where there is one.
        """
        given = zip(self.priors, (where, scene, what), strict=True)
        parts = [prior.encode(*parameters) for prior, parameters in given if parameters]
        return torch.cat([logit[..., None] / LOGIT_SCALE, *parts], -1).clamp(-1, 1)
