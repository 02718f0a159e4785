"""Training of the comparisons: one loop of batches for all that scores scenes; their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from air_env.frames import Frame
from air_env.scenes import SceneDataset

from ..evaluation.pictures import scenes_beside_reconstructions
from ..training.serialisation import from_json, to_json
from ..training.settings import State, TrainingSettings, Trains
from ..training.weights import fill, opened_weights, restore, save_weights, weights_path
from .model import ComparisonModel

if TYPE_CHECKING:
    from .recipes import ComparisonRecipe

MODEL_FILE = "model.safetensors"
_FORMAT = "air-env comparison 1"
_PURPOSES = ("weights", "training", "measuring", "evaluation")


@contextmanager
def seeded(device: torch.device, purpose: str, *numbers: int) -> Iterator[None]:
    """Draws all of torch's noise from a purpose and numbers, for as long as it lasts; then the generators go on."""
    numbers = (_PURPOSES.index(purpose) + 1, *numbers)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))  # noqa: TID251 (forked)
        yield


class ComparisonTrainer(Trains):
    """Trains a comparison by a recipe.

    All that is random in an iteration follows from the seed and from its number, so that none of it need be saved.

    Args:
        recipe: What to compute.
        train: The training scenes.
        device: Where to compute.
    """

    def __init__(self, recipe: ComparisonRecipe, train: SceneDataset, device: torch.device | str = "cpu") -> None:
        self.recipe = recipe
        self.device = torch.device(device)
        self._train = train.to(self.device)
        with seeded(self.device, "weights", recipe.seed):
            self.model = self.network = recipe.model.make().to(self.device)
        self.objective, self.description = self.model.objective, type(self.model).__name__
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.model.weight_decay, fused=True
        )
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def step(self, progress: float | None = None) -> Tensor:
        """One iteration (`Trains.step`); the objective is the model's score in nats."""
        recipe = self.recipe
        share = self.iteration / recipe.max_steps if progress is None else progress
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.learning_rate_factor(share)
        self.model.train()
        with seeded(self.device, "training", recipe.seed, self.iteration):
            score = self.model.score(self._train[self._rows()]).mean()
        self.optimizer.zero_grad()
        (-score).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.iteration += 1
        return score.detach()

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """The model's columns of metrics."""
        with seeded(self.device, "measuring", self.recipe.seed):
            return self.model.eval().measure(scenes)

    def evaluate(self, scenes: SceneDataset, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """The model's final metrics."""
        with seeded(self.device, "evaluation", self.recipe.seed):
            metrics = self.model.eval().evaluate(scenes)
        if progress is not None:
            progress(len(scenes))
        return metrics

    def picture(self, scenes: SceneDataset) -> Frame | None:
        """Scenes beside their reconstructions, if the model makes some; without windows."""
        images = scenes.float_images(self.device)
        reconstructions = self.model.eval().reconstruct(images)
        return None if reconstructions is None else scenes_beside_reconstructions(images, reconstructions)

    def save(self, directory: Path) -> None:
        """Writes model.safetensors, with the recipe."""
        save_weights(directory / MODEL_FILE, self.model.state_dict(), _FORMAT, recipe=to_json(self.recipe))

    def _rows(self) -> Tensor:
        """The batch's rows; every epoch is another permutation of the training images."""
        size = self.recipe.batch_size
        epoch, batch = divmod(self.iteration, len(self._train) // size)
        if epoch != self._epoch:
            rows = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self._train))
            self._epoch, self._permutation = epoch, torch.from_numpy(rows).to(self.device)
        return self._permutation[batch * size : (batch + 1) * size]

    def state_dict(self) -> State:
        """All that the next iteration depends on."""
        return {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continues where a trainer of the same recipe stood."""
        self.iteration = state["iteration"]
        fill(self.model, state["model"])
        restore(self.optimizer, state["optimizer"])


def load_comparison(directory: Path | str, device: torch.device | str = "cpu") -> ComparisonModel:
    """Loads a trained comparison.

    Args:
        directory: A run directory, or a ``model.safetensors`` file.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not a comparison's, or is damaged.
    """
    path = weights_path(directory, MODEL_FILE, "comparison")
    with opened_weights(path, _FORMAT) as weights:
        recipe = from_json(TrainingSettings, weights.settings("recipe"))
        model: ComparisonModel = recipe.model.make()  # type: ignore[attr-defined]
        fill(model, weights.tensors)
    return model.to(device).eval()
