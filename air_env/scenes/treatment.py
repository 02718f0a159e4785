"""How people's own pictures become what an agent takes: a statement in numbers, kept with the agent.

light      = pixel, or 1 - pixel where objects are dark; transparent pixels show no object
background = a parabola in x and y through what is no object, for each picture; subtracted where asked for
scene      = (light - background - black) / (white - black), of which [0, 1] is kept; a square, scaled
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from air_env.reading import is_between, keep_whole, read_whole
from air_env.scenes.picture_files import MOST_PIXELS_A_SIDE, Pixels, colour_and_alpha, to_array

Window = tuple[int, int, int]
"""Left and upper border, and side, of a square; it may reach beyond the picture."""
Background = Literal["subtract", "keep"]

_FITS, _SAMPLE = 20, 32
"""Of the background: the most fits, and the pixels of a side that it is fitted to."""
_CLIP, _SEEN = 2.0, 5.0
"""Standard deviations of noise above which a pixel is left out of the fit, and is taken for an object's."""
_WHITE = 95.0
"""The percentage of the objects' pixels that are to be no brighter than white."""
_DARKER = 1.5
"""How much more there must be darker than the background than there is brighter, for objects to be dark."""


@dataclass(frozen=True)
class Treatment:
    """How pictures are read."""

    image_size: int = 50
    """Side of the square image in pixels."""
    channels: int = 1
    """1 for grey, 3 for RGB."""
    crop: int | None = None
    """Side of the squares that are cut out of the pictures, in pixels of the file; None takes whole pictures, which
    black borders make square."""
    invert: bool | None = None
    """Whether objects are darker than what is around them; None is what most training pictures show."""
    background: Background = "subtract"
    """subtract takes a smooth background off each picture, keep does not."""
    levels: tuple[float, float] | None = None
    """What becomes black and white, where the file's own black is 0 and white is 1; None is what the training pictures
    say."""

    def __post_init__(self) -> None:
        keep_whole(self, 4, "image_size", most=4_096)
        if self.crop is not None:
            object.__setattr__(self, "crop", read_whole("crop", self.crop, 4, MOST_PIXELS_A_SIDE))
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels!r}")
        if self.background not in get_args(Background):
            raise ValueError(f"background must be {' or '.join(get_args(Background))}, got {self.background!r}")
        if self.levels is not None:
            levels = tuple(self.levels)
            if len(levels) != 2 or not all(is_between(v, -np.inf, np.inf) for v in levels) or levels[0] >= levels[1]:
                raise ValueError(f"levels must be two numbers, black below white, got {self.levels!r}")
            object.__setattr__(self, "levels", tuple(map(float, levels)))

    def fitted(self, pictures: Sequence[object]) -> Self:
        """The treatment with what it leaves to pictures, of which it looks at all.

        Raises:
            ValueError: A picture cannot be read, or there is nothing to see in any.
        """
        if self.invert is not None and self.levels is not None:
            return self
        invert = self.invert
        if invert is None:
            darker, brighter = np.sum([_excesses(self._light(picture, False)) for picture in pictures], 0)
            invert = bool(darker > _DARKER * brighter)
        fitted = replace(self, invert=invert)
        if self.levels is not None:
            return fitted
        blacks, seen = [], []
        for picture in pictures:
            light = fitted._light(picture)
            smooth, noise = fit_background(light)
            above = light - smooth
            blacks.append(0.0 if self.background == "subtract" else float(np.median(smooth)))
            seen.append((above + blacks[-1])[above > _SEEN * noise])
        black, objects = float(np.median(blacks)), np.concatenate(seen)
        white = float(np.percentile(objects, _WHITE)) if objects.size else black
        if not white > black:
            raise ValueError(
                f"there is nothing to see in the {len(pictures)} training pictures: nothing stands out from the "
                f"background by {_SEEN:g} standard deviations of noise, as in black pictures and textures; check the "
                "files, or give the levels of black and white"
            )
        # Few digits, which the command line can take.
        return replace(fitted, levels=(round(black, 6), round(white, 6)))

    def __call__(self, picture: object) -> Pixels:
        """A whole picture, as `to_array` takes it: ``[height, width, channel]`` in [0, 1], objects bright on black.

        Raises:
            ValueError: It cannot be read, or the treatment is not `fitted`.
        """
        if self.invert is None or self.levels is None:
            raise ValueError("the treatment leaves invert or levels to the training pictures; call fitted() first")
        light = self._light(picture)
        if self.background == "subtract":
            light = light - fit_background(light)[0]
        black, white = self.levels
        return np.clip((light - black) / (white - black), 0, 1).astype(np.float32)

    def window(self, width: int, height: int) -> Window:
        """The square that is looked at of a picture that is shown as a whole.

        Raises:
            ValueError: The picture is larger than the squares of training.
        """
        if self.crop is None:
            return around(width, height)
        if max(width, height) > self.crop:
            raise ValueError(
                f"it is {width} x {height} pixels large, and the agent was trained on squares of {self.crop} pixels; "
                "name such a part of it by --crop"
            )
        return (width - self.crop) // 2, (height - self.crop) // 2, self.crop

    def _light(self, picture: object, invert: bool | None = None) -> Pixels:
        colour, alpha = colour_and_alpha(to_array(picture), self.channels)
        # What is transparent is as far from an object as can be.
        return alpha * (1 - colour if (self.invert if invert is None else invert) else colour)


def fit_background(light: Pixels) -> tuple[Pixels, float]:
    """What is behind bright objects, and its noise.

    A polynomial of second degree in x and y, for each channel, is fitted by least squares, again and again without the
    pixels more than two standard deviations above it; the standard deviation is that of the pixels below.

    Args:
        light: ``[height, width, channel]``.

    Returns:
        The background, of the same shape; and the standard deviation of a pixel around it.
    """
    height, width, channels = light.shape
    steps = [max(1, side // _SAMPLE) for side in (height, width)]
    rows, columns = (np.linspace(-1, 1, side) for side in (height, width))
    few = light[:: steps[0], :: steps[1]]
    basis = _basis(rows[:: steps[0]], columns[:: steps[1]]).reshape(-1, 6)
    smooth, noises = np.empty(light.shape), []
    whole = _basis(rows, columns)
    for channel in range(channels):
        values = few[..., channel].ravel().astype(np.float64)
        kept, noise, coefficients = np.ones(len(values), bool), 0.0, np.zeros(6)
        for _ in range(_FITS):
            some = basis * kept[:, None]
            # Pixels in a row do not tell all six: the least solution then.
            coefficients = np.linalg.lstsq(some.T @ basis, some.T @ values, rcond=None)[0]
            residual = values - basis @ coefficients
            below = residual[residual <= 0]
            noise = float(np.sqrt(np.square(below).mean())) if below.size else 0.0
            before, kept = kept, residual <= _CLIP * noise + 1e-9
            if (kept == before).all():
                break
        smooth[..., channel] = whole @ coefficients
        noises.append(noise)
    return smooth, float(np.mean(noises))


def _basis(rows: NDArray, columns: NDArray) -> NDArray[np.float64]:
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)


def _excesses(light: Pixels) -> NDArray[np.float64]:
    """How much of a picture is darker, and brighter, than its median, beyond what noise makes of that."""
    residual = light - np.median(light, (0, 1))
    spread = 1.4826 * np.median(np.abs(residual))
    beyond = np.clip(np.abs(residual) - _SEEN / 2 * spread, 0, None)
    return np.array([beyond[residual < 0].sum(), beyond[residual > 0].sum()], np.float64)


def around(width: int, height: int) -> Window:
    """The square around all of a picture."""
    return -(max(height - width, 0) // 2), -(max(width - height, 0) // 2), max(width, height)


def look_at(pixels: Pixels, window: Window, side: int) -> Pixels:
    """A square of a picture, black beyond its borders, scaled with antialiasing: ``[channel, side, side]``."""
    x, y, square = window
    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, -1, 0)]
    views = [band.crop((x, y, x + square, y + square)).resize((side, side), Image.Resampling.BICUBIC) for band in bands]
    return np.stack([np.asarray(view) for view in views]).clip(0, 1)
