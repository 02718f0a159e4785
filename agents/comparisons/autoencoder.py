"""A convolutional autoencoder, which the paper compares AIR's representation with (Section 3.1.2).

    code = encoder(x),   log p(x | code) = log N(x; sigmoid(decoder(code)), scale^2)

The encoder halves the image in every layer, the decoder doubles it. Its code is as long as what AIR says of two
objects, and a point, not a distribution.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env.likelihoods import LIKELIHOODS, Likelihood

from ..inference.convolutions import convolutional
from .model import ComparisonSettings, ImageModel

Pictures = Float[Tensor, "batch 1 side side"]


@dataclass(frozen=True)
class AutoencoderConfig(ComparisonSettings):
    """Settings of the autoencoder."""

    kind: ClassVar[str] = "autoencoder"

    image_size: int = 50
    """Side of the square, grey image in pixels."""
    code: int = 106
    """Length of the code: 2 objects of 50 + 3 numbers, as AIR has."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the convolutions; each halves the image (our choice)."""
    hidden: int = 256
    """Units between the convolutions and the code (our choice)."""
    initial_logit: float = -4.0
    """Logit of every pixel before training: pictures are mostly black."""
    likelihood_scale: float = 0.2
    """Standard deviation of a pixel; as codes are points, what is learned does not depend on it."""

    def __post_init__(self) -> None:
        for name in ("code", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def make(self) -> "Autoencoder":
        """The model."""
        return Autoencoder(self)


class Autoencoder(ImageModel):
    """A convolutional autoencoder.

    Args:
        config: Settings.

    Example:
        >>> import torch
        >>> Autoencoder(AutoencoderConfig()).features(torch.zeros(2, 1, 50, 50)).shape
        torch.Size([2, 106])
    """

    objective = "log_likelihood"

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = convolutional(config.channels, config.image_size, config.hidden, config.code)
        side = -(-config.image_size // 2 ** len(config.channels))
        deepest = (config.channels[-1], side, side)
        layers = [nn.Linear(config.code, config.hidden), nn.ReLU(), nn.Linear(config.hidden, math.prod(deepest))]
        layers += [nn.Unflatten(1, deepest), nn.ReLU()]
        for before, after in zip(config.channels[:0:-1], config.channels[-2::-1], strict=True):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        last = nn.ConvTranspose2d(config.channels[0], 1, 4, stride=2, padding=1)
        assert last.bias is not None
        nn.init.constant_(last.bias, config.initial_logit)
        self.decoder = nn.Sequential(*layers, last)

    @property
    def likelihood(self) -> Likelihood:
        """Of pixels."""
        return LIKELIHOODS["gaussian"](self.config.likelihood_scale)

    def forward(self, images: Pictures) -> Pictures:
        """The reconstructions."""
        # Odd sides were rounded up on the way in.
        side = self.config.image_size
        return self.decoder(self.encoder(images))[..., :side, :side].sigmoid()

    def terms(
        self, images: Pictures, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        """``log p(x | code)`` in nats; a code that is a point has no divergence, so that the sum is no bound."""
        del generator
        log_likelihood = self.likelihood.log_prob(images, self(images))
        return log_likelihood, torch.zeros_like(log_likelihood)

    def reconstruct(self, images: Pictures) -> Pictures:
        """Reconstructions of images from their codes."""
        return self.in_batches(self, images)

    def features(self, images: Pictures) -> Float[Tensor, "batch code"]:
        """The codes."""
        return self.in_batches(self.encoder, images)
