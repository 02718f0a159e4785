"""The small parts that inference networks are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.priors import CategoricalPrior, GaussianPrior, gaussian_log_prob


class ImageEmbedding(nn.Module):
    """From an image ``[batch, channel, side, side]`` to features: a small network on overlapping patches.

    Deviation: the paper feeds the pixels to the core. Patches of 8 pixels every 4 find objects of many
    sizes in half the iterations; as matrix products they take half the time of two convolutions.
    """

    patch, stride, padding = 8, 4, 3

    def __init__(
        self, image_shape: tuple[int, int, int], features: int, hidden: int = 64, patch_features: int = 16
    ) -> None:
        super().__init__()
        channels, image_size, _ = image_shape
        side = len(self.centres(image_size))
        self.patches = nn.Sequential(
            nn.Linear(channels * self.patch**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, patch_features),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.image = nn.Sequential(nn.Linear(patch_features * side**2, features), nn.ReLU())

    def forward(self, images: Float[Tensor, "batch channel side side"]) -> Float[Tensor, "batch feature"]:
        """The features of a batch of images."""
        return self.image(self.patches(self.unfold(images)))

    def centres(self, image_size: int) -> Float[Tensor, "patch"]:
        """Where the patches of a row are centred, in image coordinates."""
        first = torch.arange(0, image_size + 2 * self.padding - self.patch + 1, self.stride) - self.padding
        return (first + self.patch / 2) * 2 / image_size - 1

    def unfold(self, images: Float[Tensor, "batch channel side side"]) -> Float[Tensor, "batch place pixel"]:
        """The patches of a batch of images, row by row."""
        padded = F.pad(images, (self.padding,) * 4)
        patches = padded.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)
        return patches.movedim(1, 3).flatten(3).flatten(1, 2)


class SpatialSoftmax(nn.Module):
    """Where maps of attention lie on a grid of patches (Levine et al., 2016, Section 5.1).

    The place of an object is then linear in the features. At first the attention is on what is unexplained, and of
    two objects every map prefers the one that is further in a direction of its own.

    Args:
        places: ``[place, 2]``, centres ``(x, y)`` of the patches in image coordinates.
        features: Number of features of a patch.
        maps: Number of maps.
    """

    sharpness, preference_strength = 60.0, 8.0
    places: Tensor

    def __init__(self, places: Float[Tensor, "place 2"], features: int, maps: int = 16) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)
        self.attention = nn.Linear(features, maps)
        angle = torch.arange(maps) * (2 * torch.pi / maps)
        directions = torch.stack([angle.cos(), angle.sin()], 1)
        self.preference = nn.Parameter(self.preference_strength * directions @ places.T)

    def forward(
        self, patches: Float[Tensor, "batch place feature"], unexplained: Float[Tensor, "batch place"]
    ) -> Float[Tensor, "batch map 2"]:
        """The mean place of each map; ``unexplained`` is the mean absolute error of a patch."""
        logits = self.attention(patches).mT + self.sharpness * unexplained[:, None] + self.preference
        return logits.softmax(-1) @ self.places


class CanvasEmbedding(nn.Module):
    """From image and canvas to features, and to a place where something is not explained yet."""

    def __init__(self, image_shape: tuple[int, int, int], features: int, hidden: int = 64, maps: int = 16) -> None:
        super().__init__()
        channels, image_size, _ = image_shape
        self.embed = ImageEmbedding((2 * channels, image_size, image_size), features, hidden)
        centres = self.embed.centres(image_size)
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        self.places = SpatialSoftmax(torch.stack([x.flatten(), y.flatten()], 1), hidden, maps)
        self.features = features + 2 * maps

    def forward(
        self, images: Float[Tensor, "batch channel side side"], canvas: Float[Tensor, "batch channel side side"]
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch 2"]]:
        """The features, and the place of the first map of attention."""
        pixels = self.embed.unfold(torch.cat([images, images - canvas], 1))
        hidden = self.embed.patches[:2](pixels)
        places = self.places(hidden, pixels[..., pixels.shape[-1] // 2 :].abs().mean(-1))
        features = self.embed.image(self.embed.patches[2:](hidden))
        return torch.cat([features, places.flatten(1)], 1), places[:, 0]


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian posterior.

    Attributes:
        mean: ``[*batch, dim]``.
        sd: ``[*batch, dim]``, standard deviation.
    """

    mean: Float[Tensor, "*batch dim"]
    sd: Float[Tensor, "*batch dim"]

    @property
    def mode(self) -> Float[Tensor, "*batch dim"]:
        """The most probable value."""
        return self.mean

    def sample(self, noise: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The reparameterised sample of standard normal noise; noise 0 gives the mode."""
        return torch.addcmul(self.mean, self.sd, noise)

    def log_prob(self, value: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        return gaussian_log_prob(value, self.mean, self.sd)

    def kl(self, prior: GaussianPrior) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence to the prior in nats."""
        ratio = self.sd / prior.sd
        deviation = (self.mean - prior.mean) / prior.sd
        return 0.5 * (ratio.square() + deviation.square() - 1 - 2 * ratio.log()).sum(-1)


@dataclass(frozen=True)
class Categorical:
    """A posterior over categories.

    Attributes:
        log_q: ``[*batch, category]``, normalised.
    """

    log_q: Float[Tensor, "*batch category"]

    @property
    def mode(self) -> Int[Tensor, "*batch"]:
        """The most probable category."""
        return self.log_q.argmax(-1)

    def sample(self, noise: Float[Tensor, "*batch category"]) -> Int[Tensor, "*batch"]:
        """The category that standard normal noise draws (Gumbel-max); noise 0 gives the mode."""
        uniform = torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6)
        return (self.log_q - (-uniform.log()).log()).argmax(-1)

    def log_prob(self, value: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats."""
        return self.log_q.gather(-1, value[..., None])[..., 0]

    def kl(self, prior: CategoricalPrior) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence to the prior in nats."""
        return (self.log_q.exp() * (self.log_q - prior.log_p)).sum(-1)


Posterior = Gaussian | Categorical


def stack(steps: Sequence[Any]) -> Any:
    """Joins the tensors, or the posteriors, of several steps along axis 1."""
    return _map(lambda *parts: torch.stack(parts, 1), *steps)


def repeated(value: Any, num_rows: int) -> Any:
    """Tensors, or a posterior, with every row repeated, so that there are so many rows."""
    return _map(lambda part: part if len(part) == num_rows else part.repeat_interleave(num_rows // len(part), 0), value)


def _map(function: Callable[..., Tensor], *values: Any) -> Any:
    """Applies a function to tensors, or to each part of posteriors."""
    kind = type(values[0])
    if issubclass(kind, Tensor):
        return function(*values)
    return kind(*(function(*(getattr(value, field.name) for value in values)) for field in fields(kind)))


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


class CategoricalHead(nn.Module):
    """Reads a distribution over categories off features."""

    def __init__(self, in_features: int, num_categories: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_categories)

    def forward(self, features: Float[Tensor, "batch feature"], prior: CategoricalPrior) -> Categorical:
        """The posterior of a batch of features."""
        del prior
        return Categorical(self.linear(features).log_softmax(-1))
