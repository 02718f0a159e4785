"""The network of inverse graphics, trained with the true kinds and poses (Section 3.2; Figure 6, "supervised").

A cube looks the same after a quarter of a turn, so that the same image comes with four poses: a network
trained with one of the four regresses to their mean; one trained by its reconstruction may choose any.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation
from air_env.model import Images, SceneConfig
from air_env.renderers import ObjectsConfig
from air_env.scenes import SceneDataset

from ..inference.agent import mode_of
from ..inference.objects3d import InverseGraphics, InverseGraphicsConfig
from .model import ComparisonSettings, SceneRegressor


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


class PoseRegressor(SceneRegressor):
    """Learns kinds by their log-probability, poses by squared errors; turns by whole circles are the same yaw.

    Args:
        config: Settings.
    """

    def __init__(self, config: PoseRegressorConfig) -> None:
        scene = SceneConfig(image_size=config.image_size, num_steps=1, renderer=ObjectsConfig(renderer="raycast"))
        network = InverseGraphics(scene, config.network)
        super().__init__(network.model)
        self.config, self.network = config, network

    def score(self, scenes: SceneDataset) -> Float[Tensor, "batch"]:
        """How well the truth of scenes with one object each is met."""
        scenes = scenes.to(self.device)
        state = self.network.initial(scenes.float_images(self.device))
        rows, kind, pose = torch.arange(len(scenes), device=self.device), scenes.labels[:, 0], scenes.poses[:, 0]
        difference = state.mean[rows, kind] - pose
        position = difference[:, :2].square().sum(1) / (2 * self.config.position_sd**2)
        turn = (1 - difference[:, 2].cos()) / self.config.yaw_sd**2
        return state.log_q[rows, kind] - position - turn

    @torch.no_grad()
    def infer(self, images: Images) -> Explanation:
        """The most probable kind of each image, and its pose."""
        state, _, what = self.network.decide(self.network.initial(images))
        z = self.network.describe_object(state, what, mode_of, mode_of)
        return Explanation.of_objects(images.new_ones(len(images), 1), z.z_where[:, None], z.z_what[:, None])
