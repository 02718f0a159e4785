"""The posteriors of latents, and the heads that read them off features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.precision import Head
from air_env.priors import GaussianPrior, Prior, gaussian_log_prob

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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

    def kl(self, prior: Prior) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence to the prior in nats."""
        return prior.kl(self.mean, self.sd)


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

    def kl(self, prior: Prior) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence to the prior in nats."""
        return prior.kl(self.log_q)


Posterior = Gaussian | Categorical

P = TypeVar("P", Tensor, Gaussian, Categorical, Posterior)
Rows = TypeVar("Rows", bound="DataclassInstance")


def select(value: Rows, rows: Tensor) -> Rows:
    """Some rows of a dataclass of tensors."""
    return type(value)(*(getattr(value, field.name)[rows] for field in fields(value)))


def stack(steps: Sequence[P]) -> P:
    """Joins the tensors, or the posteriors, of several steps along axis 1."""
    return _map(lambda *parts: torch.stack(parts, 1), *steps)


def repeated(value: P, num_rows: int) -> P:
    """Tensors, or a posterior, with every row repeated, so that there are so many rows."""
    return _map(lambda part: part if len(part) == num_rows else part.repeat_interleave(num_rows // len(part), 0), value)


def _map(function: Callable[..., Tensor], *values: P) -> P:
    """Applies a function to tensors, or to each part of posteriors."""
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)  # pyright: ignore
    return type(first)(*(function(*(getattr(value, field.name) for value in values)) for field in fields(first)))


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
        self.linear = Head(in_features, 2 * dim)
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
        self.linear = Head(in_features, num_categories)

    def forward(self, features: Float[Tensor, "batch feature"], prior: Prior) -> Categorical:
        """The posterior of a batch of features."""
        del prior
        return Categorical(self.linear(features).log_softmax(-1))
