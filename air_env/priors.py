"""What the world expects before it sees the image: priors over the latents, and over the count (`count_priors`).

The prior of a latent also says how its values are written: as a Gymnasium space, as entries of a flat action in
[-1, 1], and as features of a network.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from air_env.count_priors import COUNT_PRIORS, CountPrior, hazards
from air_env.reading import LATENT_BOUND, read_shaped, within

__all__ = ["COUNT_PRIORS", "CategoricalPrior", "CountPrior", "GaussianPrior", "PosePrior", "Prior", "hazards"]


def gaussian_log_prob(value: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, summed over the last axis; nats."""
    z = (value - mean) / sd
    return -(0.5 * z.square() + sd.log()).sum(-1) - 0.5 * math.log(2 * math.pi) * value.shape[-1]


class Prior(nn.Module, ABC):
    """The prior of a latent.

    Attributes:
        event_shape: Shape of a value.
        size: Length of a value as features of a network, or in flat actions.
        parameter_sizes: Lengths of the parameters of a distribution of values, in flat actions and on heads.
        noise_size: Random numbers that draw a value.
        categorical: Whether values are categories.
    """

    event_shape: tuple[int, ...]
    size: int
    parameter_sizes: tuple[int, ...]
    noise_size: int
    categorical: bool

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the values."""

    @abstractmethod
    def log_prob(self, value: Tensor) -> Float[Tensor, "*batch"]:
        """Log-probability of values ``[*batch, *event_shape]``, nats."""

    @abstractmethod
    def kl(self, *parameters: Tensor) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence from it of the distributions that have these parameters, nats."""

    @abstractmethod
    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws values ``[*shape, *event_shape]``."""

    @abstractmethod
    def space(self, *shape: int) -> spaces.Space:
        """The space of values ``[*shape, *event_shape]``."""

    def feature_space(self, *shape: int) -> spaces.Space:
        """The space of `features` of such values."""
        return self.space(*shape)

    @abstractmethod
    def read(self, name: str, value: object, batch: tuple[int, ...], *, check: bool = True) -> Tensor:
        """Reads values ``[*batch, *event_shape]``, in the prior's device and dtype.

        Args:
            name: What to call them in an error.
            value: What a caller handed in.
            batch: Shape of the batch.
            check: False skips the checks that read values, which on a GPU wait for it.

        Raises:
            ValueError: They are misshapen, no numbers or out of bounds.
        """

    @abstractmethod
    def features(self, value: Tensor) -> Float[Tensor, "*batch size"]:
        """Values as a network reads them."""

    @abstractmethod
    def decode(self, entries: Float[Tensor, "*batch size"]) -> Tensor:
        """The values that entries of a flat action mean."""

    @abstractmethod
    def encode(self, *parameters: Tensor) -> Float[Tensor, "*batch parameters"]:
        """The entries of a flat action that mean the distribution with these parameters; they may exceed [-1, 1]."""

    @abstractmethod
    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """What `draw` needs for one value, ``[noise_size]``."""

    @abstractmethod
    def draw(
        self, entries: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Tensor, Float[Tensor, "*batch"]]:
        """The values that noise draws from the distributions that entries mean, and their log-probability in nats."""


class GaussianPrior(Prior):
    """A diagonal Gaussian with fixed mean and standard deviation; of length zero where there is no latent.

    In flat actions an entry of 1 is `PRIOR_SDS` standard deviations from the mean; a distribution has the entries of
    its mean, then those of its standard deviation, which runs from ``exp(-LOG_SD_RANGE)`` of the prior's at -1 to the
    prior's own at 1.
    """

    PRIOR_SDS, LOG_SD_RANGE = 3.0, 6.0
    categorical = False
    mean: Tensor
    sd: Tensor

    def __init__(self, mean: tuple[float, ...] = (), sd: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.event_shape = (len(mean),)
        self.size = self.noise_size = len(mean)
        self.parameter_sizes = (len(mean), len(mean))
        self._exact = {"mean": torch.tensor(mean, dtype=torch.float64), "sd": torch.tensor(sd, dtype=torch.float64)}
        for name, value in self._exact.items():
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GaussianPrior":
        super()._apply(fn, recurse)
        # Double precision is more than single precision with zeros behind it.
        for name, value in self._exact.items():
            getattr(self, name).copy_(value)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.mean.dtype

    def log_prob(self, value: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        return gaussian_log_prob(value, self.mean, self.sd)

    def kl(self, *parameters: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence from it of a diagonal Gaussian, by mean and standard deviation; nats."""
        mean, sd = parameters
        ratio = sd / self.sd
        deviation = (mean - self.mean) / self.sd
        return 0.5 * (ratio.square() + deviation.square() - 1 - 2 * ratio.log()).sum(-1)

    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*batch dim"]:
        """Draws values of shape ``[*shape, dim]``."""
        noise = torch.randn(*shape, self.size, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + self.sd * noise

    def space(self, *shape: int) -> spaces.Box:
        """Numbers far beyond what is probable."""
        return spaces.Box(-LATENT_BOUND, LATENT_BOUND, (*shape, self.size), np.float32)

    def read(self, name: str, value: object, batch: tuple[int, ...], *, check: bool = True) -> Tensor:
        """Reads numbers, which must be finite and within `LATENT_BOUND`."""
        return within(name, read_shaped(name, value, (*batch, self.size), self.mean), LATENT_BOUND, check)

    def features(self, value: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The values."""
        return value

    def decode(self, entries: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The values."""
        return self.mean + self.PRIOR_SDS * self.sd * entries

    def encode(self, *parameters: Tensor) -> Tensor:
        """The entries of a Gaussian, by mean and standard deviation."""
        mean, sd = parameters
        scaled = (mean - self.mean) / (self.PRIOR_SDS * self.sd)
        return torch.cat([scaled, (sd / self.sd).log() * (2 / self.LOG_SD_RANGE) + 1], -1)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Standard normal."""
        return rng.standard_normal(self.size)

    def draw(self, entries: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised: mean and standard deviation get a gradient."""
        mean, sd = entries.split(self.parameter_sizes, -1)
        mean, sd = self.decode(mean), self.sd * (self.LOG_SD_RANGE / 2 * (sd - 1)).exp()
        value = mean + sd * noise
        return value, gaussian_log_prob(value, mean, sd)


class PosePrior(GaussianPrior):
    """A position ``(x, y)`` on a plane, normal around its origin, and a yaw in radians, of which none is preferred.

    Where scales are wanted, the yaw's standard deviation is a third of pi: three of them are half a turn.

    Args:
        position_sd: Standard deviation of x and y.
    """

    def __init__(self, position_sd: float) -> None:
        super().__init__((0.0, 0.0, 0.0), (position_sd, position_sd, math.pi / 3))

    def log_prob(self, value: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats; turns by whole circles are the same yaw."""
        position = gaussian_log_prob(value[..., :2], self.mean[:2], self.sd[:2])
        return position - math.log(2 * math.pi)

    def kl(self, *parameters: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence from it in nats; of a yaw on the line, which bounds that on the circle."""
        mean, sd = parameters
        ratio, deviation = sd[..., :2] / self.sd[:2], (mean[..., :2] - self.mean[:2]) / self.sd[:2]
        position = 0.5 * (ratio.square() + deviation.square() - 1 - 2 * ratio.log()).sum(-1)
        return position + 0.5 * math.log(2 * math.pi / math.e) - sd[..., 2].log()

    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*batch 3"]:
        """Draws poses; yaws lie in [-pi, pi)."""
        position = super().sample(*shape, generator=generator)[..., :2]
        yaw = torch.rand(*shape, 1, generator=generator, dtype=position.dtype, device=position.device)
        return torch.cat([position, (2 * yaw - 1) * math.pi], -1)


class CategoricalPrior(Prior):
    """Every category is equally probable.

    In flat actions there is one entry for each category: the largest wins; of a distribution they are logits, in units
    of `LOGIT_SCALE`.
    """

    LOGIT_SCALE = 10.0
    categorical = True
    event_shape = ()
    noise_size = 1
    log_p: Tensor

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.num_categories = self.size = num_categories
        self.parameter_sizes = (num_categories,)
        self.register_buffer("log_p", torch.tensor(-math.log(num_categories)), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CategoricalPrior":
        super()._apply(fn, recurse)
        self.log_p.fill_(-math.log(self.num_categories))
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return torch.long

    def log_prob(self, value: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats."""
        return self.log_p.expand(value.shape)

    def kl(self, *parameters: Float[Tensor, "*batch category"]) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence from it of normalised log-probabilities, in nats."""
        (log_q,) = parameters
        return (log_q.exp() * (log_q - self.log_p)).sum(-1)

    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Int[Tensor, "*batch"]:
        """Draws categories."""
        return torch.randint(self.num_categories, shape, generator=generator, device=self.log_p.device)

    def space(self, *shape: int) -> spaces.Discrete | spaces.MultiDiscrete:
        """Categories."""
        if not shape:
            return spaces.Discrete(self.num_categories)
        return spaces.MultiDiscrete(np.full(shape, self.num_categories))

    def read(self, name: str, value: object, batch: tuple[int, ...], *, check: bool = True) -> Tensor:
        """Reads whole numbers, which must be categories."""
        latents = read_shaped(name, value, batch, self.log_p)
        if check and not ((latents >= 0) & (latents < self.num_categories) & (latents == latents.floor())).all():
            raise ValueError(f"{name} must be categories from 0 to {self.num_categories - 1}")
        return latents.long()

    def feature_space(self, *shape: int) -> spaces.Box:
        """One-hot rows."""
        return spaces.Box(0, 1, (*shape, self.num_categories), np.float32)

    def features(self, value: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch category"]:
        """One-hot."""
        return F.one_hot(value, self.num_categories).to(self.log_p.dtype)

    def decode(self, entries: Float[Tensor, "*batch category"]) -> Int[Tensor, "*batch"]:
        """The categories of the largest entries."""
        return entries.argmax(-1)

    def encode(self, *parameters: Tensor) -> Tensor:
        """The entries of logits; the largest is 1."""
        (logits,) = parameters
        return (logits - logits.amax(-1, keepdim=True)) / self.LOGIT_SCALE + 1

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Uniform."""
        return rng.random(1)

    def draw(self, entries: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """By the inverse of the distribution function."""
        log_q = (self.LOGIT_SCALE * entries).log_softmax(-1)
        category = (noise > log_q.exp().cumsum(-1)[..., :-1]).sum(-1)
        return category, log_q.gather(-1, category[..., None])[..., 0]
