"""Reweighted wake-sleep (Bornschein and Bengio, 2015; Le et al., 2020), on K paths of fixed latents.

The paths of an image stand for the posterior, with the weights ``v_k = w_k / sum_j w_j``. No gradient passes through
a sample, and the model and q have losses of their own:

    model    -sum_k sg(v_k) log p(x, z_k, n_k)       wake phase

                    q                                                  counts from
    rws_wake_wake   -sum_k sg(v_k) log q(z_k, n_k | x), wake phase     q(n)
    rws_wake_sleep  -log q(z, n | x) of a scene of the model, sleep    q(n)
    rws_defensive   as rws_wake_wake                                   (1 - share) q(n) + share / (N + 1)
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .base import Estimator
from .multi_sample import NUM_PARTICLES, per_particle
from .problem import StopProblem


class WakeWake(Estimator):
    """Both learn from the weighted paths: q covers what the model finds probable."""

    needs = "prefix"
    unbiased = False
    num_particles = NUM_PARTICLES
    reparameterised = False

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The wake-phase loss of the model and of q."""
        n = problem.sample(generator)
        return wake_phase(problem, n, problem.log_q_at(n), log_joint(problem, n) + log_posterior(problem, n))


class WakeSleep(Estimator):
    """q learns from scenes whose objects are known, because the model has just drawn them (Hinton et al., 1995).

    A count prior that all but excludes objects makes for empty scenes, from which q learns nothing about them.
    """

    needs = "prefix"
    unbiased = False
    num_particles = NUM_PARTICLES
    reparameterised = False

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The wake-phase loss of the model and the sleep-phase loss of q.

        Raises:
            ValueError: There is no model to draw scenes from.
        """
        if problem.dream is None:
            raise ValueError(
                "rws_wake_sleep trains q on scenes drawn from the model, and this problem has none (its dream is "
                "None); take a problem of a rollout, or rws_wake_wake"
            )
        n = problem.sample(generator)
        return wake_phase(problem, n, problem.log_q_at(n), log_joint(problem, n)) - problem.dream(generator)


class Defensive(Estimator):
    """Wake-wake with counts from a mixture, for which the weights are corrected (Le et al., 2020; Hesterberg, 1995).

    A count that q has given up is still tried, and learned again if it explains the image. Latents are drawn from q.
    """

    needs = "all"  # of the scores, also those beyond the count that q itself would have drawn
    unbiased = False
    num_particles = NUM_PARTICLES
    reparameterised = False
    share = 0.2
    """Share of the uniform distribution over counts (the paper's delta)."""

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The wake-phase loss of the model and of q."""
        num_counts = problem.scores.shape[1]
        own = problem.sample(generator)
        mixed, other = (problem.uniform(generator)[:, 0] for _ in range(2))
        n = torch.where(mixed < self.share, (other * num_counts).long().clamp_max(num_counts - 1), own)
        log_q = problem.log_q_at(n)
        log_uniform = torch.full_like(log_q, math.log(self.share / num_counts))
        log_mixture = torch.logaddexp(log_q + math.log1p(-self.share), log_uniform)
        return wake_phase(problem, n, log_mixture, log_joint(problem, n) + log_posterior(problem, n))


def wake_phase(
    problem: StopProblem, n: Int[Tensor, "batch"], log_drawn: Float[Tensor, "batch"], values: Float[Tensor, "batch"]
) -> Float[Tensor, "image"]:
    """``-sum_k sg(v_k) values_k``, for counts drawn with a given log-probability."""
    weights = per_particle(problem, (problem.at(n) - log_drawn).detach()).softmax(1)
    return -(weights * per_particle(problem, values)).sum(1)


def log_joint(problem: StopProblem, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """``log p(x, z_1..n, n)`` of fixed latents: a function of the model alone."""
    return problem.at(n) + _log_q_latents(problem, n)


def log_posterior(problem: StopProblem, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """``log q(z_1..n, n | x)`` of fixed latents, categories included: a function of q alone."""
    return problem.log_q_at(n) + _log_q_latents(problem, n)


def _log_q_latents(problem: StopProblem, n: Tensor) -> Tensor:
    if problem.log_q_latents is None:
        raise ValueError(
            "this estimator learns from fixed latents and needs their log_q_latents, which are None; roll out with "
            "reparameterised=False"
        )
    return problem.log_q_latents.gather(1, n[:, None])[:, 0]
