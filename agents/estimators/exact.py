"""The exact gradient: the count is summed out."""

import torch
from jaxtyping import Float
from torch import Tensor

from agents.estimators.base import Estimator
from agents.estimators.problem import StopProblem


class Exact(Estimator):
    """``-sum_n q(n) (A_n - log q(n))``: no sampling noise in n, at the price of N + 1 likelihoods.

    Where categories were sampled, they get a score function: the choice of step i is weighed by
    ``sum_{n >= i} q(n) (L_n - L_{i-1})``.
    """

    needs = "all"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The negative ELBO of the path; its value is the objective itself."""
        del generator
        if not problem.samples_categories:
            return -problem.elbo()
        assert problem.log_q_what is not None
        # What follows the choice of category i: the returns of all n >= i; before it, L_{i-1} was to be had.
        weighted = (problem.log_q.exp() * (problem.scores - problem.log_q))[:, 1:]
        mass = problem.log_q.exp()[:, 1:].flip(1).cumsum(1).flip(1)
        advantage = weighted.flip(1).cumsum(1).flip(1) - mass * problem.stop_values()
        return -problem.elbo() - (advantage.detach() * problem.log_q_what).sum(1)
