"""Convolutional classifiers of raw pixels, trained with labels (Section 3.1.2; Figure 5)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.scenes import SceneDataset

from ..inference.convolutions import convolutional
from .model import ComparisonModel, ComparisonSettings
from .tasks import TASKS, accuracy


@dataclass(frozen=True)
class ClassifierConfig(ComparisonSettings):
    """Settings of a classifier."""

    kind: ClassVar[str] = "classifier"

    task: str
    """One of `TASKS`."""
    image_size: int = 50
    """Side of the square, grey image in pixels."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of the convolutions; each halves the image (our choice)."""
    hidden: int = 256
    """Units of the fully connected layer (our choice)."""
    dropout: float = 0.1
    """Share of what the fully connected layers read that is hidden from them in training (our choice)."""
    weight_decay: float = 1e-3
    """Weight decay of AdamW (our choice)."""
    shift: int = 3
    """Pixels by which images are moved at most in training (our choice); no answer depends on it."""

    def __post_init__(self) -> None:
        TASKS.find(self.task)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.shift < self.image_size or not isinstance(self.shift, int):
            raise ValueError(
                f"shift must be a whole number of pixels below the image's {self.image_size}, got {self.shift!r}"
            )

    def make(self) -> "Classifier":
        """The model."""
        return Classifier(self)


class Classifier(ComparisonModel):
    """A convolutional network that answers one question.

    Args:
        config: Settings.

    Example:
        >>> Classifier(ClassifierConfig("sum")).eval()(torch.zeros(2, 1, 50, 50)).shape
        torch.Size([2, 19])
    """

    objective = "log_probability"

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        classes, self.targets = TASKS.find(config.task)
        self.layers = convolutional(
            config.channels, config.image_size, config.hidden, classes, normalise=True, dropout=config.dropout
        )

    def forward(self, images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch classes"]:
        """Logits of the answers."""
        return self.layers(images)

    def score(self, scenes: SceneDataset) -> Float[Tensor, "batch"]:
        """The log-probability of the right answers in nats, which is what it is trained for."""
        images = scenes.float_images(self.device)
        if self.training and self.config.shift:
            images = self._shifted(images)
        return -F.cross_entropy(self(images), self.targets(scenes).to(images.device), reduction="none")

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """The share of right answers."""
        logits = self.in_batches(self, scenes.float_images(self.device))
        return {"accuracy": accuracy(logits, self.targets(scenes).to(logits.device))}

    def _shifted(self, images: Tensor) -> Tensor:
        """The images, each moved by a few pixels of its own; black moves in."""
        reach, side = self.config.shift, images.shape[-1]
        places = F.pad(images, (reach,) * 4).unfold(2, side, 1).unfold(3, side, 1)
        rows = torch.arange(len(images), device=images.device)
        y, x = torch.randint(2 * reach + 1, (2, len(images)), device=images.device)
        return places[rows, :, y, x]
