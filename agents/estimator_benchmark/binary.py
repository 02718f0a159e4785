"""Problems of independent binary latents, on which the literature compares its estimators, for those of this package.

A `StopProblem` reads presences as a unary code, up to the first 0. Here every presence counts, as a latent of its own:

    q(b) = prod_k Bernoulli(b_k; sigmoid(logit_k)),    L(b) = log p(x | b) + log p(b) - log q(b)

The "count" of a row is the number that its K presences write in binary, and all K of them are always decided.

    bernoulli    E (b - t)^2, one b, t = 0.499     Grathwohl et al. (2018), Figure 1; t = 0.45 in Tucker et al. (2017)
    BinaryVAE    b -> pixels of binarised images   Tucker et al. (2017), Figure 2; Dong et al. (2020), Figure 5
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..estimators import StopProblem
from ..estimators.base import RETURN_SCALE

TARGET = 0.499
MOST_LATENTS = 62
"""Bits of a whole number."""


@dataclass(frozen=True, kw_only=True)
class BinaryProblem(StopProblem):
    """A batch of binary latents; what only a unary code has (all scores, the value of stopping) is not to be read.

    Attributes:
        log_likelihood: ``log p(x | b)`` of latents ``[batch, K]``, which may lie between 0 and 1.
        prior_logits: Logits of ``p(b)``, to be broadcast to ``[batch, K]``.
    """

    log_likelihood: Callable[[Tensor], Tensor]
    prior_logits: Float[Tensor, "..."]

    def bits(self, n: Int[Tensor, "batch"]) -> Bool[Tensor, "batch latent"]:
        """The latents that a number stands for."""
        return (n[:, None] >> torch.arange(self.logits.shape[1], device=n.device)) % 2 == 1

    def count(self, presences: Float[Tensor, "batch latent"]) -> Int[Tensor, "batch"]:
        """The number that stands for the latents."""
        return (presences.long() << torch.arange(self.logits.shape[1], device=presences.device)).sum(1)

    def went_on(self, n: Int[Tensor, "batch"]) -> Bool[Tensor, "batch latent"]:
        """Which latents are 1."""
        return self.bits(n)

    def reached(self, n: Int[Tensor, "batch"]) -> Bool[Tensor, "batch latent"]:
        """All of them are decided."""
        return torch.ones_like(self.bits(n))

    def log_q_at(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``log q(b)``."""
        return torch.where(self.bits(n), self.log_go, self.log_stop).sum(1)

    def log_p_at(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``log p(b)``."""
        signs = torch.where(self.bits(n), 1.0, -1.0).to(self.logits)
        return F.logsigmoid(signs * self.prior_logits).sum(1)

    def at(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``log p(x, b)``."""
        return self.log_likelihood(self.bits(n).to(self.logits)) + self.log_p_at(n)

    def soft(self, gates: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch"]:
        """``log p(x | b)`` of latents between 0 and 1."""
        return self.log_likelihood(gates)

    def kl_count(self) -> Float[Tensor, "batch"]:
        """The divergence of q(b) from p(b)."""
        go, stop = self.log_go - F.logsigmoid(self.prior_logits), self.log_stop - F.logsigmoid(-self.prior_logits)
        return (self.log_go.exp() * go + self.log_stop.exp() * stop).sum(1)

    def stop_values(self) -> Float[Tensor, "batch latent"]:
        """0: latents are drawn at once, and there is no value of stopping before one of them."""
        return torch.zeros_like(self.logits)

    def returns_so_far(self) -> Float[Tensor, "batch latent"]:
        """0: nothing is paid before a latent is drawn."""
        return torch.zeros_like(self.logits)

    def elbo(self) -> Float[Tensor, "batch"]:
        """The ELBO, with all ``2 ** K`` latents summed out."""
        every = torch.arange(2 ** self.logits.shape[1], device=self.logits.device)
        numbers = [n.expand(len(self.logits)) for n in every.split(1)]
        return torch.stack([self.log_q_at(n).exp() * (self.at(n) - self.log_q_at(n)) for n in numbers]).sum(0)


def binary_problem(
    logits: Float[Tensor, "batch latent"],
    log_likelihood: Callable[[Tensor], Tensor],
    prior_logits: Float[Tensor, "..."],
    context: Float[Tensor, "batch feature"],
    num_particles: int = 1,
) -> BinaryProblem:
    """A problem of these latents.

    Args:
        logits: Of q(b).
        log_likelihood: See `BinaryProblem`.
        prior_logits: See `BinaryProblem`.
        context: What learned baselines see, for all latents of a row.
        num_particles: Rows of each image, which follow each other.

    Raises:
        ValueError: There are more latents than a whole number has bits.
    """
    batch, num_latents = logits.shape
    if num_latents > MOST_LATENTS:
        raise ValueError(f"there may be at most {MOST_LATENTS} binary latents, got {num_latents}; take fewer")
    return BinaryProblem(
        logits,
        logits.new_zeros(batch, num_latents + 1),
        logits.new_zeros(num_latents + 1),
        context.detach()[:, None].expand(-1, num_latents, -1),
        num_particles=num_particles,
        log_likelihood=log_likelihood,
        prior_logits=prior_logits,
    )


def bernoulli(logits: Float[Tensor, "batch 1"], target: float = TARGET) -> BinaryProblem:
    """The toy problem, to minimise ``E (b - t)^2``: each row is a try of its own.

    The prior is q itself, held fixed, so that ``L(b) = -(b - t)^2`` and its divergence has no gradient. In units of
    `RETURN_SCALE`, as all learned baselines are.
    """

    def log_likelihood(b: Tensor) -> Tensor:
        return -RETURN_SCALE * (b - target).square().sum(1)

    return binary_problem(logits, log_likelihood, logits.detach(), torch.zeros_like(logits))


class BinaryVAE(nn.Module):
    """One layer of binary latents between linear maps (the "linear" model of Tucker et al. and of Dong et al.).

    Latents and pixels enter the maps as -1 and 1; the prior is uniform. Deviation: 20 latents, where they have 200.

    Args:
        mean: ``[pixel]``, mean image, with which the decoder begins.
        num_latents: K.
    """

    def __init__(self, mean: Float[Tensor, "pixel"], num_latents: int = 20) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(len(mean), num_latents), nn.Linear(num_latents, len(mean))
        nn.init.zeros_(self.encoder.bias)
        with torch.no_grad():
            self.decoder.bias.copy_(mean.clamp(0.001, 0.999).logit())

    def problem(self, images: Float[Tensor, "image pixel"], num_particles: int = 1) -> BinaryProblem:
        """The problem of binary images."""
        images = images.repeat_interleave(num_particles, 0)

        def log_likelihood(b: Tensor) -> Tensor:
            return -F.binary_cross_entropy_with_logits(self.decoder(2 * b - 1), images, reduction="none").sum(1)

        logits = self.encoder(2 * images - 1)
        return binary_problem(logits, log_likelihood, torch.zeros_like(logits[:1]), images, num_particles)
