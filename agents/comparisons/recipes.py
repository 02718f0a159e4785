"""Recipes of the comparisons: named settings of their training."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from air_env.registry import Registry
from air_env.scenes import Scene

from ..training.serialisation import FAMILIES, RECIPE_KINDS
from ..training.settings import GradientSettings
from .autoencoder import AutoencoderConfig
from .classifiers import ClassifierConfig
from .draw import DRAWConfig
from .model import ComparisonSettings
from .poses import PoseRegressorConfig
from .tables import TableRegressorConfig
from .training import ComparisonTrainer

_SETTINGS = (DRAWConfig, AutoencoderConfig, ClassifierConfig, PoseRegressorConfig, TableRegressorConfig)
COMPARISON_MODELS: Registry[type[ComparisonSettings]] = Registry(
    "comparison model", {settings.kind: settings for settings in _SETTINGS}
)
"""Kind -> class of settings, which makes the model."""


@dataclass(frozen=True)
class ComparisonRecipe(GradientSettings):
    """Settings of the training of a comparison; with AIR's seed, on AIR's images."""

    kind: ClassVar[str] = "comparison"

    model: ComparisonSettings
    """The model."""
    clip: float = 5.0
    """Largest norm of a batch's gradient: DRAW's windows jump where it is steep."""

    def make_trainer(self, scene: Scene, device: torch.device | str = "cpu") -> ComparisonTrainer:
        """The trainer of the model, with initial weights."""
        return ComparisonTrainer(self, scene.dataset("train", self.num_train, self.seed), device)


FAMILIES[ComparisonSettings] = COMPARISON_MODELS
RECIPE_KINDS[ComparisonRecipe.kind] = ComparisonRecipe

_CLASSIFIER = ComparisonRecipe(ClassifierConfig("sum"), max_steps=8_000, scene_options={"counts": (2,)})
_TABLE = ComparisonRecipe(
    TableRegressorConfig(),
    scene="tabletop3d",
    scene_options={"renderer": "raycast"},
    num_train=20_000,
    max_steps=6_000,
)
COMPARISONS: Registry[ComparisonRecipe] = Registry(
    "comparison",
    {
        # Fewer and larger strokes than the paper's 40: in the same time the bound is far higher.
        "draw": ComparisonRecipe(DRAWConfig(num_steps=16, window=10), max_steps=10_000, learning_rate=3e-3),
        "autoencoder": ComparisonRecipe(AutoencoderConfig(), max_steps=8_000, learning_rate=2e-3),
        "cnn_sum": _CLASSIFIER,
        "cnn_order": replace(_CLASSIFIER, model=ClassifierConfig("order")),
        "supervised_poses": replace(_TABLE, model=PoseRegressorConfig(), scene="objects3d", max_steps=2_200),
        "supervised_table": _TABLE,
        "supervised_table_arbitrary": replace(_TABLE, model=TableRegressorConfig("arbitrary")),
        "cnn_count": ComparisonRecipe(ClassifierConfig("count"), max_steps=2_000),
    },
)
"""Name -> recipe."""
