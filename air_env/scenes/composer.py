"""Scenes composed of glyphs: a few small pictures, scaled and placed on an empty image (Section 3.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from air_env import geometry
from air_env.model import SceneConfig
from air_env.reading import keep_whole
from air_env.scene_config import MOST_PIXELS_A_SIDE
from air_env.scenes.base import STREAMS, PicturedScene, SceneDataset, Split, check_request, read_counts

_MAX_ATTEMPTS = 1000
_CHUNK = 4096


@dataclass(frozen=True)
class Glyphs:
    """Small square pictures of one object each, uint8, with their classes.

    Attributes:
        images: ``[glyph, side, side]``, grey; where glyphs overlap, they add up. Or ``[glyph, side, side, 4]``,
            red, green, blue and opacity; where glyphs overlap, the later one hides the earlier.
        labels: ``[glyph]``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.labels.shape != self.images.shape[:1] or (self.labels < 0).any():
            raise ValueError(
                f"glyphs need one label of at least 0 each: got {len(self.images)} images and labels of shape "
                f"{self.labels.shape}, the smallest {min(self.labels, default=0)}; label every glyph"
            )

    def tight_boxes(self) -> NDArray[np.float64]:
        """``[glyph, 4]``: the borders ``(x0, y0, x1, y1)`` of what is not black or clear, in the glyph's pixels."""
        visible = self.images if self.images.ndim == 3 else self.images[..., 3]
        rows, columns = np.any(visible, 2), np.any(visible, 1)
        side = self.images.shape[1]
        x0, y0 = columns.argmax(1), rows.argmax(1)
        x1, y1 = side - columns[:, ::-1].argmax(1), side - rows[:, ::-1].argmax(1)
        return np.stack([x0, y0, x1, y1], 1).astype(np.float64)

    def layers(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What each glyph does to what is behind it.

        Returns:
            The light that it adds, ``[glyph, channel, side, side]`` from 0 to 255, and the share that it hides,
            ``[glyph, 1, side, side]`` from 0 to 1.
        """
        if self.images.ndim == 3:
            light = self.images[:, None].astype(np.float32)
            return light, np.zeros_like(light)
        pixels = self.images.transpose(0, 3, 1, 2).astype(np.float32)
        opacity = pixels[:, 3:] / 255
        return (pixels[:, :3] * opacity).astype(np.float32), opacity.astype(np.float32)


@dataclass(frozen=True)
class ComposedScene(PicturedScene):
    """Images of a few glyphs that do not overlap unless asked.

    Every scene draws its count, then a glyph, a size and a position for each object, uniformly; where
    boxes overlap, sizes and positions of that scene are drawn again.
    """

    glyphs: Callable[[Split], Glyphs]
    """The glyphs of a split; the splits must be disjoint."""
    object_size: tuple[float, float]
    """Smallest and largest length of the longer side of an object's box, in pixels."""
    counts: tuple[int, ...] = (0, 1, 2)
    """Numbers of objects, equally probable (paper: 0, 1, 2)."""
    image_size: int = 50
    """Side of the square image in pixels (paper: 50)."""
    overlap: bool = False
    """Whether objects may overlap."""
    gap: float = 1.0
    """Smallest distance between the boxes of objects that do not overlap, in pixels."""
    model: SceneConfig | None = None
    """The generative model of the images, where it is known."""

    def __post_init__(self) -> None:
        keep_whole(self, 1, "image_size", most=MOST_PIXELS_A_SIDE)
        object.__setattr__(self, "counts", read_counts(self.counts))
        try:
            smallest, largest = self.object_size
            fits = 0 < smallest <= largest <= self.image_size
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                f"object_size must be 0 < smallest <= largest <= image side, got {self.object_size} "
                f"for images of {self.image_size} pixels"
            )
        if not isinstance(self.gap, Real) or not self.gap >= 0:
            raise ValueError(f"gap must be at least 0 pixels, got {self.gap!r}")

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Composes scenes; the same arguments give the same scenes, bit for bit."""
        check_request(split, num_scenes, seed)
        glyphs = self.glyphs(split)
        rng = np.random.default_rng([seed, STREAMS[split]])
        count = rng.choice(np.array(self.counts), num_scenes)
        present = np.arange(max(*self.counts, 1)) < count[:, None]
        chosen = rng.integers(len(glyphs.labels), size=present.shape)
        tight = glyphs.tight_boxes()[chosen]
        boxes = self._arrange(tight[..., 2:] - tight[..., :2], present, rng)
        return SceneDataset(
            images=_paint(glyphs, chosen, tight, boxes, present, self.image_size),
            count=torch.from_numpy(count),
            labels=torch.from_numpy(np.where(present, glyphs.labels[chosen], -1)),
            boxes=torch.from_numpy(np.where(present[..., None], boxes, np.nan)).float(),
        )

    def _arrange(self, extent: NDArray, present: NDArray, rng: np.random.Generator) -> NDArray:
        """Boxes ``[scene, object, 4]`` for objects of the given width and height ``[scene, object, 2]``."""
        boxes = np.empty((*present.shape, 4))
        pending = np.arange(len(present))
        for _ in range(_MAX_ATTEMPTS):
            longer_side = rng.uniform(*self.object_size, size=(len(pending), present.shape[1], 1))
            size = extent[pending] * longer_side / extent[pending].max(-1, keepdims=True)
            corner = rng.uniform(size=size.shape) * (self.image_size - size)
            boxes[pending] = np.concatenate([corner, corner + size], -1)
            if not self.overlap:
                pending = pending[self._overlapping(boxes[pending], present[pending])]
            if self.overlap or len(pending) == 0:
                return boxes
        raise ValueError(
            f"{max(self.counts)} objects of {self.object_size} pixels do not fit into images of {self.image_size} "
            "pixels without overlap; use smaller objects, fewer of them, larger images, or overlap=True"
        )

    def _overlapping(self, boxes: NDArray, present: NDArray) -> NDArray[np.bool_]:
        """Which scenes have two present objects closer than the gap."""
        lower, upper = boxes[..., :2], boxes[..., 2:] + self.gap
        apart = ((lower[:, :, None] >= upper[:, None]) | (lower[:, None] >= upper[:, :, None])).any(-1)
        both = present[:, :, None] & present[:, None] & ~np.eye(present.shape[1], dtype=bool)
        return np.any(both & ~apart, (1, 2))


def _paint(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> Tensor:
    """Images ``[scene, channel, height, width]`` uint8 in which each glyph's tight box lands on its box."""
    # The whole glyph, margins included, is placed by the window that takes its tight box to its box.
    zoom = (boxes[..., 2:] - boxes[..., :2]) / (tight[..., 2:] - tight[..., :2])
    corner = boxes[..., :2] - zoom * tight[..., :2]
    windows = np.concatenate([corner, corner + zoom * glyphs.images.shape[1]], -1)
    z_where = geometry.from_boxes(torch.from_numpy(windows), image_size).float()
    light, opacity = glyphs.layers()
    images = torch.empty(len(chosen), light.shape[1], image_size, image_size, dtype=torch.uint8)
    for start in range(0, len(chosen), _CHUNK):
        rows = slice(start, start + _CHUNK)
        canvas = torch.zeros(images[rows].shape)
        for i in range(chosen.shape[1]):
            mask = torch.from_numpy(present[rows, i])[:, None, None, None]
            added, hidden = (
                geometry.place(torch.from_numpy(layer[chosen[rows, i]]) * mask, z_where[rows, i], image_size)
                for layer in (light, opacity)
            )
            canvas = canvas * (1 - hidden) + added
        images[rows] = canvas.clamp(0, 255).round().byte()
    return images
