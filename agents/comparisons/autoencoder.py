"""A convolutional autoencoder, which the paper compares AIR's representation with (Section 3.1.2).

    code = encoder(x),   log p(x | code) = log N(x; sigmoid(decoder(code)), scale^2)

The encoder halves the image in every layer, the decoder doubles it. Its code is as long as what AIR says of two
objects, and a point, not a distribution.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env.likelihoods import LIKELIHOODS
from air_env.scenes import SceneDataset

from .convolutions import strided
from .model import ComparisonModel, ComparisonSettings

_BATCH = 500

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
    likelihood_scale: float = 0.3
    """Standard deviation of a pixel: that of the AIR it is compared with."""

    def __post_init__(self) -> None:
        for name in ("code", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def make(self) -> "Autoencoder":
        """The model."""
        return Autoencoder(self)


class Autoencoder(ComparisonModel):
    """A convolutional autoencoder.

    Args:
        config: Settings.

    Example:
        >>> Autoencoder(AutoencoderConfig()).features(torch.zeros(2, 1, 50, 50)).shape
        torch.Size([2, 106])
    """

    objective = "log_likelihood"

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.likelihood = LIKELIHOODS["gaussian"](config.likelihood_scale)
        convolutions, side = strided(config.channels, config.image_size)
        deepest = config.channels[-1]
        self.encoder = nn.Sequential(
            convolutions,
            nn.Flatten(),
            nn.Linear(deepest * side**2, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.code),
        )
        layers = [nn.Linear(config.code, config.hidden), nn.ReLU(), nn.Linear(config.hidden, deepest * side**2)]
        layers += [nn.Unflatten(1, (deepest, side, side)), nn.ReLU()]
        for before, after in zip(config.channels[:0:-1], config.channels[-2::-1], strict=True):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        last = nn.ConvTranspose2d(config.channels[0], 1, 4, stride=2, padding=1)
        assert last.bias is not None
        nn.init.constant_(last.bias, config.initial_logit)
        self.decoder = nn.Sequential(*layers, last)

    def forward(self, images: Pictures) -> Pictures:
        """The reconstructions."""
        # Odd sides were rounded up on the way in.
        side = self.config.image_size
        return self.decoder(self.encoder(images))[..., :side, :side].sigmoid()

    def log_likelihood(self, images: Pictures) -> Float[Tensor, "batch"]:
        """``log p(x | code)`` in nats."""
        return self.likelihood.log_prob(images, self(images))

    @torch.no_grad()
    def reconstruct(self, images: Pictures) -> Pictures:
        """Reconstructions of images from their codes."""
        return torch.cat([self(part) for part in images.split(_BATCH)])

    @torch.no_grad()
    def features(self, images: Pictures) -> Float[Tensor, "batch code"]:
        """The codes."""
        return torch.cat([self.encoder(part) for part in images.split(_BATCH)])

    def score(self, scenes: SceneDataset) -> Float[Tensor, "batch"]:
        """The log-likelihood of the scenes' images, which is what it is trained for."""
        return self.log_likelihood(scenes.float_images(self.device))

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """The log-likelihood and the squared error, summed over pixels: means over scenes."""
        images = scenes.float_images(self.device)
        reconstructions = self.reconstruct(images)
        return {
            "log_likelihood_test": self.likelihood.log_prob(images, reconstructions).mean().item(),
            "squared_error": (reconstructions - images).square().sum((1, 2, 3)).mean().item(),
        }

    def evaluate(self, scenes: SceneDataset) -> dict[str, float]:
        """Metrics of `measure`."""
        figures = self.measure(scenes)
        return {"log_likelihood": figures["log_likelihood_test"], "squared_error": figures["squared_error"]}
