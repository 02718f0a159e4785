"""The exact gradient: the count is summed out."""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Estimator, expected_categories
from .problem import StopProblem


class Exact(Estimator):
    """``-sum_n q(n) (A_n - log q(n))``: no sampling noise in n, at the price of N + 1 likelihoods.

    Where categories were sampled, they get a score function (`expected_categories`).
    """

    needs = "all"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The negative ELBO of the path; its value is the objective itself."""
        del generator
        return -problem.elbo() - expected_categories(problem)
