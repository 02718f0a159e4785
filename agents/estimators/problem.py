"""`StopProblem`: what an estimator of the stop action's gradient gets to see.

One *unstopped* rollout takes all N steps with presence forced to 1, so every count n = 0..N can be
scored from one path. Given that path only n is random, with

    q(n) = prod_{i <= n} p_i * (1 - p_{n+1}),   p_i = sigmoid(logit_i),   q(N) = prod_i p_i,
    A_n = log p(x, z_1..n, n) - log q(z_1..n | x),    L_n = A_n - log q(n),

and the ELBO of the path is ``sum_n q(n) L_n``.

Relaxed estimators see the same path with objects that are partly there: `StopProblem.soft`. Multi-sample estimators see
several independent paths for each image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from air_env.priors import hazards


def log_q_of_counts(
    log_go: Float[Tensor, "batch step"], log_stop: Float[Tensor, "batch step"]
) -> Float[Tensor, "batch count"]:
    """``log q(n)``, n = 0..N, of the log-probabilities of going on and of stopping."""
    return F.pad(log_go.cumsum(1), (1, 0)) + F.pad(log_stop, (0, 1))


@dataclass(frozen=True)
class CategoryValues:
    """What categories were found to be worth before one was drawn, as a control variate; ``[batch, N]``, nats.

    Attributes:
        chosen: Of the category on the path.
        expected: The expectation under q, with the graph of q.
    """

    chosen: Float[Tensor, "batch step"]
    expected: Float[Tensor, "batch step"]


@dataclass(frozen=True)
class StopProblem:
    """A batch of unstopped rollouts, with their graphs.

    Attributes:
        logits: ``[batch, N]``, presence logits; step i depends on the latents before it.
        scores: ``[batch, N + 1]``, ``A_n``.
        log_p_count: ``[N + 1]``, ``log p(n)``.
        context: ``[batch, N, features]``, detached features of (x, z_<i) for learned baselines. They do
            not contain the presence of the same step, which would bias them.
        log_q_what: ``[batch, N]``, log-probability of the categories on the path, with graph; None where
            ``z_what`` is continuous.
        what_values: What is known of the categories' worth, where they were sampled; it must not depend on the one that
            was drawn.
        num_paths: How many paths there are for each image. One, with sampled categories; or one for each
            sequence of categories, of which ``log_q_what`` says how probable it is.
        num_particles: How many independent paths there are for each image; they follow each other.
        log_q_latents: ``[batch, N + 1]``, ``log q(z_1..n | x)`` of fixed latents; None where they are reparameterised.
        relaxed: What `soft` computes; None where half an object means nothing.
        dream: Draws scenes from the model and gives ``log q(z, n | x)`` of each, ``[image]``; None without a model.
    """

    logits: Float[Tensor, "batch step"]
    scores: Float[Tensor, "batch count"]
    log_p_count: Float[Tensor, "count"]
    context: Float[Tensor, "batch step feature"]
    log_q_what: Float[Tensor, "batch step"] | None = None
    what_values: CategoryValues | None = None
    num_paths: int = 1
    num_particles: int = 1
    log_q_latents: Float[Tensor, "batch count"] | None = None
    relaxed: Callable[[Tensor], Tensor] | None = None
    dream: Callable[[torch.Generator | None], Tensor] | None = None

    @cached_property
    def log_go(self) -> Float[Tensor, "batch step"]:
        """``log p_i``: the log-probability of going on."""
        return F.logsigmoid(self.logits)

    @cached_property
    def log_stop(self) -> Float[Tensor, "batch step"]:
        """``log(1 - p_i)``: the log-probability of stopping."""
        return F.logsigmoid(-self.logits)

    @cached_property
    def log_q(self) -> Float[Tensor, "batch count"]:
        """``log q(n)``."""
        return log_q_of_counts(self.log_go, self.log_stop)

    @cached_property
    def log_p_stop(self) -> Float[Tensor, "count"]:
        """``log p(z_pres = 0 | n)`` of the count prior."""
        return hazards(self.log_p_count)[1]

    def all(self) -> Float[Tensor, "batch count"]:
        """``A_n`` of every count: N + 1 likelihoods."""
        return self.scores

    def at(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``A_n`` of one count each."""
        return self.scores.gather(1, n[:, None])[:, 0]

    def log_q_at(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``log q(n)`` of one count each."""
        return self.log_q.gather(1, n[:, None])[:, 0]

    def log_p_at(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``log p(n)`` of one count each."""
        return self.log_p_count[n]

    def value(self, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """``L_n`` of one count each, detached: what an episode of n objects returns."""
        return (self.at(n) - self.log_q_at(n)).detach()

    def soft(self, gates: Float[Tensor, "batch step"]) -> Float[Tensor, "batch"]:
        """``A - log p(n)`` with objects that are partly there, differentiable in the gates.

        Object i is there to the extent of ``prod_{j <= i} gates_j``. Gates of 1 for n steps and of 0 for the next
        give ``A_n - log p(n)``.

        Raises:
            ValueError: The scene has no objects that are partly there.
        """
        if self.relaxed is None:
            raise ValueError(
                "this renderer draws whole objects only, and a relaxed estimator needs half ones; choose one that "
                "samples the count, such as half_critic"
            )
        return self.relaxed(gates.cumprod(1))

    def kl_count(self) -> Float[Tensor, "batch"]:
        """The divergence of q(n) from p(n): the part of the ELBO that `soft` leaves out."""
        return (self.log_q.exp() * (self.log_q - self.log_p_count)).sum(1)

    def elbo(self) -> Float[Tensor, "batch"]:
        """The ELBO of the path, with n summed out."""
        return (self.log_q.exp() * (self.all() - self.log_q)).sum(1)

    @property
    def samples_categories(self) -> bool:
        """Whether categories were sampled, so that their choice needs a gradient of its own."""
        return self.log_q_what is not None and self.num_paths == 1

    def path_probabilities(self) -> Float[Tensor, "batch"]:
        """How probable each of an image's paths is; 1 where there is one, that was sampled."""
        if self.num_paths == 1 or self.log_q_what is None:
            return torch.ones_like(self.scores[:, 0])
        return self.log_q_what.sum(1).exp()

    def per_image(self, values: Float[Tensor, "batch"]) -> Float[Tensor, "image"]:
        """The expectation over an image's paths."""
        return (self.path_probabilities() * values).unflatten(0, (-1, self.num_paths)).sum(1)

    def uniform(self, generator: torch.Generator | None = None) -> Float[Tensor, "batch step"]:
        """Draws a number from [0, 1) for every presence."""
        like = self.logits
        return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def presences(self, generator: torch.Generator | None = None) -> Float[Tensor, "batch step"]:
        """Draws all N presences, 0 or 1: also those after the first 0, which an episode never comes to decide."""
        return (self.uniform(generator) < self.logits.detach().sigmoid()).to(self.logits.dtype)

    def sample(self, generator: torch.Generator | None = None) -> Int[Tensor, "batch"]:
        """Draws n from q(n)."""
        return self.count(self.presences(generator))

    def count(self, presences: Float[Tensor, "batch step"]) -> Int[Tensor, "batch"]:
        """The n that presences, 0 or 1, lead to."""
        return count(presences)

    def reached(self, n: Int[Tensor, "batch"]) -> Bool[Tensor, "batch step"]:
        """Which presences an episode of n objects decides: those of the steps i <= n + 1."""
        return torch.arange(self.logits.shape[1], device=n.device) <= n[:, None]

    def went_on(self, n: Int[Tensor, "batch"]) -> Bool[Tensor, "batch step"]:
        """Which presences an episode of n objects decides for another object: i <= n."""
        return torch.arange(self.logits.shape[1], device=n.device) < n[:, None]

    def stop_values(self) -> Float[Tensor, "batch step"]:
        """``L_{i-1}``, detached: what an episode returns that stops at step i."""
        return (self.scores - self.log_q).detach()[:, :-1]

    def returns_so_far(self) -> Float[Tensor, "batch step"]:
        """What an episode that reaches step i has collected before it decides on it, detached.

        ``L_n`` minus this is the reward-to-go of step i.
        """
        return self.stop_values() - (self.log_p_stop[:-1] - self.log_stop).detach()


def count(presences: Float[Tensor, "batch step"]) -> Int[Tensor, "batch"]:
    """The number of objects before the first absent one."""
    return presences.long().cumprod(1).sum(1)
