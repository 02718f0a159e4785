"""Strided convolutions, with which comparisons look at images, and readers at single objects."""

from torch import nn


def convolutional(
    channels: tuple[int, ...],
    image_size: int,
    hidden: int,
    outputs: int,
    *,
    inputs: int = 1,
    normalise: bool = False,
    dropout: float | None = None,
) -> nn.Sequential:
    """Convolutions that halve the image each, then two fully connected layers.

    Args:
        channels: Of each convolution.
        image_size: Side of the image in pixels.
        hidden: Units between the fully connected layers.
        outputs: Numbers that it ends with.
        inputs: Colours of the image: 1 or 3.
        normalise: Whether to normalise each convolution's outputs over the batch.
        dropout: Share of what the fully connected layers read that is hidden from them in training.

    Raises:
        ValueError: Nothing would be left of the image.
    """
    if not channels or min(channels) < 1 or image_size < 2 ** len(channels):
        raise ValueError(
            f"channels must be positive, one for each halving of {image_size} pixels, got {channels!r}; use fewer"
        )
    layers, side = [], image_size
    for before, after in zip((inputs, *channels), channels, strict=False):
        kernel = 3 if layers else 5
        layers.append(nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2))
        layers += [nn.BatchNorm2d(after)] if normalise else []
        layers.append(nn.ReLU())
        side = (side + 1) // 2
    hide = [] if dropout is None else [nn.Dropout(dropout)]
    full = nn.Linear(channels[-1] * side**2, hidden), nn.ReLU(), *hide, nn.Linear(hidden, outputs)
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), *hide, *full)
