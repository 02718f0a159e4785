"""How far an image may be from its canvas: ``log p(x | canvas)``, in nats, summed over pixels.

Deviation: the paper does not state its likelihood; a Gaussian with a fixed standard deviation is what works.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.reading import is_between
from air_env.registry import Registry

Images = Float[Tensor, "*batch channel height width"]
BroadcastImages = Float[Tensor, "*#batch channel height width"]


class Likelihood(Protocol):
    """The distribution of an image around its canvas; pixels are independent."""

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


def _check_scale(scale: float, limit: float = math.inf) -> None:
    if not is_between(scale, 0, limit):
        raise ValueError(f"a likelihood's scale (likelihood_scale) must lie between 0 and {limit}, got {scale!r}")


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
    "likelihood", {"gaussian": Gaussian, "laplace": Laplace, "bernoulli": Bernoulli}
)
"""Name -> constructor with one optional argument, the scale."""
