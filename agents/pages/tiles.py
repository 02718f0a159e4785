"""Pictures made of small images: scenes, reconstructions with windows, strips of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from air_env.explanation import DrawnExplanation
from air_env.frames import draw_windows

from .page import DPI, Picture

_GAP = 3
_LABELS, _TITLE = 140, 26
"""Room for the names of rows and for a title, in pixels."""
_WHITE = 255


def strip(images: Tensor, z: DrawnExplanation | None = None, scale: int = 2) -> Picture:
    """Images in a row, with their windows where there is an explanation.

    Args:
        images: ``[image, channel, side, side]`` in [0, 1].
        z: Explanations of them.
        scale: Pixels per pixel of the images.
    """
    side = images.shape[-1]
    boxes = np.empty((len(images), 0, 4)) if z is None else z.boxes(side).cpu().numpy()
    tiles = [draw_windows(image, box, scale) for image, box in zip(images.cpu().numpy(), boxes, strict=True)]
    return np.concatenate([np.pad(tile, ((0, 0), (0, _GAP), (0, 0)), constant_values=_WHITE) for tile in tiles], 1)


def stack(rows: Sequence[Picture]) -> Picture:
    """Strips of one width below each other."""
    return np.concatenate([np.pad(row, ((0, _GAP), (0, 0), (0, 0)), constant_values=_WHITE) for row in rows], 0)


def read_picture(path: Path, width: int) -> Picture:
    """The left part of a PNG that a run left.

    Args:
        path: The PNG.
        width: Largest width of the part in pixels.
    """
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))[:, :width]


def figure_of(pictures: Sequence[Picture], titles: Sequence[str], labels: Sequence[str]) -> Figure:
    """Pictures below each other, about pixel by pixel.

    Args:
        pictures: Of one width.
        titles: Of each.
        labels: Names of the rows of each, which are equally high.
    """
    width = pictures[0].shape[1] + _LABELS
    heights = [len(picture) + _TITLE for picture in pictures]
    figure = Figure(figsize=(width / DPI, sum(heights) / DPI), layout="constrained")
    places = figure.subplots(len(pictures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, picture, title in zip(places, pictures, titles, strict=True):
        axes.imshow(picture)
        axes.set_anchor("E")
        axes.set_title(title, fontsize=10, loc="left")
        height = len(picture) / len(labels)
        axes.set_xticks([])
        axes.set_yticks([(i + 0.5) * height for i in range(len(labels))], labels, fontsize=10)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure
