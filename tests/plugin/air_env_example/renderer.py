"""A renderer of rings: ``z_what`` is how wide the hole is.

canvas_i = canvas_{i-1} + place(sigmoid(8 (1 - r)) sigmoid(8 (r - hole)), z_where_i),    hole = 0.8 sigmoid(z_what)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from air_env import geometry
from air_env.explanation import Images
from air_env.priors import GaussianPrior, Prior
from air_env.renderers import RendererSettings, WindowRenderer

_SHARPNESS, _WIDEST = 8.0, 0.8


@dataclass(frozen=True)
class RingConfig(RendererSettings):
    """Settings of a renderer of rings."""

    kind: ClassVar[str] = "rings"
    size: int = 12
    """Side of a ring's picture in pixels, before it is scaled to its window."""

    def make(self) -> "RingRenderer":
        """The renderer."""
        return RingRenderer(self)


class RingRenderer(WindowRenderer):
    """Draws a ring into a window; there is nothing to learn."""

    channels = 1
    differentiable = True
    prior_what: Prior
    radius: Tensor

    def __init__(self, config: RingConfig) -> None:
        super().__init__()
        self.prior_what = GaussianPrior((0.0,), (1.0,))
        axis = torch.linspace(-1, 1, config.size)
        self.register_buffer("radius", torch.hypot(axis[:, None], axis), persistent=False)

    def add(self, canvas: Images, z_where: Float[Tensor, "batch 3"], z_what: Float[Tensor, "batch 1"]) -> Images:
        """The canvas with a ring added; `WindowRenderer` draws scenes of several by it."""
        hole = _WIDEST * z_what.sigmoid()[:, :, None, None]
        patch = (_SHARPNESS * (1 - self.radius)).sigmoid() * (_SHARPNESS * (self.radius - hole)).sigmoid()
        return canvas + geometry.place(patch, z_where, canvas.shape[-1])
