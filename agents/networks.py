"""The small parts that inference networks are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env.priors import GaussianPrior, gaussian_log_prob


class ImageEmbedding(nn.Module):
    """From an image ``[batch, 1, side, side]`` to features: a small network on overlapping patches.

    Deviation: the paper feeds the pixels to the core. Patches of 8 pixels every 4 find objects of many
    sizes in half the iterations; as matrix products they take half the time of two convolutions.
    """

    patch, stride, padding = 8, 4, 3

    def __init__(self, image_size: int, features: int, hidden: int = 64, channels: int = 16) -> None:
        super().__init__()
        side = (image_size + 2 * self.padding - self.patch) // self.stride + 1
        self.patches = nn.Sequential(
            nn.Linear(self.patch**2, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.ReLU(), nn.Flatten()
        )
        self.image = nn.Sequential(nn.Linear(channels * side**2, features), nn.ReLU())

    def forward(self, images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch feature"]:
        """The features of a batch of images."""
        padded = F.pad(images[:, 0], (self.padding,) * 4)
        patches = padded.unfold(1, self.patch, self.stride).unfold(2, self.patch, self.stride)
        return self.image(self.patches(patches.flatten(3).flatten(1, 2)))


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian posterior.

    Attributes:
        mean: ``[*batch, dim]``.
        sd: ``[*batch, dim]``, standard deviation.
    """

    mean: Float[Tensor, "*batch dim"]
    sd: Float[Tensor, "*batch dim"]

    def sample(self, noise: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The reparameterised sample of standard normal noise; noise 0 gives the mean."""
        return torch.addcmul(self.mean, self.sd, noise)

    def log_prob(self, value: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        return gaussian_log_prob(value, self.mean, self.sd)

    def kl(self, prior: GaussianPrior) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence to the prior in nats."""
        ratio = self.sd / prior.sd
        deviation = (self.mean - prior.mean) / prior.sd
        return 0.5 * (ratio.square() + deviation.square() - 1 - 2 * ratio.log()).sum(-1)

    @staticmethod
    def stack(posteriors: Sequence["Gaussian"]) -> "Gaussian":
        """Joins the posteriors of several steps along axis 1."""
        return Gaussian(torch.stack([p.mean for p in posteriors], 1), torch.stack([p.sd for p in posteriors], 1))


class GaussianHead(nn.Module):
    """Reads a Gaussian off features, in the units of its prior.

    Args:
        in_features: Number of features.
        dim: Length of the latent.
        initial_sd: Standard deviation that features of 0 give before training, in prior standard deviations.
            Softplus keeps it positive.
        initial_mean: The mean that they give, in prior standard deviations from the prior's mean.
    """

    def __init__(self, in_features: int, dim: int, initial_sd: float, initial_mean: Tensor | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * dim)
        with torch.no_grad():
            self.linear.bias[:dim] = 0.0 if initial_mean is None else initial_mean
            self.linear.bias[dim:] = torch.tensor(initial_sd).expm1().log()  # softplus(bias) = initial_sd

    def forward(self, features: Float[Tensor, "batch feature"], prior: GaussianPrior) -> Gaussian:
        """The posterior of a batch of features."""
        mean, sd = self.linear(features).chunk(2, -1)
        return Gaussian(torch.addcmul(prior.mean, prior.sd, mean), prior.sd * F.softplus(sd))
