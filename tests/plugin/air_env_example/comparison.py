"""A comparison: a classifier that is told the counts, and sees of an image only how bright it is."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_agents.comparisons import ComparisonModel, ComparisonRecipe, ComparisonSettings
from air_env.scenes import SceneDataset


@dataclass(frozen=True)
class BrightnessConfig(ComparisonSettings):
    """Settings of the classifier."""

    kind: ClassVar[str] = "brightness"

    num_counts: int = 4
    """Number of counts, from 0."""

    def make(self) -> "Brightness":
        """The model."""
        return Brightness(self)


class Brightness(ComparisonModel):
    """Softmax regression from the total brightness of an image to its count."""

    objective = "log_probability"

    def __init__(self, config: BrightnessConfig) -> None:
        super().__init__()
        self.head = nn.Linear(1, config.num_counts)

    def forward(self, scenes: SceneDataset) -> Float[Tensor, "scene count"]:
        """Logits of the counts."""
        return self.head(scenes.float_images(self.device).sum((1, 2, 3))[:, None] / 100)

    def score(self, scenes: SceneDataset) -> Float[Tensor, "scene"]:
        """The log-probability of the true counts, in nats."""
        return -F.cross_entropy(self(scenes), scenes.count.to(self.device), reduction="none")

    @torch.no_grad()
    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """The share of right counts."""
        right = self(scenes).argmax(1).cpu() == scenes.count
        return {"accuracy": right.double().mean().item()}


BRIGHTNESS = ComparisonRecipe(
    BrightnessConfig(),
    scene="rings",
    scene_options={"image_size": 24, "object_size": (6, 10)},
    max_steps=1_000,
    learning_rate=0.05,
)
