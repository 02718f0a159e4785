"""AIR's training run and its directory.

    config.json           the recipe
    metrics.csv           one row per evaluation, with what a probe adds; also in tensorboard/. While the agent is
                          asleep, log_q_dream is what `air_agents.inference.episodes.dream` gives, and there is no elbo
    agent.safetensors     the agent (`load_agent`)
    evaluation.json       the finished agent on held-out scenes
    resume.pt             everything the next iteration depends on
    pictures/             scenes with windows beside reconstructions at stages of training; the curve

What any training run has is in `air_agents.training.run`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from air_env.scenes import make_scene

from ..evaluation.metrics import accuracies, evaluate
from ..evaluation.pictures import count_accuracy_curve, scenes_beside_reconstructions
from ..inference.agent import Agent, Exploration
from .checkpoints import AGENT_FILE, save_agent, write_atomically
from .directory import CONFIG_FILE, EVALUATION_FILE, METRICS_FILE, RESUME_FILE
from .recipes import Recipe
from .run import Progress, TrainingRun
from .trainer import Trainer

FIELDS: tuple[str, ...] = ("iteration", "minutes", "elbo", "count_accuracy", "learning_rate")
"""Columns of metrics.csv, before those of a probe."""
_NUM_TEST, _NUM_FINAL = 1_000, 5_000
_NUM_PICTURED = 12

Probe = Callable[[Trainer], dict[str, float]]
"""Looks at a training at every evaluation, and gives further columns for metrics.csv."""


class Run(TrainingRun[Recipe, Trainer]):
    """A training run of an AIR agent; see `TrainingRun`."""

    recipe_class = Recipe

    def _prepare(self, data_dir: str | None, device: torch.device | str) -> Trainer:
        recipe = self.recipe
        self._scene = make_scene(recipe.scene, data_dir=data_dir, **recipe.scene_options)
        self._test = self._scene.dataset("test", _NUM_TEST, recipe.seed)
        return Trainer(recipe, self._scene.dataset("train", recipe.num_train, recipe.seed), device)

    @property
    def objective(self) -> str:
        """The ELBO."""
        return FIELDS[2]

    @property
    def _module(self) -> Agent:
        return self.trainer.agent

    @property
    def _description(self) -> str:
        return f"estimator {self.recipe.estimator}"

    def _objectives(self, mean: float) -> dict[str, float]:
        if self.trainer.iteration > self.recipe.sleep_steps:
            return super()._objectives(mean)
        # Of scenes that are dreamt there is no ELBO, which is of images.
        return {"log_q_dream": mean}

    def _measure(self) -> dict[str, float]:
        with self._without_exploration() as agent:
            return accuracies(agent, self._test)

    def _save_weights(self) -> None:
        save_agent(self.trainer.agent, self.directory / AGENT_FILE, self.recipe)

    @contextmanager
    def _without_exploration(self) -> Iterator[Agent]:
        """The agent as it is when it is loaded, for as long as it is looked at."""
        agent = self.trainer.agent
        exploration, agent.exploration = agent.exploration, Exploration()
        try:
            yield agent
        finally:
            agent.exploration = exploration

    def _picture(self) -> None:
        path = self.directory / "pictures" / f"scenes_{self.trainer.iteration:06d}.png"
        # Empty scenes are explained, but nothing to look at.
        images = self._test[self._test.count > 0][:_NUM_PICTURED].float_images()
        with self._without_exploration() as agent:
            z = agent.explain(images)
        write_atomically(path, lambda temporary: scenes_beside_reconstructions(images, z, temporary))

    def finish(self, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """Draws the last pictures, and measures the agent on held-out scenes that training never looked at.

        Returns:
            The metrics of `evaluate`, which are also in evaluation.json, with the run's iterations and minutes.
        """
        # A run that was cut short may still explore: from here on the agent is the one that was saved.
        self.trainer.agent.exploration = Exploration()
        self.trainer.agent.model.anneal(None)
        curve = self.directory / "pictures" / "count_accuracy.png"
        write_atomically(curve, lambda path: count_accuracy_curve(self._rows, path))
        return super().finish(progress)

    def _evaluate(self, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        # The seed after the recipe's: other arrangements than those the progress bar reports on.
        scenes = self._scene.dataset("test", _NUM_FINAL, self.recipe.seed + 1)
        generator = torch.Generator(self.trainer.device).manual_seed(self.recipe.seed + 1)
        return evaluate(
            self.trainer.agent, scenes, num_samples=self.recipe.iwae_samples, generator=generator, progress=progress
        )


__all__ = [
    "CONFIG_FILE",
    "EVALUATION_FILE",
    "FIELDS",
    "METRICS_FILE",
    "RESUME_FILE",
    "Probe",
    "Progress",
    "Run",
]
