"""The stack of strided convolutions that the autoencoder and the classifiers look with."""

from torch import nn


def strided(channels: tuple[int, ...], image_size: int, *, normalise: bool = False) -> tuple[nn.Sequential, int]:
    """Convolutions that halve the image each.

    Args:
        channels: Of each layer.
        image_size: Side of the grey image in pixels.
        normalise: Whether to normalise each layer's outputs over the batch.

    Returns:
        The layers, and the side of what they end with.

    Raises:
        ValueError: Nothing would be left of the image.
    """
    if not channels or min(channels) < 1 or image_size < 2 ** len(channels):
        raise ValueError(
            f"channels must be positive, one for each halving of {image_size} pixels, got {channels!r}; use fewer"
        )
    layers, before, side = [], 1, image_size
    for after in channels:
        layers.append(nn.Conv2d(before, after, 5 if before == 1 else 3, stride=2, padding=2 if before == 1 else 1))
        layers += [nn.BatchNorm2d(after)] if normalise else []
        layers.append(nn.ReLU())
        before, side = after, (side + 1) // 2
    return nn.Sequential(*layers), side
