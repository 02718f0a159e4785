"""People's own pictures, made into what agents take: square, small, on black."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Invert = Literal["auto", "yes", "no"]
Pixels = NDArray[np.floating]
Crop = tuple[int, int, int, int]
"""Left, top, right and bottom border in pixels of a file."""

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A file, made into what an agent takes.

    Attributes:
        path: The file.
        size: Width and height in pixels of the part that is looked at, turned as its EXIF orientation says.
        corner: Left and upper border of that part in pixels of the file.
        inverted: Whether it was dark on light.
        pixels: ``[channel, side, side]`` in [0, 1], bright on black.
    """

    path: Path
    size: tuple[int, int]
    corner: tuple[int, int]
    inverted: bool
    pixels: Pixels


def read_pictures(
    paths: Sequence[Path],
    side: int,
    invert: Invert = "auto",
    channels: int = 1,
    solid: bool = False,
    crop: Crop | None = None,
) -> tuple[list[Picture], list[str]]:
    """Reads files, and says what is wrong with those that cannot be read."""
    pictures, complaints = [], []
    for path in paths:
        try:
            pictures.append(read_picture(path, side, invert, channels, solid, crop))
        except ValueError as error:
            complaints.append(str(error))
    return pictures, complaints


def read_picture(
    path: Path,
    side: int,
    invert: Invert = "auto",
    channels: int = 1,
    solid: bool = False,
    crop: Crop | None = None,
) -> Picture:
    """Reads a file: turned upright, bright on black, padded to a square and scaled.

    Args:
        path: The file.
        side: Side in pixels that the agent wants.
        invert: Whether objects are dark on light; ``auto`` looks at the border.
        channels: 1 for grey, 3 for RGB.
        solid: Whether objects have colours and shades of their own, which must stay as they are.
        crop: The part to look at; by default all of it.

    Raises:
        ValueError: The file is missing, damaged or not a picture, or has no such part.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            colour, alpha = colour_and_alpha(image if crop is None else image.crop(crop), channels)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; check its name") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read; save it as PNG or JPEG") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}); save or copy it again as PNG or JPEG") from error
    if crop is not None and not (0 <= crop[0] < crop[2] <= image.width and 0 <= crop[1] < crop[3] <= image.height):
        raise ValueError(
            f"{path} is {image.width} pixels wide and {image.height} high, which does not hold the part {crop} (left, "
            f"top, right, bottom)"
        )
    pixels, inverted = (cut_out(colour, alpha), False) if solid else bright_on_black(colour, alpha, invert)
    height, width, _ = pixels.shape
    return Picture(path, (width, height), (0, 0) if crop is None else crop[:2], inverted, fit(pixels, side))


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
    # The median does not mind what runs over the border; 4.5 times it is three standard deviations of Gaussian noise.
    grain = 4.5 * np.median(np.abs(border(pixels) - level).max(-1))
    different = np.abs(pixels - level).max(-1, keepdims=True) - grain
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
