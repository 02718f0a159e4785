"""Straight through: what half an object more would change, at the presences that were sampled.

    g_i = J_i df/db_i,    f(b) = A - log p(n) where b are gates (`StopProblem.soft`)

    straight_through   J_i = p_i (1 - p_i)        Bengio, Léonard and Courville (2013)
    reinmax            J_i = |b_i - p_i| / 2      Liu et al. (2023), with two values and temperature 1

ReinMax takes the slope between b_i = 0 and 1 for the mean of the slopes at both (Heun's method), which it is where f is
quadratic in each gate: with a Gaussian likelihood of a canvas to which objects add up. Both are biased elsewhere. What
n costs, the divergence of q(n) from p(n), has its exact gradient.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Estimator, logit_gradient_loss, soft_and_slope
from .problem import StopProblem


class StraightThrough(Estimator):
    """As if a presence were its probability."""

    needs = "soft"
    unbiased = False

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sample of the presences."""
        jacobian = (problem.log_go + problem.log_stop).exp()
        return straight_through_loss(problem, problem.presences(generator), jacobian)


class ReinMax(Estimator):
    """The same to second order: each sample has half of its slope, by how improbable the other one was."""

    needs = "soft"
    unbiased = False

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sample of the presences."""
        presences = problem.presences(generator)
        jacobian = torch.where(presences > 0, problem.log_stop, problem.log_go).exp() / 2
        return straight_through_loss(problem, presences, jacobian)


def straight_through_loss(
    problem: StopProblem, presences: Float[Tensor, "batch step"], jacobian: Float[Tensor, "batch step"]
) -> Float[Tensor, "batch"]:
    """The surrogate of the gradient ``J_i df/db_i`` at sampled presences, and the divergence of q(n)."""
    _, slope = soft_and_slope(problem, presences)
    return logit_gradient_loss(problem, problem.count(presences), jacobian * slope) + problem.kl_count()
