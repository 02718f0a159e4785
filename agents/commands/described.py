"""What `air-env explain` prints and writes about pictures: numbers, a table, a sheet of pictures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from air_env.explanation import DrawnExplanation
from air_env.findings import to_coco
from air_env.frames import COLOURS, scene_frame
from air_env.model import Images
from air_env.scenes.picture_files import colour_and_alpha, to_array

from ..evaluation.photographs import Picture
from ..training.files import write_atomically, write_text_atomically

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
            "boxes": picture.to_file(boxes[i, :count], side).round(2).tolist(),
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


def annotated(picture: Picture, boxes: ArrayLike) -> Image.Image:
    """The file with boxes ``[box, 4]``, in its pixels, drawn on it, in the colours of windows (`COLOURS`)."""
    colour, _ = colour_and_alpha(to_array(picture.path), 3)
    # Files of 12 bits in 16, or of any numbers, are shown from their darkest to their lightest pixel.
    low, high = (0.0, 1.0) if 0.25 < colour.max() <= 1 else (float(colour.min()), float(colour.max()))
    shown = Image.fromarray((255 * ((colour - low) / max(high - low, 1e-9)).clip(0, 1)).round().astype(np.uint8))
    draw, width = ImageDraw.Draw(shown), max(1, round(max(shown.size) / 300))
    for k, (x0, y0, x1, y1) in enumerate(np.asarray(boxes).reshape(-1, 4).round().astype(int)):
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=COLOURS[k % len(COLOURS)], width=width)
    return shown


def write(
    folder: Path,
    pictures: Sequence[Picture],
    images: Images,
    z: DrawnExplanation,
    results: Sequence[Described],
    kinds: tuple[str, ...] = (),
) -> list[Path]:
    """Writes what was found, in all forms; returns the paths."""
    counts = pd.DataFrame(results)[["file", "count", "count_probability", "explained"]]
    # Policies know no probabilities.
    known = counts.drop(columns=["file", "count"]).dropna(axis=1)
    objects = z.to_frame(pictures, {str(name): known[name].to_numpy() for name in known})
    texts = {
        "explanations.json": json.dumps(results, indent=2) + "\n",
        "counts.csv": counts.to_csv(index=False),
        "objects.csv": objects.rename(columns={"path": "file"}).drop(columns="image").to_csv(index=False),
        "coco.json": json.dumps(to_coco(objects, pictures, kinds)) + "\n",
    }
    for name, text in texts.items():
        write_text_atomically(folder / name, text)
    sheets = {"explanations.png": contact_sheet(images, z, results)}
    for i, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        # Files of several folders may have one name.
        name = f"{picture.path.stem}{f'_{i}' if [p.path.stem for p in pictures].count(picture.path.stem) > 1 else ''}"
        sheets[f"annotated/{name}.png"] = annotated(picture, result["boxes"])
    for name, sheet in sheets.items():
        write_atomically(folder / name, lambda path, sheet=sheet: sheet.save(path, "PNG"))
    return [folder / name for name in ("explanations.png", *texts, "annotated")]
