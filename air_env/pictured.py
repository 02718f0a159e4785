"""Pictures of several images, and what draws itself in notebooks."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from air_env.frames import Frame, draw_windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 8
"""Images that a notebook shows, of more."""
SCALE = 3
"""Pixels per pixel of the images."""
GAP = 4
"""White pixels between images."""


def strip(images: ArrayLike, boxes: ArrayLike | None = None, scale: int = SCALE) -> Frame:
    """Images in a row, with windows on them.

    Args:
        images: ``[image, channel, side, side]``, of which [0, 1] is shown.
        boxes: ``[image, box, 4]``, as `draw_windows` takes them; None draws no windows.
        scale: Pixels per pixel of the images.
    """
    images = np.asarray(images)
    boxes = np.empty((len(images), 0, 4)) if boxes is None else np.asarray(boxes)
    tiles = [draw_windows(image, own, scale) for image, own in zip(images, boxes, strict=True)]
    return np.concatenate([np.pad(tile, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for tile in tiles], 1)


def stack(rows: Sequence[Frame]) -> Frame:
    """Strips of one width below each other."""
    return np.concatenate([np.pad(row, ((0, GAP), (0, 0), (0, 0)), constant_values=255) for row in rows], 0)


class Pictured:
    """What notebooks show as a picture."""

    def picture(self) -> Frame:
        """What it looks like."""
        raise NotImplementedError

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draws the picture on axes of matplotlib, by default the current ones."""
        if axes is None:
            # It is slow to import.
            import matplotlib.pyplot as plt

            axes = plt.gca()
        axes.imshow(self.picture())
        axes.set_axis_off()
        return axes

    def _repr_png_(self) -> bytes | None:
        file = BytesIO()
        Image.fromarray(self.picture()).save(file, "PNG")
        return file.getvalue()
