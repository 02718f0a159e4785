"""Images as people have them, made into what the networks take."""

import numpy as np
import torch
from torch import Tensor

from air_env.model import Images


def as_images(images: object, side: int) -> Images:
    """Checks images and brings them into the form ``[batch, 1, side, side]``, float32 in [0, 1].

    Args:
        images: ``[batch, side, side]`` or ``[batch, 1, side, side]``, numpy or torch, uint8 (0 to 255) or float.
        side: Side in pixels that the network was made for.

    Raises:
        ValueError: Another shape or type, NaN, or floats outside [0, 1].
    """
    if not isinstance(images, Tensor):
        try:
            images = torch.from_numpy(np.ascontiguousarray(images))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(f"images must be an array of numbers: {error}") from error
    assert isinstance(images, Tensor)
    wanted = f"[batch, {side}, {side}] or [batch, 1, {side}, {side}]"
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1:] != (1, side, side):
        raise ValueError(
            f"images have shape {list(images.shape)}, wanted {wanted}; crop and scale them to {side}x{side} pixels"
        )
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise ValueError(f"images have type {images.dtype}, wanted uint8 (0 to 255) or float (0 to 1)")
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinite values; every pixel must lie in [0, 1]")
    if len(images) and (images.min() < 0 or images.max() > 1):
        raise ValueError(
            f"images hold values from {images.min():g} to {images.max():g}, wanted floats in [0, 1]; "
            "scale them, or hand in uint8"
        )
    return images
