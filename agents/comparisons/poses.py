"""The network of inverse graphics, trained with the true kinds and poses (Section 3.2; Figure 6, "supervised").

A cube looks the same after a quarter of a turn, so that the same image comes with four poses: a network
trained with one of the four regresses to their mean; one trained by its reconstruction may choose any.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import DrawnExplanation, Explanation
from air_env.model import Images, SceneConfig, SceneModel
from air_env.renderers import ObjectsConfig
from air_env.scenes import SceneDataset

from ..evaluation.metrics import compare, kinds_of
from ..inference.agent import mode_of
from ..inference.objects3d import InverseGraphics, InverseGraphicsConfig
from .model import ComparisonModel, ComparisonSettings

_BATCH = 500


@dataclass(frozen=True)
class PoseRegressorConfig(ComparisonSettings):
    """Settings of a network trained with poses."""

    kind: ClassVar[str] = "poses"

    network: InverseGraphicsConfig = field(default_factory=InverseGraphicsConfig)
    """The same as of the agent."""
    image_size: int = 32
    """Side of the square image in pixels."""
    position_sd: float = 0.1
    """Scale of the loss: a distance in the scene's unit that weighs as much as (our choice)"""
    yaw_sd: float = 0.3
    """a turn by so many radians (our choice)."""

    def make(self) -> "PoseRegressor":
        """The model."""
        return PoseRegressor(self)


class PoseRegressor(ComparisonModel):
    """Learns kinds by their log-probability, poses by squared errors; turns by whole circles are the same yaw.

    Args:
        config: Settings.
    """

    objective = "log_probability"

    def __init__(self, config: PoseRegressorConfig) -> None:
        super().__init__()
        self.config = config
        renderer = ObjectsConfig(renderer="raycast")
        self.network = InverseGraphics(
            SceneConfig(image_size=config.image_size, num_steps=1, renderer=renderer), config.network
        )

    def score(self, scenes: SceneDataset) -> Float[Tensor, "batch"]:
        """How well the truth of scenes with one object each is met."""
        device = self.network.heights.device
        state = self.network.initial(scenes.float_images(device))
        rows = torch.arange(len(scenes), device=device)
        kind, pose = scenes.labels[:, 0].to(device), scenes.poses[:, 0].to(device)
        difference = state.mean[rows, kind] - pose
        position = difference[:, :2].square().sum(1) / (2 * self.config.position_sd**2)
        turn = (1 - difference[:, 2].cos()) / self.config.yaw_sd**2
        return state.log_q[rows, kind] - position - turn

    @property
    def model(self) -> SceneModel:
        """The generative model, which draws what the network infers."""
        return self.network.model

    @torch.no_grad()
    def explain(self, images: Images) -> DrawnExplanation:
        """The most probable kind of each image, and its pose."""
        network, parts = self.network, []
        for chunk in images.split(_BATCH):
            state, _, what = network.decide(network.initial(chunk))
            z = network.describe_object(state, what, mode_of, mode_of)
            parts.append((z.z_where, z.z_what))
        z_where, z_what = (torch.cat(values)[:, None] for values in zip(*parts, strict=True))
        return network.model.drawn(Explanation.of_objects(images.new_ones(len(images), 1), z_where, z_what))

    def reconstruct(self, images: Images) -> Images:
        """What the explanations draw."""
        return self.explain(images).reconstruction

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Accuracy of the kinds, and errors of the poses, as `air_agents.evaluation.metrics.evaluate` has them."""
        z = self.explain(scenes.float_images(self.network.heights.device))
        errors = compare(z, scenes, kinds_of(self.network.model))
        return {name: values.double().mean().item() for name, values in errors.items()}
