"""Antithetic pairs: one uniform number for every presence decides on it in two episodes, which mirror each other.

    b_i = 1[u_i > 1 - p_i],    b'_i = 1[u_i < p_i],    n and n' objects,    f = L, of a pair on one path

    arm      g_i = (f - f') (u_i - 1/2)                                      Yin and Zhou (2019), Theorem 1
    disarm   g_i = (f - f') (b_i - b'_i) max(p_i, 1 - p_i) / 2               Dong, Mnih and Tucker (2020), Section 3
             where both episodes decide on step i; where one alone does,
             g_i = (f - f') (b_i - p_i) / 2, or (f' - f) (b'_i - p_i) / 2    Dong, Mnih and Tucker (2021)

Steps that neither episode comes to have no gradient; ARM's would have mean 0. DisARM is the mean of ARM over all u that
lead to the same decisions. It is unbiased: given either presence, ``(b_i - b'_i) max(p_i, 1 - p_i)`` is on average its
score, ``b_i - p_i`` or ``-(b'_i - p_i)``; and an episode that ended before step i knows nothing of u_i, so that its
value is a baseline for the other.

``L`` and not ``A - log p(n)`` beside the divergence of q(n), because it is a constant where q(n) is the posterior.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Estimator, logit_gradient_loss
from .problem import StopProblem


class ARM(Estimator):
    """Augment, REINFORCE, merge: the uniform number itself is the score."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of a pair of counts."""
        u = problem.uniform(generator)
        first, second = antithetic_pair(problem, u)
        return pair_loss(problem, first, second, u - 0.5)


class DisARM(Estimator):
    """ARM without the noise of the uniform number; where one episode outlasts the other, half of a score function."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of a pair of counts."""
        first, second = antithetic_pair(problem, problem.uniform(generator))
        n, m = problem.count(first), problem.count(second)
        go, stop = problem.log_go.exp(), problem.log_stop.exp()
        both = (first - second) * torch.maximum(go, stop)
        one = torch.where((n > m)[:, None], torch.where(first > 0, stop, -go), torch.where(second > 0, -stop, go))
        weight = torch.where(problem.reached(torch.minimum(n, m)), both, one) / 2
        return pair_loss(problem, first, second, weight)


def antithetic_pair(
    problem: StopProblem, u: Float[Tensor, "batch step"]
) -> tuple[Float[Tensor, "batch step"], Float[Tensor, "batch step"]]:
    """The presences that ``u`` and ``1 - u`` decide on."""
    logits = problem.logits.detach()
    return (u > (-logits).sigmoid()).to(u.dtype), (u < logits.sigmoid()).to(u.dtype)


def pair_loss(
    problem: StopProblem,
    first: Float[Tensor, "batch step"],
    second: Float[Tensor, "batch step"],
    weight: Float[Tensor, "batch step"],
) -> Float[Tensor, "batch"]:
    """The surrogate of the gradient ``(f - f') weight`` of the steps that either episode comes to.

    All else has the gradient that it has in the mean of both episodes.
    """
    n, m = problem.count(first), problem.count(second)
    difference = (problem.value(n) - problem.value(m))[:, None]
    gradient = torch.where(problem.reached(torch.maximum(n, m)), difference * weight, 0.0)
    return (logit_gradient_loss(problem, n, gradient) + logit_gradient_loss(problem, m, gradient)) / 2
