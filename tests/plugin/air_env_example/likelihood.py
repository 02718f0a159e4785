"""``x ~ Cauchy(canvas, scale)`` at every pixel: forgiving of pixels that no object explains."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "*batch channel height width"]
BroadcastImages = Float[Tensor, "*#batch channel height width"]


@dataclass(frozen=True)
class Cauchy:
    """A Cauchy distribution around the canvas; pixels are independent."""

    scale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"likelihood_scale must be positive, got {self.scale}")

    def log_prob(self, image: BroadcastImages, canvas: BroadcastImages) -> Float[Tensor, "*#batch"]:
        """``log p(image | canvas)`` in nats, summed over pixels."""
        error = (image - canvas) / self.scale
        return -(error.square().log1p() + math.log(math.pi * self.scale)).sum((-3, -2, -1))

    def sample(self, canvas: Images, generator: torch.Generator | None = None) -> Images:
        """Draws an image."""
        uniform = torch.rand(canvas.shape, generator=generator, dtype=canvas.dtype, device=canvas.device)
        return canvas + self.scale * (math.pi * (uniform - 0.5)).tan()
