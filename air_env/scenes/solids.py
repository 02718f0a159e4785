"""Scenes of three-dimensional objects: what they share, and how they differ from what a generative model draws."""

from dataclasses import dataclass, replace
from numbers import Real
from typing import cast

import torch
from jaxtyping import UInt8
from torch import Tensor

from air_env.renderers import SolidRenderer
from air_env.renderers.backends import PyrenderRenderer, RaycastRenderer, SceneBatch
from air_env.scene_config import SceneConfig
from air_env.scenes.base import STREAMS, PicturedScene, Split, check_request, read_counts

_CHUNK, _SKIPPED = 4_096, 1_000


@dataclass(frozen=True, kw_only=True)
class SolidScene(PicturedScene):
    """Images of three-dimensional objects, whose kinds and places are uniform.

    The spreads are perturbations that the generative model does not know of.
    """

    model: SceneConfig
    """The generative model of the images, but for perturbations."""
    reach: float = 1.0
    """Largest distance of an object's x and y from the origin, in the scene's unit."""
    colour_spread: float = 0.0
    """Standard deviation of the channels of an object's colour, from 0 to 1; also of a table's."""
    size_spread: float = 0.0
    """Largest difference of an object's size from its kind's, as a share of it."""
    light_spread: float = 0.0
    """Standard deviation of the light's direction, of length 1, in every coordinate."""
    counts: tuple[int, ...] = (1,)
    """Numbers of objects, equally probable."""
    drawer: RaycastRenderer | PyrenderRenderer | None = None
    """What draws the images, where it is not what the generative model draws with."""

    def __post_init__(self) -> None:
        for name, largest in (("reach", 1.5), ("colour_spread", 1.0), ("size_spread", 0.9), ("light_spread", 1.0)):
            value: float = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value <= largest:
                raise ValueError(f"{name} must lie between 0 and {largest}, got {value!r}")
        object.__setattr__(self, "counts", read_counts(self.counts, self.model.num_steps))

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.model.image_size

    def _begin(self, split: Split, num_scenes: int, seed: int) -> tuple[SolidRenderer, torch.Generator, Tensor]:
        """What draws, the source of all that is random, and the numbers of objects."""
        check_request(split, num_scenes, seed)
        generator = _generator(split, seed)
        count = torch.tensor(self.counts)[torch.randint(len(self.counts), (num_scenes,), generator=generator)]
        return cast(SolidRenderer, self.model.make_renderer()), generator, count

    def _perturbed(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        colour = scenes.colour + self.colour_spread * torch.randn(scenes.colour.shape, generator=generator)
        size = scenes.scale + self.size_spread * (2 * torch.rand(scenes.scale.shape, generator=generator) - 1)
        light = scenes.light + self.light_spread * torch.randn(scenes.light.shape, generator=generator)
        light = torch.nn.functional.normalize(light, dim=-1)
        return replace(scenes, colour=colour.clamp(0, 1), scale=size, light=light)

    def _images(self, scenes: SceneBatch, renderer: SolidRenderer) -> UInt8[Tensor, "scene 3 height width"]:
        drawer = replace(self.drawer or renderer.drawer, resolution=self.image_size)
        images = [drawer.render(scenes[start : start + _CHUNK]) for start in range(0, len(scenes), _CHUNK)]
        return (torch.cat(images) * 255).round().byte()


def _generator(split: Split, seed: int) -> torch.Generator:
    """The random numbers of a split: no two splits have the same ones, whatever their seeds."""
    if split != "validation":
        return torch.Generator().manual_seed(2 * seed + STREAMS[split])
    # Torch's seeds have 32 bits, and the other splits use all of them: these numbers begin later in the stream of a
    # seed far from small ones.
    generator = torch.Generator().manual_seed(2 * seed + 2**31)
    torch.randint(2, (_SKIPPED,), generator=generator)
    return generator
