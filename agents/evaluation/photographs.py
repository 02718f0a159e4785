"""People's own pictures, made into what agents take: square, small, on black.

Where a table is in its picture is found by trying: the agent explains many views, and the one is taken of which it
explains most.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import DrawnExplanation, Images
from air_env.findings import View
from air_env.scenes.picture_files import Crop, Pixels, colour_and_alpha, load_picture, to_array
from air_env.scenes.treatment import Treatment, Window, around, look_at

from ..inference.explainer import Explainer

Invert = Literal["auto", "yes", "no"]

_SCALES, _RIGHT, _DOWN = (1.0, 1.04, 1.08, 1.12, 1.16), (-0.06, -0.03, 0.0, 0.03, 0.06), (-0.09, -0.06, -0.03)
"""Sides of squares relative to how wide a table is in its picture, and their middles relative to its own."""
_COARSE, _BLACK = 100, 0.15
"""Side in pixels of a small picture, and the brightness above which something is seen in it."""


@dataclass(frozen=True)
class Picture(View):
    """A file, made into what an agent takes.

    Attributes:
        inverted: Whether it was dark on light.
        pixels: ``[channel, side, side]`` in [0, 1], bright on black.
    """

    inverted: bool
    pixels: Pixels


def read_picture(
    path: Path,
    side: int,
    invert: Invert = "auto",
    channels: int = 1,
    solid: bool = False,
    crop: Crop | None = None,
    agent: Explainer | None = None,
    treatment: Treatment | None = None,
) -> Picture:
    """Reads a file: turned upright, bright on black, padded to a square and scaled.

    Args:
        path: The file.
        side: Side in pixels that the agent wants.
        invert: Whether objects are dark on light; ``auto`` looks at the border.
        channels: 1 for grey, 3 for RGB.
        solid: Whether objects have colours and shades of their own, which must stay as they are.
        crop: The part to look at; by default all of it.
        agent: Looks for the table in the picture; by default that is all of it.
        treatment: How pictures were read in training, where it was on people's own: invert, channels and solid are
            then of no use.

    Raises:
        ValueError: The file is missing, damaged, too large or not a picture, or has no such part.
    """
    array = to_array(load_picture(path, crop) if treatment is None else path)
    height, width = array.shape[:2]
    left, top, right, bottom = crop or (0, 0, width, height)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"{path} is {width} pixels wide and {height} high, which does not hold the part {crop} (left, top, right, "
            "bottom); choose left < right and top < bottom within it"
        )
    size, part = (right - left, bottom - top), (slice(top, bottom), slice(left, right))
    if treatment is not None:
        # The background is that of the whole picture, as in training.
        pixels, inverted = treatment(array)[part], bool(treatment.invert)
        try:
            x, y, square = treatment.window(*size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    else:
        colour, alpha = colour_and_alpha(array[part], channels)
        pixels, inverted = (cut_out(colour, alpha), False) if solid else bright_on_black(colour, alpha, invert)
        x, y, square = around(*size) if agent is None else window_of_table(agent, pixels)
    view = look_at(pixels, (x, y, square), side)
    return Picture(path, (width, height), (x + left, y + top, square), inverted, view)


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
    grain = 4.5 * np.median(np.abs(border(pixels) - level), 0).max()
    different = np.abs(pixels - level).max(-1, keepdims=True) - grain
    # From 1 to 5 hundredths further, so that rims stay soft.
    return (pixels * np.clip((different - 0.01) / 0.04, 0, 1)).astype(np.float32)


def border(pixels: Pixels) -> Pixels:
    """The outermost pixels, in a row."""
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def window_of_table(agent: Explainer, pixels: Pixels) -> Window:
    """The square of a picture in which a table lies as in the agent's scenes.

    Of squares around what is not black, of several sizes and places, that of which the agent explains most.
    """
    height, width, _ = pixels.shape
    left, top, square = whole = around(width, height)
    # Single pixels that differ from the background are lost in the mean.
    rows, columns = (look_at(pixels, whole, _COARSE).max(0) > _BLACK).nonzero()
    if len(rows) == 0:
        return whole
    (x0, x1), (y0, y1) = (
        square / _COARSE * np.array([places.min(), places.max() + 1]) + start
        for places, start in ((columns, left), (rows, top))
    )
    windows = []
    for scale, right, down in product(_SCALES, _RIGHT, _DOWN):
        side = scale * max(x1 - x0, 1.0)
        x, y = (x0 + x1) / 2 + right * side, (y0 + y1) / 2 + down * side
        windows.append((round(x - side / 2), round(y - side / 2), max(1, round(side))))
    image_side = agent.model.image_shape[-1]
    images = torch.from_numpy(np.stack([look_at(pixels, window, image_side) for window in windows]))
    return windows[int(explained_shares(images, agent.explain(images)).argmax())]


def explained_shares(images: Images, z: DrawnExplanation) -> Float[Tensor, "batch"]:
    """``1 - |x - reconstruction|^2 / |x|^2``, at least 0: how much of images is explained."""
    missed = (images - z.reconstruction.cpu()).square().sum((1, 2, 3))
    # Nothing is missed of a black picture that is left black.
    there = images.square().sum((1, 2, 3)).clamp_min(torch.finfo(images.dtype).tiny)
    return (1 - missed / there).clamp_min(0)
