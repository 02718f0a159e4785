"""`PolicyTrainer`: a Stable-Baselines3 algorithm that a `TrainingRun` steps, measures and saves."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import Tensor

from air_env.frames import Frame
from air_env.scenes import Scene, SceneDataset
from air_env.world import World, make_world

from ..evaluation.pictures import scenes_beside_reconstructions
from ..training.checkpoints import POLICY_FILE
from ..training.settings import State, Trains
from ..training.weights import fill, restore
from .algorithms import ALGORITHMS, make_algorithm, save_algorithm
from .evaluation import act_at_random, evaluate_policy, explain, stop_at_once
from .policy import HybridPolicy
from .vec_env import AIRSceneVecEnv

if TYPE_CHECKING:
    from .settings import Settings


class PolicyTrainer(Trains):
    """Trains a policy by a Stable-Baselines3 algorithm, a rollout at a time.

    A restored trainer continues with the weights, optimisers, schedules and normalisation of the saved one; its noise,
    and SAC's memory, begin anew, so that its numbers are not those of a training that was never stopped.

    Args:
        settings: What to compute.
        scene: The source of images.
        device: Where to compute.
    """

    objective = "return"

    def __init__(self, settings: Settings, scene: Scene, device: torch.device | str = "cpu") -> None:
        self.settings, self.description = settings, settings.algorithm
        self.device = torch.device(device)
        self.images = 0
        world = make_world(scene, num_scenes=settings.num_train, scene_seed=settings.seed)
        self.model = world.model
        envs = AIRSceneVecEnv(
            settings.num_envs, action_mode=settings.action_mode, min_side=1, world=world, device=device
        )
        # Only rewards are normalised: networks divide the pixels by 255 themselves.
        self._normalised = VecNormalize(VecMonitor(envs), norm_obs=False, gamma=1.0)
        self.algorithm = make_algorithm(settings, self._normalised, device)
        self.network = self.algorithm.policy
        self.algorithm.set_logger(Logger(None, []))
        self.algorithm.lr_schedule = lambda remaining: self.learning_rate
        self._share = 0.0

    @property
    def learning_rate(self) -> float:
        """The learning rate, which falls linearly to 0."""
        # In the middle of a step, too.
        done = max(self._share, self.algorithm.num_timesteps / self.settings.max_steps)
        return self.settings.learning_rate * max(0.0, 1 - done)

    def step(self, progress: float | None = None) -> Tensor:
        """One rollout and what is learned from it; returns 0, as `objectives` knows the mean return."""
        self._share = self.iteration / self.settings.max_steps if progress is None else progress
        if isinstance(self.algorithm.policy, HybridPolicy):
            self.algorithm.policy.exploration = self.settings.exploration_at(self._share)
        steps = ALGORITHMS.find(self.settings.algorithm).rollout * self.settings.num_envs
        self.algorithm.learn(steps, callback=self._count_images, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        self.iteration = self.algorithm.num_timesteps
        return torch.zeros((), device=self.device)

    def objectives(self, mean: float) -> dict[str, float]:
        """The mean return of the last training episodes, and what the algorithm logs of itself."""
        returns = [episode["r"] for episode in self.algorithm.ep_info_buffer or []]
        logged = {name: float(value) for name, value in self.algorithm.logger.name_to_value.items()}
        return {self.objective: float(np.mean(returns)) if returns else math.nan} | logged

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Steps and images so far, and the policy's count accuracy and return."""
        found = evaluate_policy(self.act, World(self.model, scenes), self.settings.action_mode)
        counts = {"steps": self.iteration, "images": self.images}
        return counts | {"count_accuracy": found["count_accuracy"], "return_validation": found["return"]}

    def evaluate(self, scenes: SceneDataset, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """The metrics of `evaluate_policy`, with the returns of the empty explanation and of random actions.

        Returns:
            The metrics; ``return_empty`` and ``return_random``, of stopping at once and of uniform actions on the same
            scenes, as latents; and the steps and images of the training.
        """
        world = World(self.model, scenes)
        metrics = evaluate_policy(self.act, world, self.settings.action_mode, progress=progress)
        size = spaces.flatdim(AIRSceneVecEnv(1, world=world).action_space)
        for name, act in {"empty": stop_at_once(size), "random": act_at_random(size)}.items():
            metrics[f"return_{name}"] = evaluate_policy(act, world, "latents")["return"]
        return metrics | {"steps": self.iteration, "images": self.images}

    def picture(self, scenes: SceneDataset) -> Frame:
        """Scenes with windows beside what the policy draws."""
        z, _ = explain(self.act, World(self.model, scenes), self.settings.action_mode)
        return scenes_beside_reconstructions(scenes.float_images(), z)

    def act(self, observation: dict[str, NDArray]) -> NDArray:
        """The policy's most probable actions."""
        return self.algorithm.predict(observation, deterministic=True)[0]

    def save(self, directory: Path) -> None:
        """Writes policy.safetensors, with the settings."""
        save_algorithm(self.algorithm, directory / POLICY_FILE, self.settings)

    def state_dict(self) -> State:
        """What a continued training needs."""
        returns, entropy = self._normalised.ret_rms, ALGORITHMS.find(self.settings.algorithm).entropy(self.algorithm)
        return {
            "policy": self.algorithm.policy.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers().items()},
            "returns": (float(returns.mean), float(returns.var), float(returns.count)),
            "log_ent_coef": None if entropy is None else entropy.detach(),
            "steps": self.iteration,
            "images": self.images,
        }

    def load_state_dict(self, state: State) -> None:
        """Continues where a trainer of the same settings stood."""
        fill(self.algorithm.policy, state["policy"])
        for name, optimizer in self.optimizers().items():
            restore(optimizer, state["optimizers"][name])
        if (entropy := ALGORITHMS.find(self.settings.algorithm).entropy(self.algorithm)) is not None:
            entropy.data.copy_(state["log_ent_coef"])
        returns = self._normalised.ret_rms
        returns.mean, returns.var, returns.count = state["returns"]
        self.iteration, self.images = state["steps"], state["images"]
        self.algorithm.num_timesteps = self.iteration

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The algorithm's optimisers by name."""
        return ALGORITHMS.find(self.settings.algorithm).optimizers(self.algorithm)

    def _count_images(self, variables: dict[str, NDArray], _: object) -> bool:
        """Counts the episodes that a step finished, each of which explains an image; training goes on."""
        self.images += int(variables["dones"].sum())
        return True
