"""Recipes and training of the comparisons: one loop of batches for all that scores scenes.

    config.json           the recipe
    metrics.csv           one row per evaluation; also in tensorboard/
    model.safetensors     the model (`load_comparison`)
    evaluation.json       the finished model on held-out scenes
    resume.pt             everything the next iteration depends on
    pictures/             scenes beside reconstructions at stages of training, of models that reconstruct

What any training run has is in `air_agents.training.run`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from air_env.explanation import DrawnExplanation
from air_env.scenes import SceneDataset, make_scene

from ..evaluation.pictures import scenes_beside_reconstructions
from ..training.checkpoints import from_json, read_weights, write_atomically
from ..training.run import TrainingRun
from ..training.settings import TrainingSettings, refuse_unknown
from .autoencoder import Autoencoder, AutoencoderConfig
from .classifiers import Classifier, ClassifierConfig
from .draw import DRAW, DRAWConfig
from .poses import PoseRegressor, PoseRegressorConfig
from .tables import TableRegressor, TableRegressorConfig

MODEL_FILE = "model.safetensors"
_FORMAT = "air-env comparison 1"
_NUM_TEST, _NUM_FINAL = 1_000, 5_000
_NUM_PICTURED = 12
_PURPOSES = ("weights", "training", "measuring", "evaluation")
_CLIP = 5.0
"""Largest norm of a batch's gradient: DRAW's windows jump where it is steep."""


class Comparison(Protocol):
    """A model that can be trained on scenes."""

    objective: str
    """Name of what `score` gives."""

    def score(self, scenes: SceneDataset) -> Tensor:
        """What is to be made large, ``[scene]``, in nats."""
        ...

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Columns of metrics."""
        ...

    def evaluate(self, scenes: SceneDataset) -> dict[str, float]:
        """The final figures."""
        ...


@dataclass(frozen=True)
class ComparisonRecipe(TrainingSettings):
    """Everything that decides what the training of a comparison computes; with AIR's seed, on AIR's images."""

    model: DRAWConfig | AutoencoderConfig | ClassifierConfig | PoseRegressorConfig | TableRegressorConfig
    """The model; where it has a weight_decay, Adam is AdamW."""

    def make_model(self) -> "DRAW | Autoencoder | Classifier | PoseRegressor | TableRegressor":
        """The model, with weights from the global generator."""
        for config_class, model_class in _MODELS.items():
            if isinstance(self.model, config_class):
                return model_class(self.model)
        known = ", ".join(config_class.__name__ for config_class in _MODELS)
        raise ValueError(f"model must be one of {known}, got {self.model!r}")


_MODELS: dict[type[Any], type[Any]] = {
    DRAWConfig: DRAW,
    AutoencoderConfig: Autoencoder,
    ClassifierConfig: Classifier,
    PoseRegressorConfig: PoseRegressor,
    TableRegressorConfig: TableRegressor,
}

_TWO_DIGITS = {"counts": (2,)}
_TOLD = ComparisonRecipe(
    TableRegressorConfig(),
    scene="tabletop3d",
    scene_options={"renderer": "raycast"},
    num_train=20_000,
    max_steps=6_000,
    learning_rate=1e-3,
)
COMPARISONS: dict[str, ComparisonRecipe] = {
    "draw": ComparisonRecipe(DRAWConfig(), max_steps=2_500, learning_rate=3e-3),
    "autoencoder": ComparisonRecipe(AutoencoderConfig(), max_steps=2_500, learning_rate=2e-3),
    "cnn_sum": ComparisonRecipe(
        ClassifierConfig("sum"), max_steps=8_000, learning_rate=1e-3, scene_options=_TWO_DIGITS
    ),
    "cnn_order": ComparisonRecipe(
        ClassifierConfig("order"), max_steps=8_000, learning_rate=1e-3, scene_options=_TWO_DIGITS
    ),
    "supervised_poses": ComparisonRecipe(
        PoseRegressorConfig(),
        scene="objects3d",
        scene_options={"renderer": "raycast"},
        num_train=20_000,
        max_steps=2_200,
        learning_rate=1e-3,
    ),
    "supervised_table": _TOLD,
    "supervised_table_arbitrary": replace(_TOLD, model=TableRegressorConfig("arbitrary")),
    "cnn_count": ComparisonRecipe(ClassifierConfig("count"), max_steps=2_000),
}
"""Name -> recipe."""


def get_comparison(name: str) -> ComparisonRecipe:
    """A registered recipe."""
    refuse_unknown("comparison", name, COMPARISONS)
    return COMPARISONS[name]


@contextmanager
def seeded(device: torch.device, purpose: str, *numbers: int) -> Iterator[None]:
    """Draws all of torch's noise from a purpose and numbers, for as long as it lasts; then the generators go on."""
    numbers = (_PURPOSES.index(purpose) + 1, *numbers)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield


class ComparisonTrainer:
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
        self.iteration = 0
        self._train = train.to(self.device)
        with seeded(self.device, "weights", recipe.seed):
            self.model = recipe.make_model().to(self.device)
        options = {"lr": recipe.learning_rate, "fused": True}
        weight_decay = getattr(recipe.model, "weight_decay", 0.0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=weight_decay, **options)
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def step(self, progress: float | None = None) -> Tensor:
        """One iteration.

        Args:
            progress: Share of the training that is done, for the learning rate; by default that of the iterations.

        Returns:
            The batch's mean score in nats, detached and still on the device.
        """
        recipe = self.recipe
        share = self.iteration / recipe.max_steps if progress is None else progress
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.learning_rate_factor(share)
        self.model.train()
        with seeded(self.device, "training", recipe.seed, self.iteration):
            score = self.model.score(self._train[self._rows()]).mean()
        self.optimizer.zero_grad()
        (-score).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimizer.step()
        self.iteration += 1
        return score.detach()

    def _rows(self) -> Tensor:
        """The batch's rows; every epoch is another permutation of the training images."""
        size = self.recipe.batch_size
        epoch, batch = divmod(self.iteration, len(self._train) // size)
        if epoch != self._epoch:
            rows = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self._train))
            self._epoch, self._permutation = epoch, torch.from_numpy(rows).to(self.device)
        return self._permutation[batch * size : (batch + 1) * size]

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where a trainer of the same recipe stood."""
        self.iteration = state["iteration"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class ComparisonRun(TrainingRun[ComparisonRecipe, ComparisonTrainer]):
    """A training run of a comparison; see `TrainingRun`."""

    recipe_class = ComparisonRecipe

    def _prepare(self, data_dir: str | None, device: torch.device | str) -> ComparisonTrainer:
        recipe = self.recipe
        self._scene = make_scene(recipe.scene, data_dir=data_dir, **recipe.scene_options)
        self._test = self._scene.dataset("test", _NUM_TEST, recipe.seed)
        return ComparisonTrainer(recipe, self._scene.dataset("train", recipe.num_train, recipe.seed), device)

    @property
    def objective(self) -> str:
        """What the model calls its score."""
        return self.trainer.model.objective

    @property
    def _module(self) -> nn.Module:
        return self.trainer.model

    @property
    def _description(self) -> str:
        return type(self.trainer.model).__name__

    def _measure(self) -> dict[str, float]:
        model = self.trainer.model.eval()
        with seeded(self.trainer.device, "measuring", self.recipe.seed):
            return model.measure(self._test)

    def _evaluate(self) -> dict[str, float]:
        # The seed after the recipe's: other arrangements than those the progress bar reports on.
        scenes = self._scene.dataset("test", _NUM_FINAL, self.recipe.seed + 1)
        model = self.trainer.model.eval()
        with seeded(self.trainer.device, "evaluation", self.recipe.seed):
            return model.evaluate(scenes)

    def _save_weights(self) -> None:
        save_comparison(self.trainer.model, self.directory / MODEL_FILE, self.recipe)

    def _picture(self) -> None:
        model = self.trainer.model.eval()
        if isinstance(model, Classifier):
            return
        images = self._test[self._test.count > 0][:_NUM_PICTURED].float_images(self.trainer.device)
        # These models find no objects.
        nothing = images.new_zeros(len(images), 0)
        z = DrawnExplanation(
            z_pres=nothing,
            z_where=nothing[..., None],
            z_what=nothing[..., None],
            z_scene=nothing,
            reconstruction=model.reconstruct(images),
            outlines=images.new_zeros(len(images), 0, 4),
        )
        path = self.directory / "pictures" / f"scenes_{self.trainer.iteration:06d}.png"
        write_atomically(path, lambda temporary: scenes_beside_reconstructions(images, z, temporary))


def save_comparison(model: nn.Module, path: Path, recipe: ComparisonRecipe) -> None:
    """Saves a model, with the recipe it was trained by."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = save(tensors, {"format": _FORMAT, "recipe": json.dumps(asdict(recipe))})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def load_comparison(
    directory: Path | str, device: torch.device | str = "cpu"
) -> "DRAW | Autoencoder | Classifier | PoseRegressor | TableRegressor":
    """Loads a trained comparison.

    Args:
        directory: A run directory, or a ``model.safetensors`` file.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not a comparison's, or is damaged.
    """
    path = Path(directory)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no comparison at {path}; name a run directory that holds {MODEL_FILE}")
    metadata, tensors = read_weights(path, _FORMAT)
    try:
        model = from_json(ComparisonRecipe, json.loads(metadata["recipe"])).make_model()
        model.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not fit this version of the comparisons ({error}); train it again") from error
    return model.to(device).eval()
