"""Where an object is: the one place that maps ``z_where`` to an affine window and back.

A window is an axis-aligned square seen from the image: ``z_where = (log_scale, x, y)``, where
``scale = exp(log_scale)`` is the *size of the window relative to the image* and ``(x, y)`` its centre
in image coordinates, which run over [-1, 1] from the outer edge of the first pixel to the outer edge
of the last (x to the right, y down; the ``align_corners=False`` convention of ``grid_sample``).
Window coordinates ``u`` and image coordinates ``v`` are then related by

    v = scale * u + centre.

``attend`` reads the window out of an image and ``place`` draws a patch back into it; they are the
spatial transformers of Section 3 of the paper (Figure 2, right). Without rotation, bilinear
interpolation is separable: a spatial transformer is one matrix product along y and one along x,

    glimpse = R image C^T,   R[i, j] = max(0, 1 - |row(i) - j|),

which equals ``grid_sample(..., padding_mode="zeros", align_corners=False)``, its gradient included, and is much faster.
Where a sample falls on the centre of a pixel, where interpolation has a kink, the gradient is the right-hand
derivative, as there.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.precision import exact

WHERE_DIM = 3
"""Length of ``z_where``: log scale, x, y."""


def to_affine(z_where: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2 3"]:
    """The affine matrix that takes window coordinates to image coordinates.

    Args:
        z_where: Log scale and centre.

    Returns:
        ``[[s, 0, x], [0, s, y]]``, as ``affine_grid`` expects it to read a window out of an image.

    Example:
        >>> to_affine(torch.tensor([0.0, 0.5, -0.5]))
        tensor([[ 1.0000,  0.0000,  0.5000],
                [ 0.0000,  1.0000, -0.5000]])
    """
    scale = z_where[..., 0].exp()
    zero = torch.zeros_like(scale)
    x, y = z_where[..., 1], z_where[..., 2]
    return torch.stack([torch.stack([scale, zero, x], -1), torch.stack([zero, scale, y], -1)], -2)


def from_affine(affine: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 3"]:
    """The inverse of `to_affine` on axis-aligned square windows."""
    return torch.stack([affine[..., 0, 0].log(), affine[..., 0, 2], affine[..., 1, 2]], -1)


def outlines(z_where: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Window borders ``(x0, y0, x1, y1)`` in image coordinates."""
    scale, x, y = z_where[..., 0].exp(), z_where[..., 1], z_where[..., 2]
    return torch.stack([x - scale, y - scale, x + scale, y + scale], -1)


def to_pixels(outlines: Float[Tensor, "*batch 4"], image_size: int) -> Float[Tensor, "*batch 4"]:
    """Borders in pixels, with the origin at the outer corner of the top left pixel, from image coordinates."""
    return (outlines + 1) * (image_size / 2)


def boxes(z_where: Float[Tensor, "*batch 3"], image_size: int) -> Float[Tensor, "*batch 4"]:
    """Window borders in pixels.

    Args:
        z_where: Log scale and centre.
        image_size: Side of the square image in pixels.

    Returns:
        ``(x0, y0, x1, y1)`` with the origin at the outer corner of the top left pixel; a window that
        leaves the image has borders outside ``[0, image_size]``.
    """
    return to_pixels(outlines(z_where), image_size)


def from_boxes(boxes: Float[Tensor, "*batch 4"], image_size: int) -> Float[Tensor, "*batch 3"]:
    """The smallest windows that contain the boxes, which are centred in them.

    Args:
        boxes: ``(x0, y0, x1, y1)`` in pixels.
        image_size: Side of the square image in pixels.
    """
    x0, y0, x1, y1 = (boxes / image_size).unbind(-1)
    scale = torch.maximum(x1 - x0, y1 - y0)
    return torch.stack([scale.log(), x0 + x1 - 1, y0 + y1 - 1], -1)


@exact
def attend(
    image: Float[Tensor, "batch channel side side"],
    z_where: Float[Tensor, "batch 3"],
    glimpse_size: int,
) -> Float[Tensor, "batch channel glimpse glimpse"]:
    """Reads a window out of an image (the spatial transformer of inference).

    Args:
        image: Pixels; outside the image everything is 0.
        z_where: The window.
        glimpse_size: Side of the square glimpse in pixels.
    """
    columns, rows = _bilinear(z_where[:, :1].exp(), z_where[:, 1:], image.shape[-1], glimpse_size)
    return rows @ image @ columns.mT


@exact
def place(
    patch: Float[Tensor, "batch channel patch patch"],
    z_where: Float[Tensor, "batch 3"],
    image_size: int,
) -> Float[Tensor, "batch channel side side"]:
    """Draws a patch into a window of an empty image (the spatial transformer of generation).

    Args:
        patch: Pixels of the window; outside the window everything is 0.
        z_where: The window.
        image_size: Side of the square image in pixels.
    """
    inverse_scale = (-z_where[:, :1]).exp()
    columns, rows = _bilinear(inverse_scale, -z_where[:, 1:] * inverse_scale, patch.shape[-1], image_size)
    return rows @ patch @ columns.mT


def _bilinear(scale: Tensor, shift: Tensor, size_in: int, size_out: int) -> tuple[Tensor, Tensor]:
    """Interpolation weights along x and along y, each ``[batch, 1, size_out, size_in]``.

    Output coordinate ``u`` reads the input at ``v = scale * u + shift``; ``shift [batch, 2]`` is (x, y).
    """
    options = {"dtype": scale.dtype, "device": scale.device}
    u = (torch.arange(size_out, **options) * 2 + 1) / size_out - 1
    # Pixel j has its centre at v = (2 j + 1) / size_in - 1.
    pixel = torch.addcmul((shift * (size_in / 2) + (size_in - 1) / 2)[..., None], scale[..., None] * (size_in / 2), u)
    distance = pixel[..., None] - torch.arange(size_in, **options)
    # `relu` has derivative 0 where it begins to rise, and `clamp_min` has 1: on pixel centres, where the two sides
    # meet, each weight has its right-hand derivative.
    weights = torch.where(distance < 0, (1 + distance).clamp_min(0), (1 - distance).relu())
    columns, rows = weights[:, :, None].unbind(1)
    return columns, rows
