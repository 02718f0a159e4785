"""Actions that are vectors of entries in [-1, 1], as stock RL algorithms want them (`air_env.actions`)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from air_env.model import Action, SceneModel
from air_env.priors import CategoricalPrior, GaussianPrior, gaussian_log_prob
from air_env.spaces import read_shaped, within

PRIOR_SDS = 3.0
"""How many prior standard deviations from the prior's mean an entry of 1 is, in flat actions."""

LOGIT_SCALE = 10.0
"""The logit that an entry of 1 is, in flat actions."""

LOG_SD_RANGE = 6.0
"""A posterior's standard deviation runs from exp(-6) of the prior's at -1 to the prior's own at 1."""


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
    """A vector of entries in [-1, 1], made of parts."""

    noise_size = 0

    def __init__(self, model: SceneModel, sizes: list[int]) -> None:
        self.model = model
        self.sizes = sizes
        self.space = spaces.Box(-1, 1, (sum(sizes),), np.float32)

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Tensor:
        """Reads a vector, or a matrix of one for each episode."""
        batch = () if num_envs is None else (num_envs,)
        flat = read_shaped("action", values, (*batch, sum(self.sizes)), self.model)
        flat = within("action", flat, 1.0, check)
        return flat[None] if num_envs is None else flat


class FlatLatents(_FlatActions):
    """The object, as a vector of entries in [-1, 1].

    | entries | meaning |
    |---|---|
    | 1 | ``z_pres``: positive draws an object, 0 or less stops |
    | 3 | ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | camera | ``z_camera``, in the same units, where there is a camera: read at the first step only |
    | what | ``z_what``, in the same units; or one entry for each category, of which the largest wins |
    """

    def __init__(self, model: SceneModel) -> None:
        super().__init__(model, [1, model.where_dim, model.camera_dim, _what_size(model)])
        prior = model.prior_what
        self.space = LatentBox(sum(self.sizes), prior.num_categories if isinstance(prior, CategoricalPrior) else 0)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Tensor, noise: Tensor, first: Tensor | None = None) -> tuple[Action, None]:
        """The objects."""
        del noise, first
        z_pres, where, camera, what = values.split(self.sizes, -1)
        prior = self.model.prior_what
        z_where = _decode_mean(where, self.model.prior_where)
        z_what = what.argmax(-1) if isinstance(prior, CategoricalPrior) else _decode_mean(what, prior)
        prior_camera = self.model.prior_camera
        z_camera = None if prior_camera is None else _decode_mean(camera, prior_camera)
        return Action((z_pres[..., 0] > 0).to(values.dtype), z_where, z_what, z_camera), None


class FlatPosterior(_FlatActions):
    """A distribution over the object, as a vector of entries in [-1, 1].

    | entries | meaning |
    |---|---|
    | 1 | logit of drawing an object, in units of 10 |
    | 3 | means of ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | 3 | log standard deviations of ``z_where``: 1 is the prior's, -1 is exp(-6) of it |
    | camera, camera | the same of ``z_camera``, where there is a camera: read at the first step only |
    | what, what | the same of ``z_what``; or one logit for each category, in units of 10 |

    The environment draws with its own generator, so that a seed decides an episode, and ``log q`` is
    subtracted from the reward. Means and standard deviations get gradients through the drawn object.
    """

    def __init__(self, model: SceneModel) -> None:
        where, camera, what = model.where_dim, model.camera_dim, _what_size(model)
        categorical = isinstance(model.prior_what, CategoricalPrior)
        super().__init__(model, [1, where, where, camera, camera, *([what] if categorical else [what, what])])
        self.noise_sizes = [1, where, camera, 1 if categorical else what]
        self.noise_size = sum(self.noise_sizes)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Uniform for what is discrete, normal for the others."""
        pres, where, camera, what = self.noise_sizes
        categorical = isinstance(self.model.prior_what, CategoricalPrior)
        draw_what = rng.random if categorical else rng.standard_normal
        return np.concatenate([rng.random(pres), rng.standard_normal(where + camera), draw_what(what)])

    def act(
        self, values: Tensor, noise: Float[Tensor, "batch noise"], first: Bool[Tensor, "batch"] | None = None
    ) -> tuple[Action, Float[Tensor, "batch"]]:
        """The objects that the noise draws, and their ``log q``."""
        logit, where_mean, where_sd, camera_mean, camera_sd, *what = values.split(self.sizes, -1)
        uniform, where_noise, camera_noise, what_noise = noise.split(self.noise_sizes, -1)
        logit = LOGIT_SCALE * logit[..., 0]
        present = uniform[..., 0] < logit.sigmoid()
        z_where, log_q_where = _draw_gaussian(where_mean, where_sd, self.model.prior_where, where_noise)
        if isinstance(self.model.prior_what, CategoricalPrior):
            z_what, log_q_what = _draw_category(LOGIT_SCALE * what[0], what_noise)
        else:
            mean, sd = what
            z_what, log_q_what = _draw_gaussian(mean, sd, self.model.prior_what, what_noise)
        log_q = F.logsigmoid(torch.where(present, logit, -logit))
        log_q = log_q + torch.where(present, log_q_where + log_q_what, 0.0)
        z_camera = None
        if (prior_camera := self.model.prior_camera) is not None:
            z_camera, log_q_camera = _draw_gaussian(camera_mean, camera_sd, prior_camera, camera_noise)
            log_q = log_q + (log_q_camera if first is None else torch.where(first, log_q_camera, 0.0))
        return Action(present.to(values.dtype), z_where, z_what, z_camera), log_q

    def encode(
        self,
        logit: Float[Tensor, "*batch"],
        where: tuple[Tensor, Tensor],
        what: tuple[Tensor, Tensor] | Tensor,
        camera: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "*batch action"]:
        """The action of a distribution; parameters beyond what the space can say are clipped.

        Args:
            logit: Of drawing an object.
            where: Mean and standard deviation of ``z_where``.
            what: Mean and standard deviation of ``z_what``, or the logits of its categories.
            camera: Mean and standard deviation of ``z_camera``, where there is a camera.
        """
        parts = [logit[..., None] / LOGIT_SCALE, *_encode_gaussian(*where, self.model.prior_where)]
        if camera is not None and self.model.prior_camera is not None:
            parts.extend(_encode_gaussian(*camera, self.model.prior_camera))
        prior = self.model.prior_what
        if isinstance(prior, CategoricalPrior):
            assert isinstance(what, Tensor)
            parts.append((what - what.amax(-1, keepdim=True)) / LOGIT_SCALE + 1)
        else:
            assert not isinstance(what, Tensor)
            parts.extend(_encode_gaussian(*what, prior))
        return torch.cat(parts, -1).clamp(-1, 1)


def _what_size(model: SceneModel) -> int:
    """Entries that ``z_what`` takes in a flat action."""
    prior = model.prior_what
    return prior.num_categories if isinstance(prior, CategoricalPrior) else prior.event_shape[0]


def _decode_mean(entries: Tensor, prior: GaussianPrior) -> Tensor:
    return prior.mean + PRIOR_SDS * prior.sd * entries


def _draw_gaussian(mean: Tensor, sd: Tensor, prior: GaussianPrior, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised sample of the distribution that the entries describe, and its log-density."""
    mean, sd = _decode_mean(mean, prior), prior.sd * (LOG_SD_RANGE / 2 * (sd - 1)).exp()
    value = mean + sd * noise
    return value, gaussian_log_prob(value, mean, sd)


def _encode_gaussian(mean: Tensor, sd: Tensor, prior: GaussianPrior) -> tuple[Tensor, Tensor]:
    """The entries that describe a distribution."""
    return (mean - prior.mean) / (PRIOR_SDS * prior.sd), (sd / prior.sd).log() * (2 / LOG_SD_RANGE) + 1


def _draw_category(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The category that a uniform number draws, and its log-probability."""
    log_q = logits.log_softmax(-1)
    category = (uniform > log_q.exp().cumsum(-1)[..., :-1]).sum(-1)
    return category, log_q.gather(-1, category[..., None])[..., 0]
