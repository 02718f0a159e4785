"""The interface of estimators, and the score-function surrogate that most of them share."""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from agents.estimators.problem import StopProblem

RETURN_SCALE = 100.0
"""Nats per unit of a baseline network's output: returns are hundreds of nats, networks like units."""


class Estimator(nn.Module):
    """Turns a `StopProblem` into a loss whose gradient estimates that of the negative ELBO.

    Args:
        context_dim: Number of features in `StopProblem.context`, for baselines that learn.
    """

    needs: ClassVar[Literal["all", "prefix"]]
    """Which ``A_n`` it reads: all of them, or those up to the sampled n."""
    unbiased: ClassVar[bool]
    """Whether the expected gradient is exactly that of the negative ELBO."""

    def __init__(self, context_dim: int) -> None:
        super().__init__()
        del context_dim

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of each image; its value means nothing, its gradient does."""
        raise NotImplementedError


def value_network(context_dim: int, hidden: int = 128) -> nn.Sequential:
    """A small network from context to a value in units of `RETURN_SCALE`, 0 at first."""
    output = nn.Linear(hidden, 1)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(nn.Linear(context_dim, hidden), nn.ReLU(), output, nn.Flatten(-2))


def score_function_loss(
    problem: StopProblem, n: Int[Tensor, "batch"], baseline: Float[Tensor, "batch step"]
) -> Float[Tensor, "batch"]:
    """The likelihood-ratio surrogate of Section 2.2 with one baseline per decision.

        -[ A_n + sum_{i <= n+1} sg(L_n - b_i) log Bernoulli(z_pres_i; p_i) ]

    Any baseline that does not depend on the presence of its own step leaves it unbiased. Values of the
    baseline beyond the steps reached are not read.
    """
    score = problem.at(n)
    reached, went_on = problem.reached(n), problem.went_on(n)
    final = (score - problem.log_q.gather(1, n[:, None])[:, 0]).detach()
    advantage = torch.where(reached, final[:, None] - baseline.detach(), 0.0)
    log_bernoulli = torch.where(went_on, problem.log_go, problem.log_stop)
    return -(score + (advantage * log_bernoulli).sum(1))


def squared_error(
    problem: StopProblem, n: Int[Tensor, "batch"], values: Float[Tensor, "batch step"], mask: Tensor
) -> Float[Tensor, "batch"]:
    """The regression of values to the return ``L_n`` where the mask holds, in units of `RETURN_SCALE`."""
    final = (problem.at(n) - problem.log_q.gather(1, n[:, None])[:, 0]).detach()
    error = torch.where(mask, final[:, None] - values, 0.0) / RETURN_SCALE
    return error.square().sum(1)


EstimatorFactory = Callable[[int], Estimator]
