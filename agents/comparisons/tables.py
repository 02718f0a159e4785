"""A network that is told what is on a table (Section 3.2; Figure 7, "supervised").

It says everything at once: how many items there are, the kind and the place of the first, of the second, ..., and where
the camera is. Labels come in some order. Where that is arbitrary, the same image comes with several answers, of which
the network can only learn the mean; an order that can be seen in the image helps.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env.explanation import DrawnExplanation, Explanation
from air_env.model import Images, SceneConfig, SceneModel, masked
from air_env.renderers import TabletopConfig
from air_env.renderers.backends import KINDS
from air_env.scenes import SceneDataset

from ..evaluation.metrics import compare
from .convolutions import strided

ORDERS = ("arbitrary", "canonical")
"""How the items of a scene follow each other: as they come, or by kind and, of one kind, from left to right."""
_BATCH = 500


@dataclass(frozen=True)
class TableRegressorConfig:
    """Settings of a network that is told tables."""

    order: str = "canonical"
    """One of `ORDERS`: of the labels in training."""
    image_size: int = 32
    """Side of the square image in pixels."""
    num_steps: int = 3
    """The most items of a scene."""
    renderer: TabletopConfig = field(default_factory=lambda: TabletopConfig(renderer="raycast"))
    """What draws reconstructions."""
    channels: tuple[int, ...] = (32, 64, 64)
    """Of the convolutions, each of which halves the image (our choice)."""
    hidden: int = 256
    """Units of the fully connected layer (our choice)."""
    position_sd: float = 0.2
    """Standard deviation of the loss of places, in the scene's unit (our choice)."""
    camera_sd: float = 0.1
    """Standard deviation of the loss of the camera's angle, in radians (our choice)."""
    weight_decay: float = 1e-3
    """Of AdamW (our choice)."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order {self.order!r} is unknown; choose one of {', '.join(ORDERS)}")


class TableRegressor(nn.Module):
    """Learns counts and kinds by their log-probability, places and the camera by squared errors.

    Args:
        config: Settings.
    """

    objective = "log_probability"

    def __init__(self, config: TableRegressorConfig) -> None:
        super().__init__()
        self.config = config
        self.model = SceneModel(
            SceneConfig(image_size=config.image_size, num_steps=config.num_steps, renderer=config.renderer)
        )
        look, side = strided(config.channels, config.image_size, inputs=3)
        self.slot = len(config.renderer.kinds) + self.model.where_dim
        outputs = config.num_steps + 1 + config.num_steps * self.slot + self.model.scene_dim
        self.network = nn.Sequential(
            look,
            nn.Flatten(),
            nn.Linear(config.channels[-1] * side * side, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, outputs),
        )

    def forward(self, images: Images) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of the count and of each item's kind, places and the camera."""
        config = self.config
        sizes = [config.num_steps + 1, config.num_steps * self.slot, self.model.scene_dim]
        count, slots, camera = self.network(images).split(sizes, 1)
        kinds, places = slots.unflatten(1, (config.num_steps, self.slot)).split(
            [self.slot - self.model.where_dim, self.model.where_dim], 2
        )
        return count, kinds, places, camera

    def score(self, scenes: SceneDataset) -> Float[Tensor, "batch"]:
        """How well the truth is met, in the order of the labels."""
        device = self.model.log_p_count.device
        count, kinds, places, camera = self(scenes.float_images(device))
        scenes = scenes.to(device)
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
    def explain(self, images: Images) -> DrawnExplanation:
        """The most probable count and kinds of each image, the places, and what that draws."""
        return self.model.drawn(self.infer(images))

    @torch.no_grad()
    def infer(self, images: Images) -> Explanation:
        """What `explain` says, without drawing it."""
        parts = []
        for chunk in images.split(_BATCH):
            count, kinds, places, camera = self(chunk)
            present = torch.arange(self.config.num_steps, device=chunk.device) < count.argmax(1)[:, None]
            kinds, places = masked(present, kinds.argmax(2)), masked(present, places)
            parts.append((present.to(chunk.dtype), places, kinds, camera))
        return Explanation(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def reconstruct(self, images: Images) -> Images:
        """What the explanations draw."""
        return self.explain(images).reconstruction

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Accuracies and errors, as `air_agents.evaluation.metrics.evaluate` has them."""
        kinds = tuple(KINDS[name] for name in self.config.renderer.kinds)
        z = self.explain(scenes.float_images(self.model.log_p_count.device))
        return {name: values.double().mean().item() for name, values in compare(z, scenes, kinds).items()}

    def evaluate(self, scenes: SceneDataset) -> dict[str, float]:
        """What `measure` tells."""
        return self.measure(scenes)


def canonical(scenes: SceneDataset) -> SceneDataset:
    """Scenes with their items by kind and, of one kind, from left to right; absent ones last."""
    kinds = torch.where(scenes.labels < 0, scenes.labels.max() + 1, scenes.labels)
    order = (kinds * 100.0 + scenes.poses[..., 0].nan_to_num()).argsort(1)
    rows = torch.arange(len(scenes), device=order.device)[:, None]
    return SceneDataset(
        scenes.images,
        scenes.count,
        scenes.labels[rows, order],
        scenes.boxes[rows, order],
        scenes.poses[rows, order],
        scenes.z_scene,
    )
