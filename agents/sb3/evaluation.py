"""Held-out metrics of a policy, with those of the empty explanation and of random actions."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from air_env.explanation import DrawnExplanation, Images
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

from ..evaluation.metrics import averages, compare, kinds_of

Act = Callable[[dict[str, NDArray]], NDArray]
"""From a batch of observations to a batch of actions."""

_BATCH = 500


def evaluate_policy(
    act: Act, world: World, action_mode: str, *, seed: int = 0, progress: Callable[[int], object] | None = None
) -> dict[str, float]:
    """Lets a policy explain every scene of a world once.

    Args:
        act: The policy.
        world: The generative model, and scenes that it was not trained on, for a fair figure.
        action_mode: What its actions are.
        seed: Seed of what the environment draws, where the action is a distribution.
        progress: Called after every batch with its number of scenes.

    Returns:
        Accuracies and IoU as `air_agents.evaluation.metrics.evaluate` has them, NaN where nothing was counted
        correctly; ``return`` in nats.
    """
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(world.scenes), _BATCH):
        scenes = world.scenes[start : start + _BATCH]
        z, returns = explain(act, World(world.model, scenes), action_mode, seed=seed + start)
        parts.append(compare(z, scenes.to("cpu"), kinds_of(world.model)) | {"return": returns})
        if progress is not None:
            progress(len(scenes))
    return averages(parts)


def explain(
    act: Act, world: World, action_mode: str, *, images: Images | None = None, seed: int = 0
) -> tuple[DrawnExplanation, Tensor]:
    """One episode on every scene of a world, or on images of one's own: what was drawn, and the returns ``[scene]``."""
    chosen = {"scenes": np.arange(len(world.scenes))} if images is None else {"images": images}
    num_envs = len(world.scenes if images is None else images)
    envs = AIRSceneVectorEnv(num_envs, action_mode=action_mode, byte_images=True, grad_enabled=False, world=world)
    observation, _ = envs.reset(seed=seed, options=chosen)
    total = torch.zeros(num_envs, device=envs.device)
    for _ in range(world.model.config.num_steps):
        action = act({name: part.numpy(force=True) for name, part in observation.items()})
        observation, rewards, _, _, _ = envs.step(action)
        total = total + rewards
    return world.model.drawn(envs.state.z), total


def stop_at_once(size: int) -> Act:
    """The empty explanation, as a policy of ``latents`` actions of this size."""
    return lambda observation: np.full((len(observation["step"]), size), -1, np.float32)


def act_at_random(size: int, seed: int = 0) -> Act:
    """A policy of uniform actions of this size."""
    rng = np.random.default_rng(seed)
    return lambda observation: rng.uniform(-1, 1, (len(observation["step"]), size)).astype(np.float32)
