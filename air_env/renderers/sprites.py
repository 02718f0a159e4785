"""Fixed sprites: coloured shapes that a category names; nearer ones hide what is behind them.

canvas_i = (1 - alpha) canvas_{i-1} + alpha colour,    alpha = place(mask of the shape, z_where_i)
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from air_env import geometry
from air_env.explanation import Images
from air_env.priors import CategoricalPrior, Prior
from air_env.reading import keep_whole
from air_env.renderers.base import RendererSettings, WindowRenderer, read_kinds

SHAPES: dict[str, Callable[[NDArray, NDArray], NDArray[np.bool_]]] = {
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "disc": lambda x, y: x**2 + y**2 <= 1,
    "triangle": lambda x, y: 2 * abs(x) <= y + 1,
    "diamond": lambda x, y: abs(x) + abs(y) <= 1,
}
"""Name -> which points of the window, ``x`` and ``y`` in [-1, 1], the shape covers; all touch its borders."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.95, 0.25, 0.2),
    "green": (0.2, 0.85, 0.3),
    "blue": (0.3, 0.45, 1.0),
    "yellow": (0.95, 0.85, 0.2),
}
"""Name -> RGB."""

KINDS = tuple(" ".join(pair) for pair in product(COLOURS, SHAPES))
"""Every sprite there is."""

_SUPERSAMPLING = 8


@dataclass(frozen=True)
class SpriteConfig(RendererSettings):
    """Settings of a sprite renderer."""

    kind: ClassVar[str] = "sprites"

    kinds: tuple[str, ...] = ("red square", "green disc", "blue triangle")
    """What ``z_what`` may be, each of `KINDS`: category k draws ``kinds[k]``."""
    size: int = 16
    """Side of a sprite's picture in pixels, before it is scaled to its window."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", read_kinds(self.kinds, KINDS))
        keep_whole(self, 1, "size")

    def make(self) -> "SpriteRenderer":
        """The renderer."""
        return SpriteRenderer(self)


def sprite_mask(kind: str, size: int) -> Float[np.ndarray, "size size"]:
    """How much of each pixel a shape covers, in [0, 1]."""
    shape = SHAPES[kind.split()[1]]
    fine = (np.arange(size * _SUPERSAMPLING) + 0.5) * 2 / (size * _SUPERSAMPLING) - 1
    covered = shape(fine[None, :], fine[:, None]).astype(np.float64)
    return covered.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean((1, 3))


class SpriteRenderer(WindowRenderer):
    """Draws the sprite of a category into a window; there is nothing to learn."""

    channels = 3
    differentiable = True
    masks: Tensor
    colours: Tensor

    def __init__(self, config: SpriteConfig) -> None:
        super().__init__()
        self.kinds = config.kinds
        self.prior_what: Prior = CategoricalPrior(len(config.kinds))
        dtype = torch.get_default_dtype()
        masks = torch.tensor(np.stack([sprite_mask(kind, config.size) for kind in config.kinds]), dtype=dtype)
        self.register_buffer("masks", masks[:, None], persistent=False)
        colours = torch.tensor([COLOURS[kind.split()[0]] for kind in config.kinds], dtype=dtype)
        self.register_buffer("colours", colours[:, :, None, None], persistent=False)

    def add(self, canvas: Images, z_where: Float[Tensor, "batch 3"], z_what: Int[Tensor, "batch"]) -> Images:
        """Draws a sprite over what is there."""
        alpha = geometry.place(self.masks[z_what], z_where, canvas.shape[-1])
        return torch.lerp(canvas, self.colours[z_what], alpha)
