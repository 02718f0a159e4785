"""`TrainedPolicy`: a policy that was trained and saved, which explains images as an `Agent` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from air_env.explanation import DrawnExplanation
from air_env.scenes import SceneDataset
from air_env.spaces import to_images
from air_env.world import World

from ..inference.explainer import Explainer
from .algorithms import load_algorithm, load_settings
from .evaluation import evaluate_policy, explain

if TYPE_CHECKING:
    from .settings import Settings


class TrainedPolicy(Explainer):
    """A policy, the settings it was trained by, and the generative model of its scenes.

    Args:
        algorithm: The algorithm with the policy, and an environment.
        settings: What it was trained by.
    """

    def __init__(self, algorithm: BaseAlgorithm, settings: Settings) -> None:
        self.algorithm, self.settings = algorithm, settings
        envs = algorithm.get_env()
        assert envs is not None
        (unwrapped,) = envs.get_attr("unwrapped")
        self.model, self._scenes = unwrapped.model, unwrapped.scenes

    @classmethod
    def load(cls, source: str | Path, *, data_dir: str | None = None, device: torch.device | str = "cpu") -> Self:
        """Loads a policy, as `load_algorithm` does."""
        return cls(load_algorithm(source, data_dir=data_dir, device=device), load_settings(source))

    def act(self, observation: dict[str, NDArray]) -> NDArray:
        """The most probable actions."""
        return self.algorithm.predict(observation, deterministic=True)[0]

    def explain(self, images: object, num_steps: int | None = None) -> DrawnExplanation:
        """What the policy draws of images, in the forms that `Agent.explain` takes.

        Raises:
            ValueError: The images are not of that form, or another number of steps is wanted than the policy knows.
        """
        model = self.model if num_steps is None else self.with_num_steps(num_steps).model
        world = World(model, self._scenes)
        return explain(self.act, world, self.settings.action_mode, images=to_images(images, model))[0]

    def with_num_steps(self, num_steps: int) -> Self:
        """The policy itself: it cannot infer up to another number of objects.

        Raises:
            ValueError: It would have to.
        """
        if num_steps != (known := self.model.config.num_steps):
            raise ValueError(
                f"num_steps must be {known} for this policy of Stable-Baselines3, whose network knows so many steps; "
                f"got {num_steps}"
            )
        return self

    def evaluate(
        self, scenes: SceneDataset, *, seed: int = 0, progress: Callable[[int], object] | None = None
    ) -> dict[str, float]:
        """The metrics of `evaluate_policy`."""
        world = World(self.model, scenes)
        return evaluate_policy(self.act, world, self.settings.action_mode, seed=seed, progress=progress)
