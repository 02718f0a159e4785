"""`objects3d`: one three-dimensional object on a plane (Section 3.2; Figure 6, left).

A red cube, a blue sphere or a textured cylinder, at any place and turned by any angle. The renderer is known; kind and
pose are to be inferred.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from air_env.model import SceneConfig
from air_env.priors import CountPrior
from air_env.renderers import ObjectsConfig
from air_env.renderers.three_d import PyrenderRenderer, RaycastRenderer, SceneBatch
from air_env.scenes.base import SceneDataset, Split, check_request

_CHUNK = 4_096


@dataclass(frozen=True)
class ObjectScene:
    """Images of one object, on black; its kind, position and yaw are uniform.

    The spreads are perturbations that the generative model does not know of.
    """

    model: SceneConfig
    """The generative model of the images, but for perturbations."""
    reach: float = 1.0
    """Largest distance of an object's x and y from the origin, in the scene's unit."""
    colour_spread: float = 0.0
    """Standard deviation of the channels of an object's colour, from 0 to 1."""
    size_spread: float = 0.0
    """Largest difference of an object's size from its kind's, as a share of it."""
    light_spread: float = 0.0
    """Standard deviation of the light's direction, of length 1, in every coordinate."""
    counts: tuple[int, ...] = (1,)
    """Numbers of objects, equally probable: 0 and 1."""
    drawer: RaycastRenderer | PyrenderRenderer | None = None
    """What draws the images, where it is not what the generative model draws with."""

    def __post_init__(self) -> None:
        for name, largest in (("reach", 1.5), ("colour_spread", 1.0), ("size_spread", 0.9), ("light_spread", 1.0)):
            value = getattr(self, name)
            if not 0 <= value <= largest:
                raise ValueError(f"{name} must lie between 0 and {largest}, got {value}")
        if not self.counts or not set(self.counts) <= {0, 1}:
            raise ValueError(f"counts must be of 0 and 1, these scenes have one object at most; got {self.counts!r}")

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.model.image_size

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Draws scenes; the same arguments give the same scenes. The splits differ in their arrangements only."""
        check_request(split, num_scenes, seed)
        assert isinstance(self.model.renderer, ObjectsConfig)
        renderer = self.model.renderer.make()
        generator = torch.Generator().manual_seed(2 * seed + (split == "test"))
        count = torch.tensor(self.counts)[torch.randint(len(self.counts), (num_scenes,), generator=generator)]
        kind = renderer.prior_what.sample(num_scenes, generator=generator)
        low, high = torch.tensor([-self.reach, -self.reach, -math.pi]), torch.tensor([self.reach, self.reach, math.pi])
        pose = low + (high - low) * torch.rand(num_scenes, 3, generator=generator)
        scenes = self._perturbed(renderer.scenes(pose, kind), generator)
        scenes = replace(scenes, kind=torch.where(count[:, None] > 0, scenes.kind, -1))
        there, side = count[:, None] > 0, self.image_size
        boxes = (renderer.boxes(pose, kind) + 1).clamp(0, 2) * (side / 2)
        return SceneDataset(
            images=_draw(self.drawer or renderer.drawer, scenes, side),
            count=count,
            labels=torch.where(there, kind[:, None], -1),
            boxes=torch.where(there[..., None], boxes[:, None], torch.nan),
            poses=torch.where(there[..., None], pose[:, None], torch.nan),
        )

    def _perturbed(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        colour = scenes.colour + self.colour_spread * torch.randn(scenes.colour.shape, generator=generator)
        size = scenes.scale + self.size_spread * (2 * torch.rand(scenes.scale.shape, generator=generator) - 1)
        light = scenes.light + self.light_spread * torch.randn(scenes.light.shape, generator=generator)
        light = torch.nn.functional.normalize(light, dim=-1)
        return replace(scenes, colour=colour.clamp(0, 1), scale=size, light=light)


def _draw(drawer: RaycastRenderer | PyrenderRenderer, scenes: SceneBatch, side: int) -> torch.Tensor:
    drawer = replace(drawer, resolution=side)
    images = [drawer.render(scenes[start : start + _CHUNK]) for start in range(0, len(scenes), _CHUNK)]
    return (torch.cat(images) * 255).round().byte()


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
        renderer: One of `RENDERERS_3D`.
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
    return ObjectScene(model, reach, colour_spread, size_spread, light_spread, tuple(counts))
