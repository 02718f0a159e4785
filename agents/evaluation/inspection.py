"""A look at people's own pictures before training: background, noise, likely size and number of objects.

Objects are what a classical pipeline of scikit-image finds in the treated pictures (`air_env.scenes.treatment`): above
half of Otsu's threshold and five standard deviations of noise, with holes filled, and taken apart by the watershed of
the distance to their border. It need not be right about every one: medians and percentiles of all are what counts.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from air_env.scenes import ImageScene, Treatment
from air_env.scenes.picture_files import colour_and_alpha, find_pictures, to_array
from air_env.scenes.treatment import Pixels, fit_background

_MOST_LOOKED_AT = 100
"""Pictures that are looked at in detail, spread over all of training (our choice)."""
_SMALLEST, _SMALL = 3.0, 5.0
"""Sides in pixels below which nothing is taken for an object, and below which an object is too small for an agent."""
_MOST_COVERED, _CLEAR, _ALIKE = 0.5, 5.0, 3.0
"""Share of the pixels that objects may have, contrast that they need, and how many times their sizes may differ."""
_SCRAP = 0.1
"""Of the area of most objects, what is smaller is none."""
_BRIGHTER = 75.0
"""The percentile of its pixels' brightness that is taken for an object's."""
_BLURRED = 1.0
"""Standard deviation in pixels of the blur before the threshold."""


@dataclass(frozen=True)
class Found:
    """What was found in a picture.

    Attributes:
        name: File, or number in the stack.
        pixels: ``[height, width, channel]``, treated.
        boxes: ``[object, 4]``, ``(x0, y0, x1, y1)`` in pixels of the file.
        noise: Standard deviation of a pixel, where the file's own white is 1.
        gradient: How far its background goes from its darkest to its lightest place.
        background: Median of the background.
        covered: Share of the pixels that are taken for objects'.
    """

    name: str
    pixels: Pixels
    boxes: NDArray[np.float64]
    noise: float
    gradient: float
    background: float
    covered: float


@dataclass(frozen=True)
class Inspection:
    """What is to be said of a folder of pictures; lengths are in pixels of the files.

    Attributes:
        num_pictures: Number of pictures.
        num_different: Number of those that differ.
        sizes: Widths and heights, the most frequent first.
        modes: Their types and numbers of channels, likewise.
        treatment: How whole pictures are read.
        found: What was found in each picture that was looked at.
        object_size: Smallest, median and largest longer side of an object: the 10th, 50th and 90th percentile.
    """

    num_pictures: int
    num_different: int
    sizes: tuple[tuple[int, int], ...]
    modes: tuple[str, ...]
    treatment: Treatment
    found: tuple[Found, ...]
    object_size: tuple[float, float, float] | None

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of objects of each picture that was looked at."""
        return np.array([len(found.boxes) for found in self.found])

    @property
    def contrast(self) -> float:
        """Brightness of objects above the background, in standard deviations of noise."""
        black, white = self.treatment.levels or (0.0, 1.0)
        noise = float(np.median([found.noise for found in self.found]))
        return (white - black) / max(noise, 1e-6)

    def objections(self) -> list[str]:
        """What will not work, or may not."""
        if self.object_size is None:
            return ["no objects stand out from the background: pictures without objects, or objects like a texture"]
        low, middle, high = self.object_size
        covered = float(np.median([found.covered for found in self.found]))
        kinds, size_count = ", ".join(self.modes), len(self.sizes)
        colours = "grey" if self.treatment.channels == 1 else "RGB"
        told = {
            f"objects of {middle:.1f} pixels are too small, {_SMALL:g} are needed: enlarge the pictures": middle
            < _SMALL,
            f"{covered:.0%} of the pixels are taken for objects, as in a texture or before a background that is not "
            "smooth: cut the pictures to where objects lie apart": covered > _MOST_COVERED,
            f"objects are {self.contrast:.1f} standard deviations of noise above the background, {_CLEAR:g} are "
            "needed: take brighter or longer exposures": self.contrast < _CLEAR,
            f"sizes differ {high / low:.1f} times: one prior of windows may not fit all": high > _ALIKE * low,
            f"pictures are of {size_count} sizes: whole ones are scaled each by its own factor, squares cut from them "
            "all alike (--scene-options.crop)": size_count > 1,
            f"pictures are of several kinds ({kinds}): all are read as {colours}, each by the white of its type": len(
                self.modes
            )
            > 1,
            f"{self.num_different} of {self.num_pictures} pictures differ: equal ones count as one": self.num_different
            < self.num_pictures,
            "fewer than three pictures differ: each is cut into bands for training, validation and "
            "test": self.num_different < 3,
        }
        return [text for text, holds in told.items() if holds]


def inspect_pictures(
    source: Any,
    *,
    channels: int = 1,
    invert: bool | None = None,
    object_size: tuple[float, float] | None = None,
) -> Inspection:
    """Looks at pictures.

    Args:
        source: Folder, file, array or sequence of pictures (`air_env.scenes.picture_files.find_pictures`).
        channels: 1 to read them as grey, 3 as RGB.
        invert: Whether objects are dark; None looks.
        object_size: Smallest and largest longer side of an object in pixels, where they are known.

    Raises:
        ValueError: There are no pictures, some cannot be read, or there is nothing to see in them.
    """
    pictures = find_pictures(source)
    complaints, sizes, modes = [], Counter(), Counter()
    for picture in pictures:
        try:
            array = to_array(picture)
        except ValueError as error:
            complaints.append(str(error))
            continue
        sizes[array.shape[1], array.shape[0]] += 1
        modes[f"{array.dtype} {('grey', 'grey and alpha', 'RGB', 'RGBA')[(*array.shape, 1)[2] - 1]}"] += 1
    if complaints:
        raise ValueError("; ".join(complaints[:5]) + f"; and {len(complaints) - 5} more" * (len(complaints) > 5))
    # With held_out=False, one picture is enough to look at.
    scene = ImageScene(source, Treatment(channels=channels, invert=invert), held_out=False)
    different = scene.parts("train")[0]
    some = np.unique(np.linspace(0, len(different) - 1, _MOST_LOOKED_AT).astype(int))
    found = _find_all([(_name(pictures[different[i]], different[i]), pictures[different[i]]) for i in some], scene)
    boxes = np.concatenate([each.boxes for each in found])
    if object_size is not None:
        low, high = object_size
        if not 0 < low <= high:
            raise ValueError(f"object_size must be two lengths above 0, the smaller first, got {object_size}")
        size = (float(low), math.sqrt(low * high), float(high))
    else:
        sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
        size = tuple(np.percentile(sides, (10, 50, 90)).tolist()) if len(sides) else None
    order = (tuple(name for name, _ in counter.most_common()) for counter in (sizes, modes))
    return Inspection(len(pictures), len(different), *order, scene.treatment, tuple(found), size)  # pyright: ignore


def _name(picture: object, number: int) -> str:
    return str(picture) if hasattr(picture, "__fspath__") else f"picture {number}"


def _find_all(pictures: Sequence[tuple[str, Any]], scene: ImageScene) -> list[Found]:
    from skimage.filters import gaussian, threshold_otsu

    treatment = scene.treatment
    black, white = treatment.levels or (0.0, 1.0)
    seen = [(name, picture, treatment(picture)) for name, picture in pictures]
    blurred = [gaussian(pixels.max(-1), _BLURRED) for _, _, pixels in seen]
    few = np.concatenate([image[::2, ::2].ravel() for image in blurred])
    otsu = float(threshold_otsu(few)) if few.min() < few.max() else 1.0
    results = []
    for (name, picture, pixels), image in zip(seen, blurred, strict=True):
        colour, _ = colour_and_alpha(to_array(picture), treatment.channels)
        smooth, noise = fit_background(1 - colour if treatment.invert else colour)
        level = 1 - np.median(smooth) if treatment.invert else np.median(smooth)
        # Blurring averages noise over 4 pi sigma^2 pixels.
        grain = noise / (white - black) / math.sqrt(4 * math.pi * _BLURRED**2)
        bright = np.asarray(ndimage.binary_fill_holes(image > max(otsu / 2, 5 * grain)), bool)
        boxes = boxes_of(bright, pixels.max(-1))
        results.append(Found(name, pixels, boxes, noise, float(np.ptp(smooth)), float(level), float(bright.mean())))
    return results


def boxes_of(bright: NDArray[np.bool_], image: NDArray) -> NDArray[np.float64]:
    """Boxes ``[object, 4]`` of what is bright in an image; what touches is taken apart where it is thin.

    An object ends where it is half as bright as its brighter pixels.
    """
    from skimage.feature import peak_local_max
    from skimage.measure import label, regionprops
    from skimage.segmentation import watershed

    depth = np.asarray(ndimage.distance_transform_edt(np.pad(bright, 1)))[1:-1, 1:-1]
    whole = regionprops(label(bright))
    if not whole:
        return np.empty((0, 4))
    areas = np.array([region.num_pixels for region in whole])
    # Of the object that the median bright pixel belongs to; joined ones are larger, so half is enough to part them.
    area = float(np.median(np.repeat(areas, areas)))
    apart = max(1, round(0.5 * math.sqrt(area / math.pi)))
    # Wiggles of the border make peaks of their own, which the blur removes.
    peaks = peak_local_max(ndimage.gaussian_filter(depth, apart / 2), min_distance=apart, labels=label(bright))
    markers = np.zeros(bright.shape, int)
    markers[tuple(peaks.T)] = np.arange(len(peaks)) + 1
    parts = regionprops(watershed(-depth, markers, mask=bright), image)
    boxes = np.array([_box(part) for part in parts if part.num_pixels >= _SCRAP * area]).reshape(-1, 4)
    return boxes[(boxes[:, 2:] - boxes[:, :2]).max(1) >= _SMALLEST]


def _box(part: Any) -> list[float]:
    light = part.image_intensity
    rows, columns = (light > np.percentile(light[part.image], _BRIGHTER) / 2).nonzero()
    top, left = part.bbox[:2]
    return [left + columns.min(), top + rows.min(), left + columns.max() + 1.0, top + rows.max() + 1.0]
