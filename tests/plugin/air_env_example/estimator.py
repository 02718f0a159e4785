"""A score-function estimator whose baseline is half the value of stopping now."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from air_agents.estimators import Estimator, StopProblem
from air_agents.estimators.base import score_function_loss


class Midpoint(Estimator):
    """Baseline: halfway between nothing and the value of stopping now.

    It draws through the problem (`sample`, `presences`, `uniform`), so that `check_estimator` can enumerate it.
    """

    needs: ClassVar = "prefix"
    unbiased: ClassVar = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of each path."""
        return score_function_loss(problem, problem.sample(generator), problem.stop_values() / 2)
