"""Counts and locates the objects in a person's own pictures.

    python scripts/explain_images.py digits photo.png
    python scripts/explain_images.py runs/multi_mnist-half_critic-0 *.png --output-dir found

A picture becomes what the agent was trained on: grey, square, small, bright on black. Objects should be as large
in it as in the agent's scenes: a quarter to a half of its side, for the scenes of digits.
"""

import json
import math
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageOps

from agents import AIR, load_agent
from agents.checkpoints import write_atomically, write_text_atomically
from agents.devices import pick_device
from air_env.explanation import Explanation
from air_env.frames import scene_frame
from air_env.model import Images

Invert = Literal["auto", "yes", "no"]
Grey = NDArray[np.floating]

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_MAX_FRAMES_ABREAST = 3
_MAX_CAPTION = 26


@dataclass(frozen=True)
class Arguments:
    """Counts and locates the objects in pictures."""

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, an agent.safetensors file, or the name of a shipped agent (digits)."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """PNG or JPEG files (also GIF, BMP, WebP)."""
    output_dir: Path = Path("explanations")
    """Folder for explanations.png and explanations.json; replaces those of an earlier call."""
    invert: Invert = "auto"
    """Whether objects are dark on light; auto: where the border of the picture is light."""
    num_steps: int | None = None
    """Largest number of objects; default: the agent's."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""


@dataclass(frozen=True)
class Picture:
    """A file, made into what an agent takes.

    Attributes:
        path: The file.
        size: Its width and height in pixels, as it is shown (turned as its EXIF orientation says).
        inverted: Whether it was dark on light.
        pixels: ``[side, side]`` in [0, 1], bright on black.
    """

    path: Path
    size: tuple[int, int]
    inverted: bool
    pixels: Grey


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        complaints = explain_files(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if complaints:
        sys.exit("\n".join(f"error: {complaint}" for complaint in complaints))


def explain_files(arguments: Arguments) -> list[str]:
    """Explains the files, prints and writes the results; returns what is wrong with the other files."""
    if not arguments.images:
        raise ValueError("no pictures are named; name one or more PNG or JPEG files")
    if arguments.num_steps is not None and arguments.num_steps < 1:
        raise ValueError(f"--num-steps must be at least 1, got {arguments.num_steps}")
    agent = load_agent(arguments.agent, pick_device(arguments.device))
    pictures, complaints = read_pictures(arguments.images, agent.model.config.image_size, arguments.invert)
    if pictures:
        images = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))[:, None]
        z = agent.explain(images, arguments.num_steps)
        results = describe(pictures, z, count_probabilities(agent, images, z.z_pres.shape[1]))
        print(table(results))
        report, sheet = (arguments.output_dir / f"explanations.{kind}" for kind in ("json", "png"))
        write_text_atomically(report, json.dumps(results, indent=2) + "\n")
        write_atomically(sheet, lambda path: contact_sheet(images, z, results).save(path, "PNG"))
        print(f"\nwrote {sheet} and {report}")
    return complaints


def read_pictures(paths: Sequence[Path], side: int, invert: Invert = "auto") -> tuple[list[Picture], list[str]]:
    """Reads files, and says what is wrong with those that cannot be read."""
    pictures, complaints = [], []
    for path in paths:
        try:
            pictures.append(read_picture(path, side, invert))
        except ValueError as error:
            complaints.append(str(error))
    return pictures, complaints


def read_picture(path: Path, side: int, invert: Invert = "auto") -> Picture:
    """Reads a file: turned upright, grey, bright on black, padded to a square and scaled.

    Args:
        path: The file.
        side: Side in pixels that the agent wants.
        invert: Whether objects are dark on light; ``auto`` looks at the border.

    Raises:
        ValueError: The file is missing, damaged or not a picture.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            grey, alpha = grey_and_alpha(ImageOps.exif_transpose(file))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; check its name") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read; save it as PNG or JPEG") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}); save or copy it again as PNG or JPEG") from error
    pixels, inverted = bright_on_black(grey, alpha, invert)
    height, width = grey.shape
    return Picture(path, (width, height), inverted, fit(pixels, side))


def grey_and_alpha(image: Image.Image) -> tuple[Grey, Grey]:
    """Brightness and opacity ``[height, width]`` of a picture of any mode, in [0, 1]."""
    if image.mode.startswith("I"):
        # 16 bits, which Pillow would clip to 8.
        grey = np.asarray(image, np.float32) / 65535
        return grey, np.ones_like(grey)
    rgba = image.convert("RGBA")
    grey, alpha = (np.asarray(band, np.float32) / 255 for band in (rgba.convert("L"), rgba.getchannel("A")))
    return grey, alpha


def bright_on_black(grey: Grey, alpha: Grey, invert: Invert) -> tuple[Grey, bool]:
    """Objects bright, background black; and whether that inverted the picture.

    What is transparent shows a background opposite to what is opaque. The border shows what the background
    is: all that is no brighter becomes 0, so that grey and grainy paper is black too.
    """
    dark_on_light = invert == "yes"
    if invert == "auto":
        opaque = alpha > 0.5
        backdrop = float(opaque.any() and np.median(grey[opaque]) < 0.5)
        dark_on_light = bool(np.median(border(alpha * grey + (1 - alpha) * backdrop)) > 0.5)
    pixels = alpha * (1 - grey if dark_on_light else grey)
    level = np.median(border(pixels))
    grain = np.median(np.abs(border(pixels) - level))
    # 4.5 median deviations are three standard deviations of Gaussian noise.
    background = min(float(level + 4.5 * grain), 0.5)
    return np.clip((pixels - background) / (1 - background), 0, 1).astype(np.float32), dark_on_light


def border(pixels: Grey) -> Grey:
    """The outermost pixels, in a row."""
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def fit(pixels: Grey, side: int) -> Grey:
    """Centres a picture in a black square, and scales that with antialiasing."""
    height, width = pixels.shape
    square = max(height, width)
    left, top = offset((width, height))
    padded = np.pad(pixels, ((top, square - height - top), (left, square - width - left)))
    scaled = Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(scaled).clip(0, 1)


def offset(size: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of padding before a picture of this width and height in its square."""
    width, height = size
    return max(height - width, 0) // 2, max(width - height, 0) // 2


def to_file_pixels(boxes: NDArray[np.floating], size: tuple[int, int], side: int) -> NDArray[np.floating]:
    """Boxes ``(x0, y0, x1, y1)`` in pixels of the agent's image, in pixels of the file.

    Args:
        boxes: ``[box, 4]``.
        size: Width and height of the file.
        side: Side of the agent's image.
    """
    return boxes * (max(size) / side) - np.tile(offset(size), 2)


@torch.no_grad()
def count_probabilities(agent: AIR, images: Images, num_steps: int) -> torch.Tensor:
    """``q(n | x) [batch, num_steps + 1]`` along the posterior means, which `AIR.explain` follows."""
    images = images.to(agent.model.log_p_count)
    state, logits = agent.initial(images), []
    for _ in range(num_steps):
        state, logit, where = agent.decide(state)
        state = agent.remember(state, where.mean, agent.describe(images, where.mean).mean)
        logits.append(logit)
    presence = torch.stack(logits, 1)
    log_q = F.pad(F.logsigmoid(presence).cumsum(1), (1, 0)) + F.pad(F.logsigmoid(-presence), (0, 1))
    return log_q.exp()


def describe(pictures: Sequence[Picture], z: Explanation, probabilities: torch.Tensor) -> list[dict[str, Any]]:
    """What is written about each file: plain numbers, for the objects that are there."""
    assert z.reconstruction is not None
    side = z.reconstruction.shape[-1]
    boxes = z.boxes(side).cpu().numpy()
    results = []
    for i, (picture, count) in enumerate(zip(pictures, z.count.tolist(), strict=True)):
        results.append(
            {
                "file": str(picture.path),
                "size": list(picture.size),
                "inverted": picture.inverted,
                "count": count,
                "count_probability": round(probabilities[i, count].item(), 6),
                "boxes": to_file_pixels(boxes[i, :count], picture.size, side).round(2).tolist(),
                "z_where": z.z_where[i, :count].tolist(),
                "z_what": z.z_what[i, :count].tolist(),
            }
        )
    return results


def table(results: Sequence[dict[str, Any]]) -> str:
    """One line for each file."""
    width = max(len("file"), *(len(result["file"]) for result in results))
    lines = [f"{'file':{width}s}  count  probability  boxes (x0, y0, x1, y1) in pixels of the file"]
    for result in results:
        boxes = "  ".join(f"({', '.join(f'{edge:.0f}' for edge in box)})" for box in result["boxes"])
        lines.append(f"{result['file']:{width}s}  {result['count']:5d}  {result['count_probability']:11.3f}  {boxes}")
    return "\n".join(line.rstrip() for line in lines)


def contact_sheet(images: Images, z: Explanation, results: Sequence[dict[str, Any]]) -> Image.Image:
    """Each image with its windows beside its reconstruction, several files abreast."""
    assert z.reconstruction is not None
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


if __name__ == "__main__":
    main()
