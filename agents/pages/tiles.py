"""Figures made of pictures that are made of small images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from air_env.frames import Frame
from air_env.pictured import stack

from .page import DPI

_LABELS, _TITLE = 140, 26
"""Room for the names of rows and for a title, in pixels."""


def read_picture(path: Path, width: int) -> Frame:
    """The left part of a PNG that a run left.

    Args:
        path: The PNG.
        width: Largest width of the part in pixels.
    """
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))[:, :width]


def sheet(rows: Mapping[str, Frame]) -> Figure:
    """Pictures of one size below each other, with their names."""
    return figure_of([stack(list(rows.values()))], [""], list(rows))


def figure_of(pictures: Sequence[Frame], titles: Sequence[str], labels: Sequence[str]) -> Figure:
    """Frames below each other, about pixel by pixel.

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
