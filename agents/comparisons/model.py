"""What every comparison is: settings that make a model, and a model that scores scenes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env.explanation import Images
from air_env.scenes import SceneDataset


class ComparisonModel(nn.Module, ABC):
    """A model that is trained on scenes.

    Attributes:
        objective: Name of what `score` gives.
    """

    objective: ClassVar[str]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def score(self, scenes: SceneDataset) -> Float[Tensor, "scene"]:
        """Training objective to maximise, in nats."""

    @abstractmethod
    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Columns of metrics of held-out scenes."""

    def evaluate(self, scenes: SceneDataset) -> dict[str, float]:
        """Final metrics; by default those of `measure`."""
        return self.measure(scenes)

    def reconstruct(self, images: Images) -> Images | None:
        """Reconstructions of images; None if the model makes none."""
        del images


@dataclass(frozen=True)
class ComparisonSettings(ABC):
    """Settings of a comparison's model."""

    kind: ClassVar[str]
    """Name of these settings in `COMPARISON_MODELS`; files of settings carry it."""

    @abstractmethod
    def make(self) -> ComparisonModel:
        """The model, with weights from the global generator."""

    def adam_decay(self) -> float:
        """Weight decay of AdamW; by default none, which is Adam."""
        return 0.0
