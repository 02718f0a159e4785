"""Estimators that score several counts on one path, whose steps they share.

rloo      K counts, each the others' baseline                Kool, van Hoof and Welling (2019)
vargrad   half the variance of log q - A over K counts       Richter et al. (2020)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Estimator, category_surrogate
from .problem import StopProblem


class RLOO(Estimator):
    """``-1/K sum_k [A_k + sg(L_k - mean of the others' L) log q(n_k)]``.

    The counts share the path, and with it the categories, whose baseline is the value of stopping before them.
    """

    needs = "prefix"
    unbiased = True
    num_samples: int = 4
    """K (our choice)."""

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of K sampled counts."""
        counts = [problem.sample(generator) for _ in range(self.num_samples)]
        value = torch.stack([problem.value(n) for n in counts])
        advantage = (value - value.mean(0)) * (self.num_samples / (self.num_samples - 1))
        presences = (advantage * torch.stack([problem.log_q_at(n) for n in counts])).mean(0)
        return -(presences + mean_score(problem, counts))


class VarGrad(RLOO):
    """``1/2 Var_k[log q(n_k) - sg(A_k)] - 1/K sum_k A_k``: the gradient of `RLOO`, from a loss that has a meaning."""

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of K sampled counts."""
        counts = [problem.sample(generator) for _ in range(self.num_samples)]
        difference = torch.stack([problem.log_q_at(n) - problem.at(n).detach() for n in counts])
        return difference.var(0) / 2 - mean_score(problem, counts)


def mean_score(problem: StopProblem, counts: list[Tensor]) -> Float[Tensor, "batch"]:
    """The mean of ``A_n`` over counts, with the gradient of sampled categories."""
    stop = problem.stop_values()
    return torch.stack([problem.at(n) + category_surrogate(problem, n, stop) for n in counts]).mean(0)
