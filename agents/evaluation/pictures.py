"""Pictures of what an agent sees (Figure 3): small images in rows, with windows on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from air_env.explanation import DrawnExplanation, Images
from air_env.frames import Frame, draw_windows

SCALE = 3
"""Pixels per pixel of the images beside their reconstructions."""
GAP = 4
"""White pixels between images."""


def scenes_beside_reconstructions(images: Images, explained: DrawnExplanation | Images) -> Frame:
    """Images above their reconstructions, with windows (red, green, blue, ...) on both where they are explained."""
    z = explained if isinstance(explained, DrawnExplanation) else None
    reconstructions = explained.reconstruction if isinstance(explained, DrawnExplanation) else explained
    return stack([strip(images, z, SCALE), strip(reconstructions, z, SCALE)])


def strip(images: Tensor, z: DrawnExplanation | None = None, scale: int = 2) -> Frame:
    """Images in a row, with their windows where there is an explanation.

    Args:
        images: ``[image, channel, side, side]``, of which [0, 1] is shown.
        z: Explanations of them.
        scale: Pixels per pixel of the images.
    """
    boxes = np.empty((len(images), 0, 4)) if z is None else z.boxes(images.shape[-1]).cpu().numpy()
    tiles = [draw_windows(image, box, scale) for image, box in zip(images.cpu().numpy(), boxes, strict=True)]
    return np.concatenate([np.pad(tile, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for tile in tiles], 1)


def stack(rows: Sequence[Frame]) -> Frame:
    """Strips of one width below each other."""
    return np.concatenate([np.pad(row, ((0, GAP), (0, 0), (0, 0)), constant_values=255) for row in rows], 0)


def count_accuracy_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes a PNG of the held-out count accuracy over the course of training."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["iteration"] for row in rows], [row["count_accuracy"] for row in rows], marker=".")
    axes.set(xlabel="iteration", ylabel="held-out count accuracy", ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, format="png")
