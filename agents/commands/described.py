"""What `air-env explain` prints and writes about pictures: numbers, a table, a sheet of pictures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from air_env.explanation import DrawnExplanation
from air_env.frames import scene_frame
from air_env.model import Images

from ..evaluation.photographs import Picture

_MAX_FRAMES_ABREAST = 3
_MAX_CAPTION = 26


class Described(TypedDict):
    """What explanations.json says of a file; lists have an entry for each object."""

    file: str
    size: list[int]
    inverted: bool
    count: int
    count_probability: float | None
    explained: float
    boxes: list[list[float]]
    z_where: list[list[float]]
    z_what: list[int] | list[list[float]]
    kinds: NotRequired[list[str]]
    z_scene: NotRequired[list[float]]


def to_file_pixels(boxes: NDArray[np.floating], picture: Picture, side: int) -> NDArray[np.floating]:
    """Boxes ``(x0, y0, x1, y1)`` in pixels of the agent's image, in pixels of the file.

    Args:
        boxes: ``[box, 4]``.
        picture: What was made of the file.
        side: Side of the agent's image.
    """
    x, y, square = picture.window
    return boxes * (square / side) + [x, y, x, y]


def describe(
    pictures: Sequence[Picture],
    z: DrawnExplanation,
    probabilities: torch.Tensor | None,
    explained: torch.Tensor,
    kinds: tuple[str, ...] = (),
) -> list[Described]:
    """Plain numbers about each file, for the objects that are there; policies know no probabilities of counts."""
    side = z.reconstruction.shape[-1]
    boxes = z.boxes(side).cpu().numpy()
    results: list[Described] = []
    for i, (picture, count) in enumerate(zip(pictures, z.count.tolist(), strict=True)):
        result: Described = {
            "file": str(picture.path),
            "size": list(picture.size),
            "inverted": picture.inverted,
            "count": count,
            "count_probability": None if probabilities is None else round(probabilities[i, count].item(), 6),
            "explained": round(explained[i].item(), 6),
            "boxes": to_file_pixels(boxes[i, :count], picture, side).round(2).tolist(),
            "z_where": z.z_where[i, :count].tolist(),
            "z_what": z.z_what[i, :count].tolist(),
        }
        if kinds:
            result["kinds"] = [kinds[k] for k in z.z_what[i, :count].tolist()]
        if z.z_scene.shape[1]:
            result["z_scene"] = z.z_scene[i].tolist()
        results.append(result)
    return results


def table(results: Sequence[Described]) -> str:
    """One line for each file."""
    width = max(len("file"), *(len(result["file"]) for result in results))
    lines = [f"{'file':{width}s}  count  probability  explained  boxes (x0, y0, x1, y1) in pixels of the file"]
    for result in results:
        boxes = "  ".join(
            f"{kind}({', '.join(f'{edge:.0f}' for edge in box)})"
            for kind, box in zip(result.get("kinds", [""] * result["count"]), result["boxes"], strict=True)
        )
        probability = result["count_probability"]
        shares = f"{'-' if probability is None else f'{probability:.3f}':>11s}  {result['explained']:9.3f}"
        lines.append(f"{result['file']:{width}s}  {result['count']:5d}  {shares}  {boxes}")
    return "\n".join(line.rstrip() for line in lines)


def contact_sheet(images: Images, z: DrawnExplanation, results: Sequence[Described]) -> Image.Image:
    """Each image with its boxes beside its reconstruction, several files abreast."""
    boxes = z.boxes(images.shape[-1]).cpu().numpy()
    frames = []
    for pixels, canvas, box, result in zip(images.numpy(), z.reconstruction.cpu().numpy(), boxes, results, strict=True):
        captions = Path(result["file"]).name[-_MAX_CAPTION:], f"count {result['count']}"
        frame = scene_frame(pixels, canvas, box, captions)
        frames.append(np.pad(frame, ((0, 8), (0, 16), (0, 0)), constant_values=255))
    columns = min(_MAX_FRAMES_ABREAST, math.ceil(math.sqrt(len(frames))))
    frames += [np.full_like(frames[0], 255)] * (-len(frames) % columns)
    rows = [np.concatenate(frames[i : i + columns], 1) for i in range(0, len(frames), columns)]
    return Image.fromarray(np.concatenate(rows, 0))
