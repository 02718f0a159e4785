"""The agent in its environment: unstopped rollouts for training, sampled episodes for use."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from agents.air import AIR
from agents.estimators import StopProblem
from agents.estimators.base import RETURN_SCALE
from agents.networks import Gaussian, Posterior, repeated, stack
from air_env.model import RewardTerms
from air_env.vector_env import AIRSceneVectorEnv


def context_dim(agent: AIR) -> int:
    """Number of features in the context of an agent's `StopProblem`."""
    return agent.config.hidden + 1


@dataclass(frozen=True)
class Rollout:
    """N steps with presence forced to 1; everything is ``[path, step, ...]``.

    There is one path for each image, or, where categories are enumerated, one for each sequence of N
    categories: the paths of an image follow each other.

    Attributes:
        agent: Who acted.
        num_paths: Paths for each image.
        log_p_x_empty: ``[batch]``, ``log p(x | c_0)``.
        logits: Presence logits.
        where: Posterior of ``z_where``.
        what: Posterior of ``z_what``.
        z_where: Its sample.
        z_what: Its sample.
        rewards: What the environment paid.
        hidden: The core's output, a function of (x, z_<i).
    """

    agent: AIR
    num_paths: int
    log_p_x_empty: Float[Tensor, "batch"]
    logits: Float[Tensor, "batch step"]
    where: Gaussian
    what: Posterior
    z_where: Float[Tensor, "batch step where"]
    z_what: Tensor
    rewards: RewardTerms
    hidden: Float[Tensor, "batch step hidden"]

    @cached_property
    def log_p_x(self) -> Float[Tensor, "batch count"]:
        """``log p(x | c_n)`` of every prefix, n = 0..N."""
        return torch.cat([self.log_p_x_empty[:, None], self.rewards.likelihood_gain], 1).cumsum(1)

    @cached_property
    def kl_where(self) -> Float[Tensor, "batch step"]:
        """Divergence of the posterior of ``z_where`` from its prior."""
        return self.where.kl(self.agent.model.prior_where)

    @cached_property
    def kl_what(self) -> Float[Tensor, "batch step"]:
        """Divergence of the posterior of ``z_what`` from its prior."""
        prior: Any = self.agent.model.prior_what  # of the same kind as the posterior
        return self.what.kl(prior)

    def problem(self, *, analytic_kl: bool = True) -> StopProblem:
        """What an estimator of the stop action sees.

        Args:
            analytic_kl: Deviation: replaces ``log p(z_i) - log q(z_i)`` by its expectation, which the path
                determines as well and which has less variance. False leaves ``A_n`` a log importance weight.
        """
        if analytic_kl:
            latents = -(self.kl_where + self.kl_what)
        else:
            log_p = self.rewards.log_p_z_where + self.rewards.log_p_z_what
            latents = log_p - self.where.log_prob(self.z_where) - self.what.log_prob(self.z_what)
        steps = self.rewards.likelihood_gain + self.rewards.log_p_z_pres + latents
        log_p_stop = self.agent.model.log_p_stop
        scores = torch.cat([self.log_p_x_empty[:, None], steps], 1).cumsum(1) + log_p_stop
        # What is still unexplained tells most about what going on may gain.
        context = torch.cat([self.hidden, self.log_p_x[:, :-1, None] / RETURN_SCALE], 2)
        log_q_what = self.what.log_prob(self.z_what) if self.agent.categorical else None
        return StopProblem(self.logits, scores, log_p_stop, context.detach(), log_q_what, self.num_paths)


def unstopped_rollout(
    agent: AIR,
    envs: AIRSceneVectorEnv,
    noise: Float[Tensor, "batch step latent"],
    *,
    enumerate_categories: bool = False,
) -> Rollout:
    """Acts on the environments' current images for all N steps, with presence forced to 1.

    What the environment answers does not change the plan, which is handed to it whole.

    Args:
        agent: Who acts; the environments must pay by its model.
        envs: Just reset.
        noise: Standard normal, ``[num_envs, N, where + what]``; 0 follows the posterior modes.
        enumerate_categories: Every step takes every category instead of a sampled one. Paths branch, so that
            step i is computed once for each sequence of the categories before it.
    """
    noise_where, noise_what = noise.split([agent.model.where_dim, agent.what_size], 2)
    state = agent.initial(envs.state.images)
    steps: list[tuple[Tensor, Gaussian, Posterior, Tensor, Tensor, Tensor]] = []
    for i in range(noise.shape[1]):
        state, logit, where = agent.decide(state)
        z_where = where.sample(repeated(noise_where[:, i], len(logit)))
        what = agent.describe(state.images, z_where)
        branch = (logit, where, what, z_where, state.hidden)
        if enumerate_categories:
            rows = torch.arange(len(logit), device=logit.device).repeat_interleave(agent.what_size)
            z_what = torch.arange(len(rows), device=logit.device) % agent.what_size
            state = state.select(rows)
        else:
            z_what = what.sample(noise_what[:, i])
        state = agent.remember(state, repeated(z_where, len(z_what)), z_what)
        steps.append((*branch, z_what))
    num_rows = len(state.images)
    logits, wheres, whats, z_wheres, hidden, z_whats = (
        stack([repeated(part, num_rows) for part in parts]) for parts in zip(*steps, strict=True)
    )
    return Rollout(
        agent=agent,
        num_paths=num_rows // envs.num_envs,
        log_p_x_empty=repeated(envs.state.log_p_x, num_rows),
        logits=logits,
        where=wheres,
        what=whats,
        z_where=z_wheres,
        z_what=z_whats,
        rewards=envs.unroll(z_wheres, z_whats),
        hidden=hidden,
    )


@dataclass(frozen=True)
class Episodes:
    """Sampled episodes; sums over the steps of each.

    Attributes:
        returns: ``[batch]``, G, the sum of rewards.
        log_q: ``[batch]``, log-probability of the agent's choices.
        log_p_x_empty: ``[batch]``, the constant; ``returns - log_q + log_p_x_empty`` is an ELBO sample.
        count: ``[batch]``, number of objects.
    """

    returns: Float[Tensor, "batch"]
    log_q: Float[Tensor, "batch"]
    log_p_x_empty: Float[Tensor, "batch"]
    count: Int[Tensor, "batch"]


def sample_episodes(agent: AIR, envs: AIRSceneVectorEnv, generator: torch.Generator | None = None) -> Episodes:
    """Acts on the environments' current images until every episode ends, sampling every choice."""
    images = envs.state.images
    options = {"generator": generator, "dtype": images.dtype, "device": images.device}
    returns = log_q = images.new_zeros(len(images))
    log_p_x_empty, active, state = envs.state.log_p_x, envs.state.active, agent.initial(images)
    while active.any():
        state, logit, where = agent.decide(state)
        z_pres = (torch.rand(logit.shape, **options) < logit.sigmoid()) & active
        z_where = where.sample(torch.randn((len(images), agent.model.where_dim), **options))
        what = agent.describe(images, z_where)
        z_what = what.sample(torch.randn((len(images), agent.what_size), **options))
        state = agent.remember(state, z_where, z_what)
        log_q_pres = F.logsigmoid(torch.where(z_pres, logit, -logit))
        log_q_latents = torch.where(z_pres, where.log_prob(z_where) + what.log_prob(z_what), 0.0)
        log_q = log_q + torch.where(active, log_q_pres + log_q_latents, 0.0)
        _, rewards, done, _, _ = envs.step({"z_pres": z_pres, "z_where": z_where, "z_what": z_what})
        returns, active = returns + rewards, ~done
    return Episodes(returns, log_q, log_p_x_empty, envs.state.step)
