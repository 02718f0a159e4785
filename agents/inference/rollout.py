"""The agent in its environment, for training: unstopped rollouts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation, Images
from air_env.rewards import RewardTerms
from air_env.vector_env import AIRSceneVectorEnv

from ..estimators import CategoryValues, StopProblem
from ..estimators.base import RETURN_SCALE
from .agent import Agent, Choose
from .episodes import dream
from .latents import SceneLatent
from .posteriors import Categorical, Gaussian, Posterior, repeated, stack


def context_dim(agent: Agent) -> int:
    """Number of features in the context of an agent's `StopProblem`."""
    return agent.hidden_size + 1


@dataclass(frozen=True)
class Rollout:
    """N steps with presence forced to 1; everything is ``[path, step, ...]``.

    There is one path for each image and particle, or, where categories are enumerated, one for each sequence of N
    categories: the paths of an image follow each other.

    Attributes:
        agent: Who acted.
        images: What was explained, for each path.
        num_paths: Paths for each image and particle.
        num_particles: Independent draws of noise for each image.
        reparameterised: Whether latents carry the gradient of the network that drew them.
        log_p_x_black: ``[batch]``, ``log p(x | c_0)``, before the first action.
        log_p_x_empty: ``[batch]``, ``log p(x)`` of the scene without objects.
        scene: What was chosen of ``z_scene``.
        logits: Presence logits.
        where: Posterior of ``z_where``.
        what: Posterior of ``z_what``.
        z: Samples of all latents, with all objects present.
        rewards: What the environment paid.
        hidden: The core's output, a function of (x, z_<i).
        values: ``[path, step, category]``, what categories were found to gain, where that is known.
    """

    agent: Agent
    images: Images
    num_paths: int
    num_particles: int
    reparameterised: bool
    log_p_x_black: Float[Tensor, "batch"]
    log_p_x_empty: Float[Tensor, "batch"]
    scene: SceneLatent
    logits: Float[Tensor, "batch step"]
    where: Gaussian
    what: Posterior
    z: Explanation
    rewards: RewardTerms
    hidden: Float[Tensor, "batch step hidden"]
    values: Float[Tensor, "batch step category"] | None = None

    @cached_property
    def log_p_x(self) -> Float[Tensor, "batch count"]:
        """``log p(x | c_n)`` of every prefix, n = 0..N."""
        return self.rewards.log_p_x(self.log_p_x_black, self.log_p_x_empty)

    @cached_property
    def kl_scene(self) -> Float[Tensor, "batch"]:
        """Divergence of the posterior of ``z_scene`` from its prior."""
        return self.scene.posterior.kl(self.agent.model.prior_scene)

    @cached_property
    def kl_where(self) -> Float[Tensor, "batch step"]:
        """Divergence of the posterior of ``z_where`` from its prior."""
        return self.where.kl(self.agent.model.prior_where)

    @cached_property
    def kl_what(self) -> Float[Tensor, "batch step"]:
        """Divergence of the posterior of ``z_what`` from its prior."""
        return self.what.kl(self.agent.model.prior_what)

    def problem(self, *, analytic_kl: bool = True) -> StopProblem:
        """What an estimator of the stop action sees.

        Args:
            analytic_kl: Deviation: replaces ``log p(z_i) - log q(z_i)`` by its expectation, which the path
                determines as well and which has less variance. False leaves ``A_n`` a log importance weight.
        """
        model = self.agent.model
        if analytic_kl:
            latents, scene = -(self.kl_where + self.kl_what), -self.kl_scene
        else:
            latents = self.rewards.log_p_z_where + self.rewards.log_p_z_what - self._log_q_latents
            scene = self.rewards.log_p_z_scene[:, 0] - self._log_q_scene
        scores = model.scores(self.log_p_x, latents, scene)
        # What is still unexplained tells most about what going on may gain.
        context = torch.cat([self.hidden, self.log_p_x[:, :-1, None] / RETURN_SCALE], 2)
        return StopProblem(
            self.logits,
            scores,
            model.log_p_count,
            context.detach(),
            log_q_what=self.what.log_prob(self.z.z_what) if self.agent.categorical else None,
            what_values=self._what_values,
            num_paths=self.num_paths,
            num_particles=self.num_particles,
            log_q_latents=None
            if self.reparameterised
            else F.pad(self._log_q_latents.cumsum(1), (1, 0)) + self._log_q_scene[:, None],
            relaxed=partial(self._relaxed, latents) if model.renderer.differentiable else None,
            dream=partial(dream, self.agent, len(self.images) // (self.num_paths * self.num_particles)),
        )

    @property
    def _what_values(self) -> CategoryValues | None:
        if self.values is None or self.num_paths > 1:
            return None
        assert isinstance(self.what, Categorical)
        chosen = self.values.gather(2, self.z.z_what[..., None])[..., 0]
        return CategoryValues(chosen, (self.what.log_q.exp() * self.values).sum(2))

    @cached_property
    def _log_q_scene(self) -> Float[Tensor, "batch"]:
        return self.scene.posterior.log_prob(self.scene.z_scene)

    @cached_property
    def _log_q_latents(self) -> Float[Tensor, "batch step"]:
        return self.where.log_prob(self.z.z_where) + self.what.log_prob(self.z.z_what)

    def _relaxed(self, latents: Tensor, extents: Float[Tensor, "batch step"]) -> Float[Tensor, "batch"]:
        """``A - log p(n)`` of objects that are there to some extent."""
        return self._softened(extents) + (extents * latents).sum(1)

    @cached_property
    def _softened(self) -> Callable[[Tensor], Tensor]:
        return self.agent.model.soften(self.images, self.z)


def unstopped_rollout(
    agent: Agent,
    envs: AIRSceneVectorEnv,
    noise: Float[Tensor, "batch step latent"],
    *,
    enumerate_categories: bool = False,
    reparameterised: bool = True,
) -> Rollout:
    """Acts on the environments' current images for all N steps, with presence forced to 1.

    What the environment answers does not change the plan, which is handed to it whole.

    Args:
        agent: Who acts; the environments must pay by its model.
        envs: Just reset.
        noise: Standard normal, ``[num_envs * particles, N, latents]``; 0 follows the posterior modes. The particles of
            an image follow each other. That of ``z_scene`` is the last of the first step.
        enumerate_categories: Every step takes every category instead of a sampled one. Paths branch, so that
            step i is computed once for each sequence of the categories before it.
        reparameterised: False cuts the gradient from latents to the network that drew them.
    """
    num_particles = len(noise) // envs.num_envs
    noise_where, noise_what, noise_scene = noise.split(
        [agent.model.where_dim, agent.what_size, agent.model.scene_dim], 2
    )
    state = agent.initial(envs.state.images)
    if num_particles > 1:
        # The image is embedded once.
        state = state.select(torch.arange(envs.num_envs, device=noise.device).repeat_interleave(num_particles))

    def choose_gaussian(noise: Tensor) -> Choose:
        def choose(posterior: Gaussian) -> Tensor:
            value = posterior.sample(repeated(noise, len(posterior.mean)))
            return value if reparameterised else value.detach()

        return choose

    def choose_what(noise: Tensor) -> Choose:
        def choose(what: Posterior) -> Tensor:
            if enumerate_categories:
                assert isinstance(what, Categorical)
                return torch.arange(what.log_q.numel(), device=noise.device) % agent.what_size
            z_what = what.sample(noise)
            return z_what if reparameterised else z_what.detach()

        return choose

    state, scene = agent.describe_scene(state, choose_gaussian(noise_scene[:, 0]))
    steps: list[tuple[Tensor, Gaussian, Posterior, Tensor, Tensor, Tensor]] = []
    values: list[Tensor] = []
    for i in range(noise.shape[1]):
        state, logit, first = agent.decide(state)
        z = agent.describe_object(state, first, choose_gaussian(noise_where[:, i]), choose_what(noise_what[:, i]))
        steps.append((logit, z.where, z.what, z.z_where, state.hidden, z.z_what))
        if z.values is not None:
            values.append(z.values)
        if len(z.z_what) > len(state.images):
            state = state.select(torch.arange(len(z.z_what), device=noise.device) // agent.what_size)
        state = agent.remember(state, repeated(z.z_where, len(z.z_what)), z.z_what)
    num_rows = len(state.images)
    logits, wheres, whats, z_wheres, hidden, z_whats = (
        stack([repeated(part, num_rows) for part in parts]) for parts in zip(*steps, strict=True)
    )
    scene = SceneLatent(repeated(scene.posterior, num_rows), repeated(scene.z_scene, num_rows))
    z = Explanation(torch.ones_like(z_wheres[..., 0]), z_wheres, z_whats, scene.z_scene)
    return Rollout(
        agent=agent,
        images=state.images,
        num_paths=num_rows // len(noise),
        num_particles=num_particles,
        reparameterised=reparameterised,
        log_p_x_black=repeated(envs.state.log_p_x, num_rows),
        log_p_x_empty=agent.model.log_p_x_empty(state.images, scene.z_scene),
        scene=scene,
        logits=logits,
        where=wheres,
        what=whats,
        z=z,
        rewards=envs.unroll(z),
        hidden=hidden,
        values=stack([repeated(part, num_rows) for part in values]) if values else None,
    )
