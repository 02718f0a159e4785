"""Pictures of what an agent sees (Figure 3)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from air_env.explanation import DrawnExplanation, Images
from air_env.frames import draw_windows

_SCALE, _GAP = 3, 4


def scenes_beside_reconstructions(images: Images, z: DrawnExplanation, path: Path) -> None:
    """Writes a PNG: images with their windows (red, green, blue, ...) above, reconstructions below."""
    boxes = z.boxes(images.shape[-1]).cpu().numpy()
    rows = []
    for pictures in (images.cpu().numpy(), z.reconstruction.clamp(0, 1).cpu().numpy()):
        tiles = [
            np.pad(draw_windows(picture, box, _SCALE), ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
            for picture, box in zip(pictures, boxes, strict=True)
        ]
        rows.append(np.concatenate(tiles, 1))
    Image.fromarray(np.concatenate(rows, 0)).save(path, "PNG")


def count_accuracy_curve(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Writes a PNG of the held-out count accuracy over the course of training."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["iteration"] for row in rows], [row["count_accuracy"] for row in rows], marker=".")
    axes.set(xlabel="iteration", ylabel="held-out count accuracy", ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, format="png")
