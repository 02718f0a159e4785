"""Counts and locates the objects in a person's own pictures.

    python scripts/explain_images.py digits photo.png
    python scripts/explain_images.py runs/multi_mnist-half_critic-0 *.png --output-dir found

A picture becomes what the agent was trained on: grey or RGB, square, small, bright on black. Objects should be as
large in it as in the agent's scenes: a quarter to a half of its side, for the scenes of digits. The shipped digits
agent was trained on 0 to 2 digits. For agents of three-dimensional objects, colours stay as they are, and what looks
like the border of the picture becomes black.

An agent is sure of its count even where it understands little. The share of a picture that it explains,
1 - |x - reconstruction|^2 / |x|^2, says whether to believe it: of most scenes it was trained on, more than 0.9.
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

from agents import Agent, load_agent
from agents.checkpoints import write_atomically, write_text_atomically
from agents.devices import pick_device
from air_env.explanation import Explanation
from air_env.frames import scene_frame
from air_env.model import Images
from air_env.renderers import SolidRenderer

Invert = Literal["auto", "yes", "no"]
Pixels = NDArray[np.floating]

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_MAX_FRAMES_ABREAST = 3
_MAX_CAPTION = 26
_DOUBTFUL = 0.8
"""Explained share below which a count is not to be trusted: that of 1 in 100 scenes of two digits."""


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
        pixels: ``[channel, side, side]`` in [0, 1], bright on black.
    """

    path: Path
    size: tuple[int, int]
    inverted: bool
    pixels: Pixels


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
    channels, side, _ = agent.model.image_shape
    solid = isinstance(agent.model.renderer, SolidRenderer)
    pictures, complaints = read_pictures(arguments.images, side, arguments.invert, channels, solid)
    if pictures:
        images = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        z = agent.explain(images, arguments.num_steps)
        probabilities = count_probabilities(agent, images, z.z_pres.shape[1])
        results = describe(pictures, z, probabilities, explained_shares(images, z))
        print(table(results))
        if doubtful := [result["file"] for result in results if result["explained"] < _DOUBTFUL]:
            print(
                f"\nwarning: less than {_DOUBTFUL} of {', '.join(doubtful)} is explained: do not trust the count, "
                "however probable. Make the picture more like the agent's scenes: crop it to the objects, resize "
                "them, or thicken their strokes",
                file=sys.stderr,
            )
        report, sheet = (arguments.output_dir / f"explanations.{kind}" for kind in ("json", "png"))
        write_text_atomically(report, json.dumps(results, indent=2) + "\n")
        write_atomically(sheet, lambda path: contact_sheet(images, z, results).save(path, "PNG"))
        print(f"\nwrote {sheet} and {report}")
    return complaints


def read_pictures(
    paths: Sequence[Path], side: int, invert: Invert = "auto", channels: int = 1, solid: bool = False
) -> tuple[list[Picture], list[str]]:
    """Reads files, and says what is wrong with those that cannot be read."""
    pictures, complaints = [], []
    for path in paths:
        try:
            pictures.append(read_picture(path, side, invert, channels, solid))
        except ValueError as error:
            complaints.append(str(error))
    return pictures, complaints


def read_picture(path: Path, side: int, invert: Invert = "auto", channels: int = 1, solid: bool = False) -> Picture:
    """Reads a file: turned upright, bright on black, padded to a square and scaled.

    Args:
        path: The file.
        side: Side in pixels that the agent wants.
        invert: Whether objects are dark on light; ``auto`` looks at the border.
        channels: 1 for grey, 3 for RGB.
        solid: Whether objects have colours and shades of their own, which must stay as they are.

    Raises:
        ValueError: The file is missing, damaged or not a picture.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            colour, alpha = colour_and_alpha(ImageOps.exif_transpose(file), channels)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; check its name") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read; save it as PNG or JPEG") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}); save or copy it again as PNG or JPEG") from error
    pixels, inverted = (cut_out(colour, alpha), False) if solid else bright_on_black(colour, alpha, invert)
    height, width, _ = pixels.shape
    return Picture(path, (width, height), inverted, fit(pixels, side))


def colour_and_alpha(image: Image.Image, channels: int) -> tuple[Pixels, Pixels]:
    """Grey or RGB ``[height, width, channel]`` and opacity ``[height, width, 1]`` of any picture, in [0, 1]."""
    if image.mode.startswith("I"):
        # 16 bits, which Pillow would clip to 8.
        grey = np.asarray(image, np.float32)[..., None] / 65535
        return grey.repeat(channels, -1), np.ones_like(grey)
    rgba = image.convert("RGBA")
    bands = rgba.convert("L" if channels == 1 else "RGB"), rgba.getchannel("A")
    colour, alpha = (np.atleast_3d(np.asarray(band, np.float32)) / 255 for band in bands)
    return colour, alpha


def bright_on_black(colour: Pixels, alpha: Pixels, invert: Invert) -> tuple[Pixels, bool]:
    """Objects bright, background black; and whether that inverted the picture, which keeps its hues.

    What is transparent shows a background opposite to what is opaque. The border shows what the background
    is: all that is no brighter becomes 0, so that grey and grainy paper is black too.
    """
    brightness = (colour.max(-1, keepdims=True) + colour.min(-1, keepdims=True)) / 2
    dark_on_light = invert == "yes"
    if invert == "auto":
        opaque = alpha > 0.5
        backdrop = float(opaque.any() and np.median(brightness[opaque]) < 0.5)
        dark_on_light = bool(np.median(border(alpha * brightness + (1 - alpha) * backdrop)) > 0.5)
    pixels = alpha * (colour + (1 - 2 * brightness) if dark_on_light else colour)
    level = np.median(border(pixels), 0)
    grain = np.median(np.abs(border(pixels) - level), 0)
    # 4.5 median deviations are three standard deviations of Gaussian noise.
    background = np.minimum(level + 4.5 * grain, 0.5)
    return np.clip((pixels - background) / (1 - background), 0, 1).astype(np.float32), dark_on_light


def cut_out(colour: Pixels, alpha: Pixels) -> Pixels:
    """What differs in colour from the border of the picture, on black."""
    pixels = alpha * colour
    level = np.median(border(pixels), 0)
    grain = np.abs(border(pixels) - level).max(-1)
    different = np.abs(pixels - level).max(-1, keepdims=True) - np.quantile(grain, 0.95)
    # From 1 to 5 hundredths further, so that rims stay soft.
    return (pixels * np.clip((different - 0.01) / 0.04, 0, 1)).astype(np.float32)


def border(pixels: Pixels) -> Pixels:
    """The outermost pixels, in a row."""
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def fit(pixels: Pixels, side: int) -> Pixels:
    """Centres a picture in a black square, and scales that with antialiasing: ``[channel, side, side]``."""
    height, width, _ = pixels.shape
    square = max(height, width)
    left, top = offset((width, height))
    padded = np.pad(pixels, ((top, square - height - top), (left, square - width - left), (0, 0)))
    bands = (Image.fromarray(band) for band in np.moveaxis(padded, -1, 0))
    scaled = [np.asarray(band.resize((side, side), Image.Resampling.BICUBIC)) for band in bands]
    return np.stack(scaled).clip(0, 1)


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
def count_probabilities(agent: Agent, images: Images, num_steps: int) -> torch.Tensor:
    """``q(n | x) [batch, num_steps + 1]`` along the posterior modes, which `Agent.explain` follows."""
    presence, _, _ = agent.follow_modes(images.to(agent.model.log_p_count), num_steps)
    log_q = F.pad(F.logsigmoid(presence).cumsum(1), (1, 0)) + F.pad(F.logsigmoid(-presence), (0, 1))
    return log_q.exp()


def explained_shares(images: Images, z: Explanation) -> torch.Tensor:
    """``1 - |x - reconstruction|^2 / |x|^2 [batch]``, at least 0."""
    assert z.reconstruction is not None
    missed = (images - z.reconstruction.cpu()).square().sum((1, 2, 3))
    # Nothing is missed of a black picture that is left black.
    there = images.square().sum((1, 2, 3)).clamp_min(torch.finfo(images.dtype).tiny)
    return (1 - missed / there).clamp_min(0)


def describe(
    pictures: Sequence[Picture], z: Explanation, probabilities: torch.Tensor, explained: torch.Tensor
) -> list[dict[str, Any]]:
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
                "explained": round(explained[i].item(), 6),
                "boxes": to_file_pixels(boxes[i, :count], picture.size, side).round(2).tolist(),
                "z_where": z.z_where[i, :count].tolist(),
                "z_what": z.z_what[i, :count].tolist(),
            }
        )
    return results


def table(results: Sequence[dict[str, Any]]) -> str:
    """One line for each file."""
    width = max(len("file"), *(len(result["file"]) for result in results))
    lines = [f"{'file':{width}s}  count  probability  explained  boxes (x0, y0, x1, y1) in pixels of the file"]
    for result in results:
        boxes = "  ".join(f"({', '.join(f'{edge:.0f}' for edge in box)})" for box in result["boxes"])
        shares = f"{result['count_probability']:11.3f}  {result['explained']:9.3f}"
        lines.append(f"{result['file']:{width}s}  {result['count']:5d}  {shares}  {boxes}")
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
