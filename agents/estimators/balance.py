"""Estimators that fit q to what it should be, ``q(n)`` proportional to ``exp(A_n)``.

trajectory_balance   (log Z + log q(n) - A_n) ** 2            Malkin et al. (2022)
exact_wake           cross-entropy from softmax(A) to q       Bornschein and Bengio (2015), with n summed out
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import RETURN_SCALE, Estimator, category_surrogate, expected_categories, value_network
from .problem import StopProblem


class TrajectoryBalance(Estimator):
    """Half the squared difference between both sides of ``Z(x) q(n) = exp(A_n)``, with ``log Z`` learned.

    On policy, as here, its expected gradient is that of the ELBO, with ``log Z`` as a baseline.
    """

    needs = "prefix"
    unbiased = True

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.log_z = value_network(context_dim)

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count, in which log Z learns as well."""
        n = problem.sample(generator)
        # The first step's context knows the image, and nothing of what was drawn.
        log_z = RETURN_SCALE * self.log_z(problem.context[:, :1])[:, 0]
        difference = log_z + problem.log_q_at(n) - problem.at(n).detach()
        categories = category_surrogate(problem, n, log_z[:, None].expand_as(problem.logits))
        return difference.square() / 2 - problem.at(n) - categories


class ExactWake(Estimator):
    """``-log sum_n exp(A_n) - sum_n sg(softmax(A))_n log q(n)``: q follows the posterior over n of the path.

    Another objective than the ELBO: its q covers what is possible, instead of choosing what is safe.
    """

    needs = "all"
    unbiased = False

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The loss of the path; categories learn as those of `Exact`."""
        del generator
        posterior = problem.all().detach().softmax(1)
        return -problem.all().logsumexp(1) - (posterior * problem.log_q).sum(1) - expected_categories(problem)
