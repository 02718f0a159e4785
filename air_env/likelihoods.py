"""How far an image may be from its canvas: ``log p(x | canvas)``, in nats, summed over pixels.

Deviation: the paper does not state its likelihood; a Gaussian with a fixed standard deviation is what works.

All but the Bernoulli are densities of pixels, so that log-probabilities and bounds under them can be compared. Those
under the Bernoulli can be compared with each other only: of grey pixels, it is a cross-entropy and no density.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env.reading import is_between
from air_env.registry import Registry

Images = Float[Tensor, "*batch channel height width"]
BroadcastImages = Float[Tensor, "*#batch channel height width"]


class Likelihood(Protocol):
    """The distribution of an image around its canvas; pixels are independent, given the canvas and the scale."""

    @property
    def scale(self) -> float:
        """How far pixels may be from it."""
        ...

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``."""
        ...

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """``x ~ N(canvas, scale ** 2)`` at every pixel."""

    scale: float = 0.3

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``."""
        image, canvas = torch.broadcast_tensors(image, canvas)
        squared_error = F.mse_loss(canvas, image, reduction="none").sum((-3, -2, -1))
        constant = _num_pixels(image) * (math.log(self.scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 / self.scale**2 * squared_error - constant

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        noise = torch.randn(canvas.shape, generator=generator, dtype=canvas.dtype, device=canvas.device)
        return canvas + self.scale * noise


class LearnedGaussian(nn.Module):
    """``x ~ N(canvas, sd ** 2)`` at every pixel, with ``sd = 1/255 + exp(log_excess)`` a parameter of the model.

    Pixels are whole multiples of 1/255. A smaller sd would tell nothing of them but make bounds as large as one likes.

    Args:
        scale: The sd that learning starts from.
    """

    def __init__(self, scale: float = 0.3) -> None:
        super().__init__()
        _check_scale(scale, least=_ROUNDING)
        self.log_excess = nn.Parameter(torch.tensor(math.log(scale - _ROUNDING)))

    @property
    def scale(self) -> float:
        """The sd that was learned so far; reading it waits for the device."""
        return self._sd.item()

    @property
    def _sd(self) -> Float[Tensor, ""]:
        return _ROUNDING + self.log_excess.exp()

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``, with a gradient in the sd."""
        return Gaussian(1.0).log_prob(image / self._sd, canvas / self._sd) - _num_pixels(image) * self._sd.log()

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        return canvas + self._sd * (Gaussian(1.0).sample(canvas, generator) - canvas)


_ROUNDING = 1 / 255


def _check_scale(scale: float, limit: float = math.inf, least: float = 0) -> None:
    if not is_between(scale, least, limit):
        raise ValueError(
            f"a likelihood's scale (likelihood_scale) must lie between {least:.3g} and {limit}, got {scale!r}"
        )


def _num_pixels(image: Tensor) -> int:
    return math.prod(image.shape[-3:])


@dataclass(frozen=True)
class Laplace:
    """``x ~ Laplace(canvas, scale)`` at every pixel: forgiving of a few large errors."""

    scale: float = 0.2

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``."""
        error = (image - canvas).abs().sum((-3, -2, -1))
        return -error / self.scale - _num_pixels(image) * math.log(2 * self.scale)

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        options = {"generator": generator, "dtype": canvas.dtype, "device": canvas.device}
        # The difference of two exponential variables is a Laplace variable.
        first, second = -torch.rand(2, *canvas.shape, **options).clamp_min(torch.finfo(canvas.dtype).tiny).log()
        return canvas + self.scale * (first - second)


@dataclass(frozen=True)
class StudentT:
    """``(x - canvas) / scale ~ t`` with three degrees of freedom (our choice) at every pixel.

    Beyond the scale, an error costs the logarithm of its size only: a few pixels that no object explains do not decide.
    """

    scale: float = 0.15
    degrees = 3

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``."""
        nu = self.degrees
        error = ((image - canvas) / self.scale).square().div(nu).log1p().sum((-3, -2, -1))
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi) - math.log(self.scale)
        return _num_pixels(image) * constant - (nu + 1) / 2 * error

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        options = {"generator": generator, "dtype": canvas.dtype, "device": canvas.device}
        noise = torch.randn(1 + self.degrees, *canvas.shape, **options)
        return canvas + self.scale * noise[0] / noise[1:].square().mean(0).sqrt()


@dataclass(frozen=True)
class Outliers:
    """``x ~ 0.95 N(canvas, scale ** 2) + 0.05 U(0, 1)`` at every pixel (the shares are our choice).

    No pixel between black and white costs more than 3 nats: what no object explains is put down to chance.
    """

    scale: float = 0.2
    share = 0.05

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``."""
        constant = math.log(1 - self.share) - math.log(self.scale) - 0.5 * math.log(2 * math.pi)
        close = constant - 0.5 * ((image - canvas) / self.scale).square()
        possible = torch.full_like(image, math.log(self.share)).masked_fill((image < 0) | (image > 1), -torch.inf)
        return torch.logaddexp(close, possible).sum((-3, -2, -1))

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        options = {"generator": generator, "dtype": canvas.dtype, "device": canvas.device}
        noise = torch.randn(canvas.shape, **options)
        chance, anything = torch.rand(2, *canvas.shape, **options)
        return torch.where(chance < self.share, anything, canvas + self.scale * noise)


@dataclass(frozen=True)
class Bernoulli:
    """``x ~ Bernoulli(canvas)`` at every pixel, for images that are nearly binary.

    The canvas is clipped to ``[scale, 1 - scale]``, so that no pixel costs more than ``-log scale`` nats.
    """

    scale: float = 1e-3

    def __post_init__(self) -> None:
        _check_scale(self.scale, 0.5)

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)``, the cross-entropy where pixels are grey."""
        image, clipped = torch.broadcast_tensors(image, canvas.clamp(self.scale, 1 - self.scale))
        return -F.binary_cross_entropy(clipped, image, reduction="none").sum((-3, -2, -1))

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws a black and white image."""
        return torch.bernoulli(canvas.clamp(self.scale, 1 - self.scale), generator=generator)


LIKELIHOODS: Registry[Callable[..., Likelihood]] = Registry(
    "likelihood",
    {
        "gaussian": Gaussian,
        "learned_gaussian": LearnedGaussian,
        "laplace": Laplace,
        "bernoulli": Bernoulli,
        "student_t": StudentT,
        "outliers": Outliers,
    },
)
"""Name -> constructor with one optional argument, the scale."""
