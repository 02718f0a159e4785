"""What is behind the objects of composed scenes: the two on which AIR is known to fail.

Both are those of SuPAIR (Stelzner, Peharz and Kersting, 2019, "Faster Attend-Infer-Repeat with Tractable Probabilistic
Models", Section 5), whose published AIR counts next to nothing right there.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from air_env.registry import Registry

Bytes = UInt8[np.ndarray, "scene channel height width"]

_SPACING, _LINE = 5, 102
"""Pixels from line to line, and the brightness of lines, 0.4 of white."""


def noise(images: Bytes, rng: np.random.Generator) -> Bytes:
    """Less contrast and Gaussian noise: ``clip(0.8 x + 0.1 + 0.2 e, 0, 1)`` at every pixel."""
    drawn: NDArray[np.float32] = rng.standard_normal(images.shape, np.float32)
    return (0.8 * images + (0.1 + 0.2 * drawn) * np.float32(255)).clip(0, 255).round().astype(np.uint8)


def grid(images: Bytes, rng: np.random.Generator) -> Bytes:
    """Lines of 0.4 every 5 pixels down and across, from a random one; of line and object, the brighter is seen."""
    across, down = rng.integers(_SPACING, size=(2, len(images), 1))
    row, column = (np.arange(side) % _SPACING for side in images.shape[-2:])
    lines = (row == down)[:, None, :, None] | (column == across)[:, None, None]
    return np.maximum(images, np.where(lines, np.uint8(_LINE), np.uint8(0)))


BACKGROUNDS: Registry[Callable[[Bytes, np.random.Generator], Bytes]] = Registry(
    "background", {"noise": noise, "grid": grid}
)
"""Name -> function that puts objects, which were drawn on black, on a background."""
