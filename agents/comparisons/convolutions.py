"""The stack of strided convolutions that the autoencoder and the classifiers look with."""

from torch import nn


def strided(
    channels: tuple[int, ...], image_size: int, *, inputs: int = 1, normalise: bool = False
) -> tuple[nn.Sequential, int]:
    """Convolutions that halve the image each.

    Args:
        channels: Of each layer.
        image_size: Side of the image in pixels.
        inputs: Its colours: 1 or 3.
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
    layers, before, side = [], inputs, image_size
    for after in channels:
        kernel = 3 if layers else 5
        layers.append(nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2))
        layers += [nn.BatchNorm2d(after)] if normalise else []
        layers.append(nn.ReLU())
        before, side = after, (side + 1) // 2
    return nn.Sequential(*layers), side
