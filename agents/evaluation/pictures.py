"""Pictures of what an agent sees (Figure 3): small images in rows, with windows on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from air_env import geometry, pictured
from air_env.explanation import DrawnExplanation, Images
from air_env.frames import Frame


def scenes_beside_reconstructions(images: Images, explained: DrawnExplanation | Images) -> Frame:
    """Images above their reconstructions, with windows (red, green, blue, ...) on both where they are explained."""
    if isinstance(explained, DrawnExplanation):
        return explained.beside(images)
    return pictured.stack([strip(images, scale=pictured.SCALE), strip(explained, scale=pictured.SCALE)])


def strip(images: Tensor, z: DrawnExplanation | None = None, scale: int = 2) -> Frame:
    """Images in a row (`air_env.pictured.strip`), with their windows where there is an explanation."""
    windows = None if z is None else geometry.to_pixels(z.windows, images.shape[-1]).cpu()
    return pictured.strip(images.cpu(), windows, scale)


def curve(rows: Sequence[Mapping[str, float]], name: str, path: Path) -> None:
    """Writes a PNG of a metric of validation scenes, a share, over the course of training."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["iteration"] for row in rows], [row[name] for row in rows], marker=".")
    axes.set(xlabel="iteration", ylabel=f"validation {name.replace('_', ' ')}", ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, format="png")
