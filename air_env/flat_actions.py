"""Actions that are vectors of entries in [-1, 1], as stock RL algorithms want them (`air_env.actions`).

What the entries of a latent mean is for its prior to say (`air_env.priors`).
"""

from collections.abc import Sequence

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


class _FlatActions:
    """A vector of entries in [-1, 1]: one for ``z_pres``, then those of ``z_where``, ``z_scene`` and ``z_what``."""

    noise_size = 0

    def __init__(self, model: SceneModel, sizes: Sequence[int]) -> None:
        self.model = model
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
    """The object, as a vector of entries in [-1, 1].

    | entries | meaning |
    |---|---|
    | 1 | ``z_pres``: positive draws an object, 0 or less stops |
    | 3 | ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | scene | ``z_scene``, in the same units, where there is one: read at the first step only |
    | what | ``z_what``, in the same units; or one entry for each category, of which the largest wins |
    """

    def __init__(self, model: SceneModel) -> None:
        what = model.prior_what
        super().__init__(model, [model.where_dim, model.scene_dim, what.size])
        self.space = LatentBox(sum(self.sizes), what.size if what.categorical else 0)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Tensor, noise: Tensor, first: Tensor) -> tuple[Action, Tensor]:
        """The objects."""
        del noise, first
        z_pres, *entries = values.split(self.sizes, -1)
        where, scene, what = (prior.decode(part) for prior, part in zip(self.priors, entries, strict=True))
        present = (z_pres[..., 0] > 0).to(values.dtype)
        return Action(present, where, what, scene), torch.zeros_like(present)


class FlatPosterior(_FlatActions):
    """A distribution over the object, as a vector of entries in [-1, 1].

    | entries | meaning |
    |---|---|
    | 1 | logit of drawing an object, in units of 10 |
    | 3 | means of ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | 3 | log standard deviations of ``z_where``: 1 is the prior's, -1 is exp(-6) of it |
    | scene, scene | the same of ``z_scene``, where there is one: read at the first step only |
    | what, what | the same of ``z_what``; or one logit for each category, in units of 10 |

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
