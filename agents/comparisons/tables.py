"""A network trained with the contents of tables (Section 3.2; Figure 7, "supervised").

It predicts everything in one pass: how many items there are, the kind and the place of each, and where the camera is.
Labels come in some order. Where that is arbitrary, the same image comes with several answers, of which
the network can only learn the mean; an order that can be seen in the image helps.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation
from air_env.model import Images, SceneConfig, SceneModel, masked
from air_env.renderers import TabletopConfig
from air_env.scenes import SceneDataset

from ..inference.convolutions import convolutional
from ..training.settings import refuse_unknown
from .model import ComparisonSettings, SceneRegressor

ORDERS = ("arbitrary", "canonical")
"""Order of a scene's items in the labels: as they come, or by kind and, of one kind, from left to right."""


@dataclass(frozen=True)
class TableRegressorConfig(ComparisonSettings):
    """Settings of a network trained with the contents of tables."""

    kind: ClassVar[str] = "tables"

    order: str = "canonical"
    """One of `ORDERS`: of the labels in training."""
    image_size: int = 32
    """Side of the square image in pixels."""
    num_steps: int = 3
    """The most items of a scene."""
    renderer: TabletopConfig = field(default_factory=lambda: TabletopConfig(renderer="raycast"))
    """What draws reconstructions."""
    channels: tuple[int, ...] = (32, 64, 64)
    """Channels of the convolutions; each halves the image (our choice)."""
    hidden: int = 256
    """Units of the fully connected layer (our choice)."""
    position_sd: float = 0.2
    """Standard deviation of the loss of places, in the scene's unit (our choice)."""
    camera_sd: float = 0.1
    """Standard deviation of the loss of the camera's angle, in radians (our choice)."""
    weight_decay: float = 1e-3
    """Weight decay of AdamW (our choice)."""

    def __post_init__(self) -> None:
        refuse_unknown("order", self.order, ORDERS)

    def make(self) -> "TableRegressor":
        """The model."""
        return TableRegressor(self)


class TableRegressor(SceneRegressor):
    """Learns counts and kinds by their log-probability, places and the camera by squared errors.

    Args:
        config: Settings.
    """

    def __init__(self, config: TableRegressorConfig) -> None:
        scene = SceneConfig(image_size=config.image_size, num_steps=config.num_steps, renderer=config.renderer)
        super().__init__(SceneModel(scene))
        self.config = config
        self.slot = [len(config.renderer.kinds), self.model.where_dim]
        self.sizes = [config.num_steps + 1, config.num_steps * sum(self.slot), self.model.scene_dim]
        self.network = convolutional(config.channels, config.image_size, config.hidden, sum(self.sizes), inputs=3)

    def forward(self, images: Images) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of the count and of each item's kind, places and the camera."""
        count, slots, camera = self.network(images).split(self.sizes, 1)
        kinds, places = slots.unflatten(1, (self.config.num_steps, sum(self.slot))).split(self.slot, 2)
        return count, kinds, places, camera

    def score(self, scenes: SceneDataset) -> Float[Tensor, "batch"]:
        """How well the truth is met, in the order of the labels."""
        scenes = scenes.to(self.device)
        count, kinds, places, camera = self(scenes.float_images(self.device))
        if self.config.order == "canonical":
            scenes = canonical(scenes)
        there = scenes.labels >= 0
        labels, poses = scenes.labels.clamp_min(0), scenes.poses.nan_to_num()
        of_kind = -F.cross_entropy(kinds.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        of_place = -(places - poses).square().sum(2) / (2 * self.config.position_sd**2)
        of_camera = -(camera - scenes.z_scene).square().sum(1) / (2 * self.config.camera_sd**2)
        of_count = -F.cross_entropy(count, scenes.count, reduction="none")
        return of_count + torch.where(there, of_kind + of_place, 0.0).sum(1) + of_camera

    @torch.no_grad()
    def infer(self, images: Images) -> Explanation:
        """The most probable count and kinds of each image, and the places."""
        count, kinds, places, camera = self(images)
        present = torch.arange(self.config.num_steps, device=images.device) < count.argmax(1)[:, None]
        return Explanation(present.to(images), masked(present, places), masked(present, kinds.argmax(2)), camera)


def canonical(scenes: SceneDataset) -> SceneDataset:
    """Scenes with their items by kind and, of one kind, from left to right; absent ones last."""
    kinds = torch.where(scenes.labels < 0, scenes.labels.max() + 1, scenes.labels)
    order = (kinds * 100.0 + scenes.poses[..., 0].nan_to_num()).argsort(1)
    rows = torch.arange(len(scenes), device=order.device)[:, None]
    ordered = {name: getattr(scenes, name)[rows, order] for name in ("labels", "boxes", "poses")}
    return replace(scenes, **ordered)
