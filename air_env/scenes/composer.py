"""Scenes composed of glyphs: a few small pictures, scaled and placed on an image (Section 3.1; Appendices G and H)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from air_env import geometry
from air_env.model import SceneConfig
from air_env.scenes.arrangement import Arrangement, Overlap, arrangement_options
from air_env.scenes.backgrounds import BACKGROUNDS
from air_env.scenes.base import STREAMS, PicturedScene, SceneDataset, Split, check_request, read_counts

_MAX_ATTEMPTS = 1000
_TOGETHER = 5
"""The most objects that are drawn again all together: wanted arrangements are then equally probable (our choice). Of
more, which would hardly ever fit by chance, only those are that are in the way of earlier ones."""
_PATIENCE = 50
"""Attempts after which those begin anew, too: there may be no room left between them."""
_CHUNK = 256 * 50**2
"""Pixels that are painted at a time: few enough for a processor's cache."""


@dataclass(frozen=True)
class Glyphs:
    """Small square pictures of one object each, uint8, with their classes.

    Attributes:
        images: ``[glyph, side, side]``, grey; where glyphs overlap, they add up. Or ``[glyph, side, side, 4]``,
            red, green, blue and opacity; where glyphs overlap, the later one hides the earlier.
        labels: ``[glyph]``.
        facts: Further whole numbers about each glyph by name, ``[glyph]``, at least 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    facts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels.shape != self.images.shape[:1] or (self.labels < 0).any():
            raise ValueError(
                f"glyphs need one label of at least 0 each: got {len(self.images)} images and labels of shape "
                f"{self.labels.shape}, the smallest {min(self.labels, default=0)}; label every glyph"
            )

    def tight_boxes(self) -> NDArray[np.float64]:
        """``[glyph, 4]``: the borders ``(x0, y0, x1, y1)`` of what is not black or clear, in the glyph's pixels."""
        visible = self.images[..., 3] if self.opaque else self.images
        rows, columns = np.any(visible, 2), np.any(visible, 1)
        side = self.images.shape[1]
        x0, y0 = columns.argmax(1), rows.argmax(1)
        x1, y1 = side - columns[:, ::-1].argmax(1), side - rows[:, ::-1].argmax(1)
        return np.stack([x0, y0, x1, y1], 1).astype(np.float64)

    @property
    def opaque(self) -> bool:
        """Whether they hide what is behind them."""
        return self.images.ndim == 4

    def layers(self, chosen: NDArray) -> tuple[NDArray[np.float32], ...]:
        """What chosen glyphs ``[object]`` do to what is behind them.

        Returns:
            The light that each adds, ``[object, channel, side, side]`` from 0 to 255, and, if they are opaque, the
            share that it hides, ``[object, 1, side, side]`` from 0 to 1.
        """
        images = self.images[chosen]
        if not self.opaque:
            return (images[:, None].astype(np.float32),)
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
        opacity = pixels[:, 3:] / 255
        return (pixels[:, :3] * opacity).astype(np.float32), opacity.astype(np.float32)


@dataclass(frozen=True)
class ComposedScene(PicturedScene):
    """Images of a few glyphs that do not overlap unless asked.

    Every scene draws its count, then a glyph, a size and a position for each object; where these are not arranged as
    wanted, sizes and positions of that scene are drawn again; if it has more than five objects, of those only that are
    in the way of earlier ones. `Arrangement` says more of the options of that; None is what the difficulty says.

    Where glyphs are opaque, the truth has two facts more: ``visible``, the share of an object that nothing hides, and
    ``depth``, 0 for the nearest object of a scene, 1 for the one behind it, and so on.

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
        background: None for black, or one of `BACKGROUNDS`: noise, grid. The truth stays that of the objects.
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
    background: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", read_counts(self.counts))
        object.__setattr__(self, "image_size", self.arrangement.image_size)
        if self.background is not None:
            BACKGROUNDS.find(self.background)

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
        images, visible = _paint(glyphs, chosen, tight, boxes, present, self.image_size)
        if self.background is not None:
            behind = BACKGROUNDS.find(self.background)
            for rows in _chunks(num_scenes, self.image_size):
                images[rows] = behind(images[rows], rng)
        facts = {name: np.where(present, numbers[chosen], -1) for name, numbers in glyphs.facts.items()}
        if glyphs.opaque:
            depth = count[:, None] - 1 - np.arange(present.shape[1])
            facts |= {"visible": np.where(present, visible, np.float32(np.nan)), "depth": np.where(present, depth, -1)}
        return SceneDataset(
            images=torch.from_numpy(images),
            count=torch.from_numpy(count),
            labels=torch.from_numpy(np.where(present, glyphs.labels[chosen], -1)),
            boxes=torch.from_numpy(np.where(present[..., None], boxes, np.nan)).float(),
            facts={name: torch.from_numpy(numbers) for name, numbers in facts.items()},
        )

    def _arrange(
        self, glyphs: Glyphs, chosen: NDArray, tight: NDArray, present: NDArray, rng: np.random.Generator
    ) -> NDArray:
        """Boxes ``[scene, object, 4]`` of the chosen glyphs ``[scene, object]``; also of those that are not present."""
        arrangement = self.arrangement
        boxes, refused = np.empty(tight.shape), np.ones(present.shape, bool)
        pending, together = np.arange(len(boxes)), present.sum(1) <= _TOGETHER
        for attempt in range(_MAX_ATTEMPTS):
            drawn = arrangement.draw(tight[pending], glyphs.images.shape[1], rng)
            boxes[pending] = np.where(refused[:, :, None], drawn, boxes[pending])
            refused = arrangement.refuses(np.where(present[pending, :, None], boxes[pending], np.nan))
            if arrangement.overlap == "light":
                fine = ~refused.any(1)
                rows = pending[fine]
                refused[fine] = _too_much(
                    glyphs, chosen[rows], tight[rows], boxes[rows], present[rows], self.image_size
                )
            again = refused.any(1)
            pending, refused = pending[again], refused[again]
            refused[together[pending] | (attempt % _PATIENCE == _PATIENCE - 1)] = True
            if len(pending) == 0:
                return boxes
        raise ValueError(
            f"{max(self.counts)} objects {arrangement} do not fit into images of {self.image_size} pixels; use smaller "
            'objects, fewer of them, larger images, other distances, or overlap="any"'
        )


def _paint(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images in which each glyph's tight box lands on its box.

    Returns:
        ``[scene, channel, height, width]``, and the share of each object that nothing hides, ``[scene, object]``.
    """
    images = np.empty((len(chosen), 3 if glyphs.opaque else 1, image_size, image_size), np.uint8)
    visible = np.ones(chosen.shape, np.float32)
    for chunk in _chunks(len(chosen), image_size):
        canvas, there = torch.zeros(images[chunk].shape), present[chunk]
        opacity = torch.zeros(*there.shape, *canvas.shape[2:]) if glyphs.opaque else None
        placed = _place(glyphs, chosen[chunk], tight[chunk], boxes[chunk], there, image_size)
        for i, (rows, added, *hidden) in enumerate(placed):
            if opacity is not None:
                opacity[rows, i] = hidden[0][:, 0]
                canvas[rows] *= 1 - hidden[0]
            canvas[rows] += added
        images[chunk] = canvas.clamp(0, 255).round().byte().numpy()
        if opacity is not None:
            visible[chunk] = _visible(opacity).numpy()
    return images, visible


def _visible(opacity: Tensor) -> Tensor:
    """The share of each object that later ones do not hide, by their opacities ``[scene, object, height, width]``."""
    through = (1 - opacity).flip(1).cumprod(1).flip(1)
    through = torch.cat([through[:, 1:], torch.ones_like(through[:, :1])], 1)
    return (opacity * through).sum((2, 3)) / opacity.sum((2, 3))


def _too_much(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> NDArray[np.bool_]:
    """Which objects ``[scene, object]`` give a pixel more than white, or are not the only opaque one there."""
    too_much = np.zeros(chosen.shape, bool)
    for chunk in _chunks(len(chosen), image_size):
        total = torch.zeros(len(chosen[chunk]), 1, image_size, image_size)
        placed = _place(glyphs, chosen[chunk], tight[chunk], boxes[chunk], present[chunk], image_size)
        for i, (rows, added, *hidden) in enumerate(placed):
            new = 255 * hidden[0] if hidden else added
            total[rows] += new
            too_much[chunk.start + rows, i] = ((total[rows].round() > 255) & (new > 0)).flatten(1).any(1)
    return too_much


def _place(
    glyphs: Glyphs, chosen: NDArray, tight: NDArray, boxes: NDArray, present: NDArray, image_size: int
) -> Iterator[tuple[NDArray[np.int64], *tuple[Tensor, ...]]]:
    """Scenes that have a first, second, ... object, and its layers on an empty image."""
    # The whole glyph, margins included, is placed by the window that takes its tight box to its box.
    zoom = (boxes[..., 2:] - boxes[..., :2]) / (tight[..., 2:] - tight[..., :2])
    corner = boxes[..., :2] - zoom * tight[..., :2]
    windows = np.concatenate([corner, corner + zoom * glyphs.images.shape[1]], -1)
    z_where = geometry.from_boxes(torch.from_numpy(windows), image_size).float()
    for i in range(chosen.shape[1]):
        rows = np.flatnonzero(present[:, i])
        layers = (torch.from_numpy(layer) for layer in glyphs.layers(chosen[rows, i]))
        yield rows, *(geometry.place(layer, z_where[rows, i], image_size) for layer in layers)


def _chunks(length: int, image_size: int) -> Iterator[slice]:
    """Parts of the scenes, to be painted one after the other."""
    size = max(1, _CHUNK // image_size**2)
    return (slice(start, start + size) for start in range(0, length, size))
