"""`objects3d`: one three-dimensional object on a plane (Section 3.2; Figure 6, left).

A red cube, a blue sphere or a textured cylinder, at any place and turned by any angle. The renderer is known; kind and
pose are to be inferred.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from air_env.explanation import Explanation
from air_env.priors import CountPrior
from air_env.renderers import ObjectsConfig
from air_env.scene_config import SceneConfig
from air_env.scenes.base import SceneDataset, Split
from air_env.scenes.solids import SolidScene


@dataclass(frozen=True, kw_only=True)
class ObjectScene(SolidScene):
    """Images of one object, or of none, on black; its kind, position and yaw are uniform."""

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Draws scenes; the same arguments give the same scenes. The splits differ in their arrangements only."""
        renderer, generator, count = self._begin(split, num_scenes, seed)
        kind = renderer.prior_what.sample(num_scenes, 1, generator=generator)
        low, high = torch.tensor([-self.reach, -self.reach, -math.pi]), torch.tensor([self.reach, self.reach, math.pi])
        pose = low + (high - low) * torch.rand(num_scenes, 1, 3, generator=generator)
        z = Explanation.of_objects(torch.ones(num_scenes, 1), pose, kind)
        scenes = self._perturbed(renderer.scenes(z), generator)
        there = count[:, None] > 0
        boxes = (renderer.boxes(z, scenes.scale) + 1).clamp(0, 2) * (self.image_size / 2)
        return SceneDataset(
            images=self._images(replace(scenes, kind=torch.where(there, scenes.kind, -1)), renderer),
            count=count,
            labels=torch.where(there, kind, -1),
            boxes=torch.where(there[..., None], boxes, torch.nan),
            poses=torch.where(there[..., None], pose, torch.nan),
        )


def objects3d(
    data_dir: Path | str | None = None,
    image_size: int = 32,
    renderer: str = "auto",
    reach: float = 1.0,
    colour_spread: float = 0.0,
    size_spread: float = 0.0,
    light_spread: float = 0.0,
    counts: tuple[int, ...] = (1,),
) -> ObjectScene:
    """Images of a red cube, a blue sphere or a textured cylinder.

    Args:
        data_dir: Not used: objects are drawn.
        image_size: Side of the images in pixels.
        renderer: One of `BACKENDS`.
        reach: As `ObjectScene` has it, like the following.
        colour_spread: Perturbation of colours.
        size_spread: Of sizes.
        light_spread: Of the light's direction.
        counts: Numbers of objects.
    """
    del data_dir
    model = SceneConfig(
        image_size=image_size,
        num_steps=1,
        likelihood_scale=0.1,
        count_prior=CountPrior("uniform"),
        renderer=ObjectsConfig(renderer=renderer),
    )
    return ObjectScene(
        model=model,
        reach=reach,
        colour_spread=colour_spread,
        size_spread=size_spread,
        light_spread=light_spread,
        counts=counts,
    )
