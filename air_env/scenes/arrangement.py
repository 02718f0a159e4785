"""How large the objects of a composed scene are, where they lie and what may touch; and named difficulties of that.

Sizes and positions of a scene are drawn together, and again until they are as wanted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from air_env.reading import keep_whole
from air_env.registry import Registry
from air_env.scene_config import MOST_PIXELS_A_SIDE

Overlap = Literal["none", "light", "any"]
"""What may overlap: no boxes; boxes, but no two bright pixels; anything."""

DIFFICULTIES: Registry[Mapping[str, object]] = Registry(
    "difficulty",
    {
        "published": {},
        "small": {"object_size": (8, 12)},
        "touching": {"inverse_scale": (1.3, 0.1), "overlap": "light"},
        "close": {"inverse_scale": (1.3, 0.1), "overlap": "light", "centre_distance": (10, 19)},
        "overlapping": {"overlap": "any"},
    },
)
"""Name -> options of `Arrangement`.

``published`` is the paper's: objects do not overlap (Section 3.1). ``touching`` has the sizes and the overlap of the
multi-MNIST generator among Pyro's examples, and ``close`` those of its scenes in which two objects are near.
"""

_SIZES = {"object_size", "inverse_scale"}


@dataclass(frozen=True)
class Arrangement:
    """Sizes and positions of objects.

    An object's *frame* is the border of its whole glyph, margins included; its *box* is that of what is visible.
    """

    image_size: int
    """Side of the square image in pixels."""
    object_size: tuple[float, float] | None = None
    """Smallest and largest length of the longer side of a box in pixels, uniformly distributed."""
    inverse_scale: tuple[float, float] | None = None
    """Instead: mean and standard deviation of a Gaussian by which the side of the frame is divided, and rounded down.
    Frames then lie on whole pixels; they are at least 1 pixel, and at most the image."""
    overlap: Overlap | bool = "none"
    """``none``: boxes are at least ``gap`` apart. ``light``: objects may touch, but no pixel gets more than white, or
    more than one opaque object. ``any``: all is allowed. Older files have True for ``any`` and False for ``none``."""
    gap: float = 1.0
    """Smallest distance in pixels between the boxes of objects that do not overlap."""
    centre_distance: tuple[float, float] = (0.0, math.inf)
    """Smallest and largest distance in pixels between the centres of the two nearest boxes of a scene."""
    frame_size: float | None = None
    """Side of the frame in pixels before it is divided; by default that of the glyph's picture."""

    def __post_init__(self) -> None:
        keep_whole(self, 1, "image_size", most=MOST_PIXELS_A_SIDE)
        if self.object_size is not None and self.inverse_scale is not None:
            raise ValueError("object_size and inverse_scale both say how large objects are; give one of them")
        if self.inverse_scale is None:
            _check_pair(
                "object_size",
                self.object_size,
                lambda smallest, largest: 0 < smallest <= largest <= self.image_size,
                "0 < smallest <= largest <= image side",
                f" for images of {self.image_size} pixels",
            )
        else:
            _check_pair(
                "inverse_scale",
                self.inverse_scale,
                lambda mean, sd: 0 <= sd < mean < math.inf,
                "a mean and a smaller standard deviation of at least 0",
            )
        if isinstance(self.overlap, bool):
            object.__setattr__(self, "overlap", "any" if self.overlap else "none")
        if not isinstance(self.overlap, str) or self.overlap not in get_args(Overlap):
            raise ValueError(f"overlap must be one of {', '.join(get_args(Overlap))}, got {self.overlap!r}")
        if not isinstance(self.gap, Real) or not self.gap >= 0:
            raise ValueError(f"gap must be at least 0 pixels, got {self.gap!r}")
        _check_pair(
            "centre_distance",
            self.centre_distance,
            lambda smallest, largest: 0 <= smallest <= largest,
            "0 <= smallest <= largest, in pixels",
        )

    @classmethod
    def of(
        cls, difficulty: str, default_size: object, image_size: int, frame_size: float | None, **given: object
    ) -> "Arrangement":
        """The arrangement of a difficulty.

        Args:
            difficulty: One of `DIFFICULTIES`.
            default_size: ``object_size`` where neither the difficulty nor an option says how large objects are.
            image_size: Side of the square image in pixels.
            frame_size: Side of the frame in pixels before it is divided.
            given: Options that differ from those of the difficulty; None is no option.

        Raises:
            ValueError: The difficulty is unknown, or has options that there are not, or one is out of range.
        """
        preset, names = DIFFICULTIES.find(difficulty), arrangement_options()
        if not isinstance(preset, Mapping) or not preset.keys() <= set(names):
            raise ValueError(f"difficulty {difficulty!r} must be a dict of some of {', '.join(names)}; got {preset!r}")
        options: dict[str, object] = {}
        for layer in (
            {"object_size": default_size},
            preset,
            {name: value for name, value in given.items() if value is not None},
        ):
            # There are two ways to say how large objects are: the later one counts.
            dropped = _SIZES if _SIZES & layer.keys() else set()
            options = {name: value for name, value in options.items() if name not in dropped} | dict(layer)
        return cls(image_size, frame_size=frame_size, **options)  # pyright: ignore[reportArgumentType]

    def draw(self, tight: NDArray, side: int, rng: np.random.Generator) -> NDArray:
        """Boxes ``[scene, object, 4]`` in pixels, which may not be as wanted yet.

        Args:
            tight: Boxes in the pixels of the glyphs, ``[scene, object, 4]``.
            side: Side of the glyphs in pixels.
            rng: Source of sizes and positions.
        """
        extent = tight[..., 2:] - tight[..., :2]
        if self.inverse_scale is None:
            longer_side = rng.uniform(*cast(tuple, self.object_size), size=(*tight.shape[:2], 1))
            size = extent * longer_side / extent.max(-1, keepdims=True)
            corner = rng.uniform(size=size.shape) * (self.image_size - size)
            return np.concatenate([corner, corner + size], -1)
        whole = self.frame_size or side
        scale = rng.normal(*self.inverse_scale, size=(*tight.shape[:2], 1)).clip(whole / self.image_size, whole)
        frame = np.floor(whole / scale).astype(np.int64)
        corner = rng.integers(self.image_size - frame, size=extent.shape, endpoint=True)
        return np.tile(corner, 2) + tight * (frame / side)

    def refuses(self, boxes: NDArray) -> NDArray[np.bool_]:
        """Which objects ``[scene, object]`` lie otherwise than wanted, given those before them in their scene.

        Args:
            boxes: ``[scene, object, 4]``, NaN where there is none.
        """
        refused = np.zeros(boxes.shape[:2], bool)
        if self.overlap == "none":
            lower, upper = boxes[..., :2], boxes[..., 2:] + self.gap
            near = ((lower[:, :, None] < upper[:, None]) & (lower[:, None] < upper[:, :, None])).all(-1)
            refused |= np.tril(near, -1).any(2)
        if self.centre_distance != (0, math.inf):
            smallest, largest = self.centre_distance
            distance = nearest_distance(boxes)
            refused |= ((distance < smallest) | (distance > largest))[:, None]
        return refused

    def size_range(self, side: int) -> tuple[float, float]:
        """Smallest and largest side of a frame in pixels; where sizes are Gaussian, about 95 % lie between these."""
        if self.inverse_scale is None:
            return cast(tuple[float, float], self.object_size)
        mean, sd = self.inverse_scale
        whole = self.frame_size or side
        return whole / (mean + 2 * sd), min(self.image_size, whole / max(mean - 2 * sd, 1e-9))

    def __str__(self) -> str:
        """What was asked for, for error messages."""
        sizes = f"of {self.object_size} pixels" if self.inverse_scale is None else f"of scale 1/N{self.inverse_scale}"
        return f"{sizes}, overlap {self.overlap!r}, centre_distance {self.centre_distance}"


def arrangement_options() -> tuple[str, ...]:
    """The options of `Arrangement` that a difficulty may have."""
    return tuple(f.name for f in fields(Arrangement) if f.name not in ("image_size", "frame_size"))


def nearest_distance(boxes: NDArray) -> NDArray[np.float64]:
    """Distance in pixels between the centres of the two nearest boxes of each scene; NaN where there are no two.

    Args:
        boxes: ``[scene, object, 4]``, NaN where there is none.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    first, second = np.triu_indices(boxes.shape[1], 1)
    distance = np.linalg.norm(centres[:, first] - centres[:, second], axis=-1)
    return np.fmin.reduce(distance, axis=1, initial=np.nan)


def _check_pair(name: str, value: object, fits: Callable[[float, float], bool], wanted: str, where: str = "") -> None:
    """Checks that an option is two real numbers that fit.

    Raises:
        ValueError: It is not, or they do not.
    """
    try:
        numbers = tuple(cast(tuple, value))
        fit = len(numbers) == 2 and all(isinstance(n, Real) for n in numbers) and fits(*map(float, numbers))
    except (TypeError, OverflowError):
        fit = False
    if not fit:
        raise ValueError(f"{name} must be {wanted}, got {value}{where}")
