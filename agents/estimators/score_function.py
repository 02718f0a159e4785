"""Score-function estimators: one episode's count, and a baseline for every decision.

All but the last learn from the same return, the environment's: the reward-to-go of a decision, that is what was paid
after it, without the rewards before it and without the constant log p(x | c_0), which no environment pays. With ``R_i``
what was collected before step i (`StopProblem.returns_so_far`), they differ in the baseline ``b_i`` of its decision, a
function of (x, z_<i):

    reinforce              R_i                             Williams (1992)
    moving_average         R_i + mean reward-to-go so far  Williams (1992)
    nvil                   R_i + learned                   Mnih and Gregor (2014), the paper's
    stop_now               L_{i-1}                         the value of stopping now, which is known
    half_critic            p_i L_{i-1} + (1 - p_i) V_i     V_i: the value of going on, learned
    reinforce_whole_return 0                               whole log-joint for every decision, for comparison
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .base import RETURN_SCALE, Estimator, score_function_loss, squared_error, value_network
from .problem import StopProblem


class Reinforce(Estimator):
    """The reward-to-go of every decision, and nothing learned."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count."""
        return score_function_loss(problem, problem.sample(generator), problem.returns_so_far())


class ReinforceWholeReturn(Estimator):
    """The whole log-joint weighs every decision, what no decision can change included: unbiased, of huge variance."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count."""
        return score_function_loss(problem, problem.sample(generator), torch.zeros_like(problem.logits))


class MovingAverage(Estimator):
    """One number for all images and steps: the running mean of the rewards-to-go of earlier batches."""

    needs = "prefix"
    unbiased = True
    decay = 0.95
    mean: Tensor
    weight: Tensor

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count."""
        n = problem.sample(generator)
        before, reached = problem.returns_so_far(), problem.reached(n)
        # The weight corrects for the zero that the mean began with; the sum is a copy: the mean goes on.
        loss = score_function_loss(problem, n, before + self.mean / self.weight.clamp_min(1 - self.decay))
        if self.training:
            to_go = torch.where(reached, problem.value(n)[:, None] - before, 0.0).sum() / reached.sum()
            self.mean.lerp_(to_go.to(self.mean.dtype), 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        return loss


class NVIL(Estimator):
    """A baseline learned by regression to the reward-to-go (Mnih and Gregor, 2014; Section 2.2)."""

    needs = "prefix"
    unbiased = True

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.baseline = value_network(context_dim)

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count, and the baseline's regression loss."""
        n = problem.sample(generator)
        baseline = problem.returns_so_far() + RETURN_SCALE * self.baseline(problem.context)
        return score_function_loss(problem, n, baseline) + squared_error(problem, n, baseline, problem.reached(n))


class StopNow(Estimator):
    """The value of stopping now as baseline: nothing to learn; an advantage is what going on gains."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count."""
        return score_function_loss(problem, problem.sample(generator), problem.stop_values())


class HalfCritic(Estimator):
    """The variance-free mix of the known value of stopping and a learned value of going on.

    With ``S`` the value of stopping and ``V`` that of going on, the baseline ``p S + (1 - p) V`` makes
    the gradient ``p (1 - p) (V - S)`` on both branches. Only V has to be learned, from the episodes
    that go on; it is learned as what going on gains over stopping, so that before any learning the
    estimator is `StopNow`.
    """

    needs = "prefix"
    unbiased = True

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.gain = value_network(context_dim)

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count, and the critic's regression loss."""
        n = problem.sample(generator)
        stop = problem.stop_values()
        go = stop + RETURN_SCALE * self.gain(problem.context)
        baseline = torch.lerp(go, stop, problem.logits.sigmoid())
        return score_function_loss(problem, n, baseline, go) + squared_error(problem, n, go, problem.went_on(n))
