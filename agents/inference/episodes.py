"""Whole episodes: sampled from the agent, and dreamt by its model."""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from air_env.explanation import Explanation, Images
from air_env.vector_env import AIRSceneVectorEnv

from .agent import Agent, First, S
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
        log_q_pres = F.logsigmoid(torch.where(z_pres, logit, -logit))
        log_q = log_q + torch.where(active, log_q_pres + torch.where(z_pres, z.log_q, 0.0), 0.0)
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
    log_q_scene, log_q_pres, log_q_latents = recall(agent, images, z, any_order=any_order)
    return log_q_scene + (log_q_pres + log_q_latents).sum(1)


def recall(
    agent: Agent, images: Images, z: Explanation, *, any_order: bool = False
) -> tuple[Float[Tensor, "scene"], Float[Tensor, "scene step"], Float[Tensor, "scene step"]]:
    """What q thinks, with gradient, of the latents of scenes that are known.

    Args:
        agent: Who is asked.
        images: The scenes.
        z: What they are made of.
        any_order: As for `dream`.

    Returns:
        ``log q`` of ``z_scene``, of the presence of every step, and of its ``z_where`` and ``z_what``; 0 once the
        episode is over.
    """
    active = torch.ones(len(images), dtype=torch.bool, device=images.device)
    state, scene = agent.describe_scene(agent.initial(images), partial(_given, z.z_scene))
    pres, latents = [], []
    for i in range(z.z_pres.shape[1]):
        state, logit, first = agent.decide(state)
        if any_order:
            z = _most_probable_next(agent, state, first, z, i)
        given = agent.describe_object(state, first, partial(_given, z.z_where[:, i]), partial(_given, z.z_what[:, i]))
        present = z.z_pres[:, i] > 0
        pres.append(torch.where(active, F.logsigmoid(torch.where(present, logit, -logit)), 0.0))
        latents.append(torch.where(active & present, given.log_q, 0.0))
        state, active = agent.remember(state, given.z_where, given.z_what), present
    return scene.posterior.log_prob(scene.z_scene), torch.stack(pres, 1), torch.stack(latents, 1)


@torch.no_grad()
def _most_probable_next(agent: Agent[S, First], state: S, first: First, z: Explanation, step: int) -> Explanation:
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
