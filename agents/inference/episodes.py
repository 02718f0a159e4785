"""Whole episodes: sampled from the agent, and dreamt by its model."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from air_env.explanation import Explanation
from air_env.vector_env import AIRSceneVectorEnv

from .agent import Agent
from .posteriors import Gaussian, Posterior


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


def sample_episodes(agent: Agent, envs: AIRSceneVectorEnv, generator: torch.Generator | None = None) -> Episodes:
    """Acts on the environments' current images until every episode ends, sampling every choice."""
    images = envs.state.images
    options = {"generator": generator, "dtype": images.dtype, "device": images.device}
    returns = log_q = images.new_zeros(len(images))
    log_p_x_empty, active = envs.state.log_p_x, envs.state.active

    def choose_gaussian(posterior: Gaussian) -> Tensor:
        return posterior.sample(torch.randn(posterior.mean.shape, **options))

    state, scene = agent.describe_scene(agent.initial(images), choose_gaussian)
    log_q = log_q + scene.posterior.log_prob(scene.z_scene)
    while active.any():
        uniform = torch.rand(len(images), **options)
        state, logit, first = agent.decide(state)
        z = agent.describe_object(
            state,
            first,
            choose_gaussian,
            lambda what: what.sample(torch.randn((len(images), agent.what_size), **options)),
        )
        z_pres = (uniform < logit.sigmoid()) & active
        state = agent.remember(state, z.z_where, z.z_what)
        log_q = log_q + _log_q_of_step(active, z_pres, logit, z.log_q)
        action = {"z_pres": z_pres, "z_where": z.z_where, "z_what": z.z_what, "z_scene": scene.z_scene}
        _, rewards, done, _, _ = envs.step(action)
        returns, active = returns + rewards, ~done
    return Episodes(returns, log_q, log_p_x_empty, envs.state.step)


def dream(
    agent: Agent, num_scenes: int, generator: torch.Generator | None = None, *, any_order: bool = False
) -> Float[Tensor, "scene"]:
    """``log q(z, n | x)`` of scenes from the model, with gradient (Hinton et al., 1995: the sleep phase).

    Args:
        agent: Who is asked about the scenes of its own model.
        num_scenes: How many.
        generator: Source of the scenes.
        any_order: The order of objects means nothing, and q need not find the one in which they were drawn. Takes at
            every step the object that q thinks most of: a lower bound of ``log sum_orders q``.
    """
    with torch.no_grad():
        images, z = agent.model.sample(num_scenes, generator)
    active, log_q = torch.ones(num_scenes, dtype=torch.bool, device=images.device), images.new_zeros(num_scenes)
    state, scene = agent.describe_scene(agent.initial(images), partial(_given, z.z_scene))
    log_q = log_q + scene.posterior.log_prob(scene.z_scene)
    for i in range(z.z_pres.shape[1]):
        state, logit, first = agent.decide(state)
        if any_order:
            z = _most_probable_next(agent, state, first, z, i)
        given = agent.describe_object(state, first, partial(_given, z.z_where[:, i]), partial(_given, z.z_what[:, i]))
        present = z.z_pres[:, i] > 0
        log_q = log_q + _log_q_of_step(active, present, logit, given.log_q)
        state, active = agent.remember(state, given.z_where, given.z_what), present
    return log_q


@torch.no_grad()
def _most_probable_next(agent: Agent, state: Any, first: Any, z: Explanation, step: int) -> Explanation:
    """Scenes with the object in the place of a step's, of those from there on, that q thinks most of."""
    log_q = []
    for j in range(step, z.z_pres.shape[1]):
        given = agent.describe_object(state, first, partial(_given, z.z_where[:, j]), partial(_given, z.z_what[:, j]))
        log_q.append(torch.where(z.z_pres[:, j] > 0, given.log_q, -torch.inf))
    rows, best = torch.arange(len(z.z_pres), device=z.z_pres.device), step + torch.stack(log_q, 1).argmax(1)
    order = torch.arange(z.z_pres.shape[1], device=rows.device).repeat(len(rows), 1)
    order[rows, best], order[:, step] = step, best
    return replace(z, z_where=z.z_where[rows[:, None], order], z_what=z.z_what[rows[:, None], order])


def _given(value: Tensor, posterior: Posterior) -> Tensor:
    del posterior
    return value


def _log_q_of_step(active: Tensor, present: Tensor, logit: Tensor, log_q_latents: Tensor) -> Tensor:
    """Log-probability of a step's choices; 0 where the episode is over."""
    log_q_pres = F.logsigmoid(torch.where(present, logit, -logit))
    return torch.where(active, log_q_pres + torch.where(present, log_q_latents, 0.0), 0.0)
