"""Scenes composed of glyphs: a few small pictures, scaled and placed on an empty image (Section 3.1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from air_env import geometry
from air_env.model import SceneConfig
from air_env.scenes.arrangement import Arrangement, Overlap, arrangement_options
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

    def layers(self, chosen: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What chosen glyphs ``[object]`` do to what is behind them.

        Returns:
            The light that each adds, ``[object, channel, side, side]`` from 0 to 255, and the share that it hides,
            ``[object, 1, side, side]`` from 0 to 1.
        """
        images = self.images[chosen]
        if images.ndim == 3:
            light = images[:, None].astype(np.float32)
            return light, np.zeros_like(light)
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
        opacity = pixels[:, 3:] / 255
        return (pixels[:, :3] * opacity).astype(np.float32), opacity.astype(np.float32)


@dataclass(frozen=True)
class ComposedScene(PicturedScene):
    """Images of a few glyphs that do not overlap unless asked.

    Every scene draws its count, then a glyph, a size and a position for each object; where these are not arranged as
    wanted, sizes and positions of that scene are drawn again. `Arrangement` says more of the options of that; None is
    what the difficulty says.

    Attributes:
        glyphs: The glyphs of a split; the splits must be disjoint.
        object_size: Smallest and largest length of the longer side of an object's box, in pixels.
        counts: Numbers of objects, equally probable (paper: 0, 1, 2).
        image_size: Side of the square image in pixels (paper: 50).
        overlap: none, light (objects may touch, but no pixel gets more than white) or any.
        gap: Smallest distance between the boxes of objects that do not overlap, in pixels.
        model: The generative model of the images, where it is known.
        difficulty: published, small, touching, close, overlapping (`DIFFICULTIES`): the options that are not given.
        inverse_scale: Instead of object_size, mean and sd of a Gaussian that divides the side of a glyph's picture.
        centre_distance: Smallest and largest distance of a scene's two nearest centres, in pixels.
        default_size: The object_size where neither an option nor the difficulty says how large objects are.
        frame_size: Side of a glyph's picture before it is divided, in pixels; by default the number of its pixels.
    """

    glyphs: Callable[[Split], Glyphs]
    object_size: tuple[float, float] | None = None
    counts: tuple[int, ...] = (0, 1, 2)
    image_size: int = 50
    overlap: Overlap | bool | None = None
    gap: float | None = None
    model: SceneConfig | None = None
    difficulty: str = "published"
    inverse_scale: tuple[float, float] | None = None
    centre_distance: tuple[float, float] | None = None
    default_size: tuple[float, float] | None = None
    frame_size: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", read_counts(self.counts))
        object.__setattr__(self, "image_size", self.arrangement.image_size)

    @property
    def arrangement(self) -> Arrangement:
        """Sizes and positions of objects, by the difficulty and the options."""
        given = {name: getattr(self, name) for name in arrangement_options()}
        return Arrangement.of(self.difficulty, self.default_size, self.image_size, self.frame_size, **given)

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Composes scenes; the same arguments give the same scenes, bit for bit."""
        check_request(split, num_scenes, seed)
        glyphs = self.glyphs(split)
        rng = np.random.default_rng([seed, STREAMS[split]])
        count = rng.choice(np.array(self.counts), num_scenes)
        present = np.arange(max(*self.counts, 1)) < count[:, None]
        chosen = rng.integers(len(glyphs.labels), size=present.shape)
        tight = glyphs.tight_boxes()[chosen]
        boxes = self._arrange(glyphs, chosen, tight, present, rng)
        return SceneDataset(
            images=_paint(glyphs, chosen, tight, boxes, present, self.image_size),
            count=torch.from_numpy(count),
            labels=torch.from_numpy(np.where(present, glyphs.labels[chosen], -1)),
            boxes=torch.from_numpy(np.where(present[..., None], boxes, np.nan)).float(),
        )

    def _arrange(
        self, glyphs: Glyphs, chosen: NDArray, tight: NDArray, present: NDArray, rng: np.random.Generator
    ) -> NDArray:
        """Boxes ``[scene, object, 4]`` of the chosen glyphs ``[scene, object]``; also of those that are not present."""
        arrangement = self.arrangement
        boxes = np.empty(tight.shape)
        pending = np.arange(len(boxes))
        for _ in range(_MAX_ATTEMPTS):
            boxes[pending] = arrangement.draw(tight[pending], glyphs.images.shape[1], rng)
            refused = arrangement.refuses(np.where(present[pending, :, None], boxes[pending], np.nan))
            if arrangement.overlap == "light":
                rows = pending[~refused]
                refused[~refused] = _too_much(
                    glyphs, chosen[rows], tight[rows], boxes[rows], present[rows], self.image_size
                )
            pending = pending[refused]
            if len(pending) == 0:
                return boxes
        raise ValueError(
            f"{max(self.counts)} objects {arrangement} do not fit into images of {self.image_size} pixels; use smaller "
            'objects, fewer of them, larger images, other distances, or overlap="any"'
        )


def _paint(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> Tensor:
    """Images ``[scene, channel, height, width]`` uint8 in which each glyph's tight box lands on its box."""
    channels = 1 if glyphs.images.ndim == 3 else 3
    images = torch.empty(len(chosen), channels, image_size, image_size, dtype=torch.uint8)
    for rows in _chunks(len(chosen)):
        canvas = torch.zeros(images[rows].shape)
        for added, hidden in _place(glyphs, chosen[rows], tight[rows], boxes[rows], present[rows], image_size):
            canvas = canvas * (1 - hidden) + added
        images[rows] = canvas.clamp(0, 255).round().byte()
    return images


def _too_much(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> NDArray[np.bool_]:
    """Which scenes have a pixel that gets more than white, or more than one opaque object."""
    too_much = np.empty(len(chosen), bool)
    for rows in _chunks(len(chosen)):
        total = torch.zeros(1)
        for added, hidden in _place(glyphs, chosen[rows], tight[rows], boxes[rows], present[rows], image_size):
            total = total + (added if glyphs.images.ndim == 3 else 255 * hidden)
        too_much[rows] = (total.round() > 255).flatten(1).any(1).numpy()
    return too_much


def _place(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> Iterator[tuple[Tensor, ...]]:
    """The layers of the glyphs on empty images, one object of each scene after another."""
    # The whole glyph, margins included, is placed by the window that takes its tight box to its box.
    zoom = (boxes[..., 2:] - boxes[..., :2]) / (tight[..., 2:] - tight[..., :2])
    corner = boxes[..., :2] - zoom * tight[..., :2]
    windows = np.concatenate([corner, corner + zoom * glyphs.images.shape[1]], -1)
    z_where = geometry.from_boxes(torch.from_numpy(windows), image_size).float()
    for i in range(chosen.shape[1]):
        mask = torch.from_numpy(present[:, i])[:, None, None, None]
        layers = glyphs.layers(chosen[:, i])
        yield tuple(geometry.place(torch.from_numpy(layer) * mask, z_where[:, i], image_size) for layer in layers)


def _chunks(length: int) -> Iterator[slice]:
    """Parts of the scenes that fit into memory."""
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))
