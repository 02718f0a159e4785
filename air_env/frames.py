"""RGB frames: what an explanation looks like, with the attention windows in red, green, blue, ..."""

import logging

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    (255, 60, 60),
    (60, 220, 60),
    (90, 130, 255),
    (255, 210, 40),
    (235, 90, 235),
    (60, 220, 220),
    (255, 140, 40),
    (170, 170, 170),
)
"""RGB of the window of step 1, 2, ...; then from the beginning."""

_PANEL = 250
"""Wanted side of an upscaled image in a frame, in pixels."""
_MARGIN = 10
_CAPTION = 26
_FONT_SIZE = 15
_BACKGROUND = (48, 48, 48)
_RIM = (0, 0, 0)
_TEXT = (235, 235, 235)

Frame = UInt8[np.ndarray, "_ _ 3"]
"""Rows, columns, RGB."""

_log = logging.getLogger(__name__)


def draw_windows(image: ArrayLike, boxes: ArrayLike, scale: int = 1) -> Frame:
    """An image, enlarged, with windows drawn on it.

    Args:
        image: ``[height, width]``, ``[1, height, width]`` (grey) or ``[3, height, width]`` (RGB); floats, of
            which [0, 1] is shown.
        boxes: ``[box, 4]``, borders ``(x0, y0, x1, y1)`` in pixels of the image; box k has colour k of
            `COLOURS`, rows with NaN are left out.
        scale: Pixels of the frame per pixel of the image.

    Returns:
        ``[height * scale, width * scale, 3]``, uint8.
    """
    picture = Image.fromarray(_enlarge(image, scale))
    draw = ImageDraw.Draw(picture)
    width = max(1, round(0.4 * scale))
    # Windows may be far larger than the image; their borders need not be followed there.
    limit = 2 * max(picture.size)
    for k, box in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4)):
        if np.isnan(box).any():
            continue
        x0, y0, x1, y1 = (int(edge) for edge in np.clip(np.round(box * scale), -limit, limit))
        # The border's last pixel is the one before the edge.
        x1, y1 = max(x0, x1 - 1), max(y0, y1 - 1)
        if width > 1:
            # A dark rim, so that a red window is seen on a red object.
            draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_RIM, width=width + 2)
        draw.rectangle((x0, y0, x1, y1), outline=COLOURS[k % len(COLOURS)], width=width)
    return np.array(picture)


def scene_frame(
    image: Float[np.ndarray, "channel height width"],
    canvas: Float[np.ndarray, "channel height width"],
    boxes: Float[np.ndarray, "box 4"],
    captions: tuple[str, str] = ("", ""),
) -> Frame:
    """Image and canvas side by side, both with the windows, above a strip of text.

    Args:
        image: What is explained.
        canvas: The explanation so far.
        boxes: Windows in pixels of the image; rows with NaN are left out.
        captions: Texts below the image and below the canvas.

    Returns:
        Height and width are even, as video encoders want them.
    """
    scale = max(1, round(_PANEL / image.shape[-1]))
    panels = [draw_windows(pixels, boxes, scale) for pixels in (image, canvas)]
    height, width, _ = panels[0].shape
    frame = Image.new("RGB", (2 * width + _MARGIN, height + _CAPTION + height % 2), _BACKGROUND)
    draw = ImageDraw.Draw(frame)
    for panel, caption, left in zip(panels, captions, (0, width + _MARGIN), strict=True):
        frame.paste(Image.fromarray(panel), (left, 0))
        draw.text((left + 4, height + 3), caption, _TEXT, ImageFont.load_default(_FONT_SIZE))
    return np.array(frame)


def episode_frame(image: NDArray, canvas: NDArray, boxes: NDArray, count: int, finished: bool, total: float) -> Frame:
    """`scene_frame` of an episode, with the number of objects and the return so far, in nats."""
    # Adding 0 takes the sign of -0.0.
    captions = (
        f"image, count {count}{', finished' if finished else ''}",
        f"canvas, return {round(total, 1) + 0.0:,.1f} nats",
    )
    return scene_frame(image, canvas, boxes, captions)


def _enlarge(image: ArrayLike, scale: int) -> NDArray[np.uint8]:
    """``[height * scale, width * scale, 3]``: nearest neighbours, so that pixels stay visible."""
    pixels = np.asarray(image, np.float64)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    grey = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    rgb = np.broadcast_to(np.moveaxis(grey, 0, -1), (*grey.shape[-2:], 3))
    return np.ascontiguousarray(rgb.repeat(scale, 0).repeat(scale, 1))


class Window:
    """A matplotlib window that shows one frame after the other; without a display it shows nothing."""

    def __init__(self) -> None:
        # pyplot is slow to import, and only people who watch need it.
        import matplotlib.pyplot as plt

        self._plt = plt
        self._figure = plt.figure("AIRScene")
        self._figure.subplots_adjust(0, 0, 1, 1)
        self._axes = self._figure.add_subplot(xticks=[], yticks=[])
        self._picture = None
        self._visible = getattr(self._figure.canvas, "required_interactive_framework", None) is not None
        if not self._visible:
            _log.warning("matplotlib has no display, so render_mode='human' shows nothing; use 'rgb_array' for frames")

    def show(self, frame: Frame, seconds: float) -> None:
        """Shows a frame for a while."""
        if self._picture is None:
            self._picture = self._axes.imshow(frame)
        self._picture.set_data(frame)
        if self._visible:
            self._plt.pause(seconds)

    def close(self) -> None:
        """Closes the window."""
        self._plt.close(self._figure)
