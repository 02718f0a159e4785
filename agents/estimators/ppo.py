"""Proximal policy optimisation, reinforcement learning's reference (Schulman et al., 2017; 2016).

    advantage   A_i = sum_{l >= 0} (gamma lambda)^l delta_{i+l},   gamma = 1        Schulman et al. (2016), Eq. 16
    surrogate   min(r_i A_i, clip(r_i, 1 - c, 1 + c) A_i),   r_i = p_i / p_i^old    Schulman et al. (2017), Eq. 7

An episode decides on a presence at every step. What it is paid includes ``-log q`` of its decisions, so that an
entropy bonus would count twice.

    ppo   clipped surrogate, generalised advantages, two passes over every batch
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .base import RETURN_SCALE, Estimator, category_surrogate, value_network
from .problem import StopProblem

MAX_LOG_RATIO = 20.0
"""Ratios beyond ``exp(20)`` have no gradient (Deviation: they would overflow)."""


@dataclass(frozen=True)
class FirstPass:
    """What later passes need to know of the first one, detached.

    Attributes:
        n: ``[batch]``, the sampled counts.
        log_prob: ``[batch, N]``, log-probability of each decision when it was taken; not to be read after the last.
        advantage: ``[batch, N]``, of each decision; 0 after the last.
        reward_to_go: ``[batch, N]``, collected from each decision on; not to be read after the last.
    """

    n: Int[Tensor, "batch"]
    log_prob: Float[Tensor, "batch step"]
    advantage: Float[Tensor, "batch step"]
    reward_to_go: Float[Tensor, "batch step"]


class PPO(Estimator):
    """The first pass over a batch samples counts, the second learns from them again.

    Given the noise of the latents, which is that of the first pass, an episode's decisions are all there is to choose,
    and ratios of their probabilities are importance weights. Latents have their pathwise gradient in both passes, and
    categories the score function of `category_surrogate`. When evaluating, every pass is a first one.
    """

    needs = "prefix"
    unbiased = False
    num_passes = 2
    lambda_ = 0.95
    """Decay of the advantages: 0 trusts the critic, 1 the episode (the paper's)."""
    clip = 0.2
    """How far a ratio may move from 1 (the paper's)."""

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.critic = value_network(context_dim)
        self._kept: FirstPass | None = None

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sampled count, and the critic's regression to the reward-to-go."""
        to_go = RETURN_SCALE * self.critic(problem.context)
        values = problem.returns_so_far() + to_go.detach()
        kept = self._kept if self.training else None
        episodes = play(problem, problem.sample(generator), values, self.lambda_) if kept is None else kept
        if self.training:
            self._kept = episodes if kept is None else None
        n, advantage = episodes.n, episodes.advantage
        ratio = (log_prob(problem, n) - episodes.log_prob).clamp_max(MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        presences = torch.minimum(ratio * advantage, clipped * advantage).sum(1)
        error = torch.where(problem.reached(n), episodes.reward_to_go - to_go, 0.0) / RETURN_SCALE
        return -(problem.at(n) + presences + category_surrogate(problem, n, values)) + error.square().sum(1)


def play(
    problem: StopProblem, n: Int[Tensor, "batch"], values: Float[Tensor, "batch step"], lambda_: float
) -> FirstPass:
    """What episodes of n objects collect, seen from a critic's values.

    Args:
        problem: The rollout.
        n: The count of each episode.
        values: What the critic expects an episode to return that reaches a step.
        lambda_: Of the advantages.
    """
    reached = problem.reached(n)
    # The state after a decision is worth what the critic says, or, where the episode is over, what it returned.
    later = torch.where(F.pad(reached[:, 1:], (0, 1)), F.pad(values[:, 1:], (0, 1)), problem.value(n)[:, None])
    delta = torch.where(reached, later - values, 0.0)
    steps = torch.arange(delta.shape[1], dtype=delta.dtype, device=delta.device)
    decay = (lambda_ ** (steps[:, None] - steps).clamp_min(0)).tril()
    reward_to_go = problem.value(n)[:, None] - problem.returns_so_far()
    return FirstPass(n, log_prob(problem, n).detach(), delta @ decay, reward_to_go)


def log_prob(problem: StopProblem, n: Int[Tensor, "batch"]) -> Float[Tensor, "batch step"]:
    """The log-probability of each decision of an episode of n objects; not to be read after the last."""
    return torch.where(problem.went_on(n), problem.log_go, problem.log_stop)
