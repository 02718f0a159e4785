"""Representations of scenes, which heads read (Section 3.1.2; Figure 5).

    objects  [scene, look, step, feature]   of AIR: P(n >= step), z_where, z_what of every step
    vectors  [scene, feature]               codes of DRAW and of the autoencoder, and pixels

None of them sees a label. AIR's codes come in two forms: as its explanation has them, in one look; and inferred again,
from several windows `around` what each object draws and with the other objects taken out of the image, since the ELBO
does not mind where in its window an object is, and who is to read it does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation
from air_env.model import Images
from air_env.registry import Registry
from air_env.scenes import SceneDataset

from ..inference.air import AIR
from .model import ImageModel

Objects = Float[Tensor, "scene look step feature"]
Vectors = Float[Tensor, "scene feature"]

_CHUNK = 1_000
_NO_LIGHT = 1e-6
_WIDTH = 1.85
"""Half the width of a window relative to the root mean square distance of its light from the centre; what windows
have on average that nobody moved."""
_LOOKS, _JITTER = 8, 0.06
"""How often an object is looked at again, and by how much the windows differ, relative to their size."""


def inferred_once(agent: AIR, scenes: SceneDataset) -> Objects:
    """AIR's codes along its path of modes, in one look: those of its explanation, and of the steps it leaves out."""
    return _in_parts(agent, scenes, lambda images, _: _join(*_follow(agent, images))[:, None])


def inferred_again(agent: AIR, scenes: SceneDataset) -> Objects:
    """AIR's codes of the same objects, inferred again in several looks, the same for the same scenes."""
    return _in_parts(agent, scenes, lambda images, generator: _look_again(agent, images, generator))


def codes(model: ImageModel, scenes: SceneDataset) -> Vectors:
    """A model's codes, one for the whole scene."""
    return model.features(scenes.float_images(model.device)).cpu()


def pixels(model: object, scenes: SceneDataset) -> Vectors:
    """The pixels in [0, 1], of which no model makes anything."""
    del model
    return scenes.float_images().flatten(1).cpu()


@dataclass(frozen=True)
class Representation:
    """What a trained model says of scenes."""

    model: str
    """Family of the runs whose model computes it; empty where there is none."""
    describe: Callable[[Any, SceneDataset], Tensor]
    """The features of scenes, from the model."""


REPRESENTATIONS: Registry[Representation] = Registry(
    "representation",
    {
        "AIR, inferred once": Representation("air", inferred_once),
        "AIR, inferred again": Representation("air", inferred_again),
        "DRAW": Representation("draw", codes),
        "autoencoder": Representation("autoencoder", codes),
        "pixels": Representation("", pixels),
    },
)
"""Name -> representation."""


def around(pictures: Float[Tensor, "batch channel side side"]) -> Float[Tensor, "batch 3"]:
    """The windows that are centred on the light of pictures, and as large as it is spread."""
    light = pictures.sum(1).clamp_min(_NO_LIGHT)
    light = light / light.sum((1, 2), keepdim=True)
    side = light.shape[-1]
    pixel = (torch.arange(side, device=light.device, dtype=light.dtype) + 0.5) * 2 / side - 1
    along = torch.stack([light.sum(1), light.sum(2)], 1)  # x, y
    centre = along @ pixel
    variance = (along * (pixel - centre[..., None]).square()).sum((1, 2))
    return torch.cat([(0.5 * variance.log() + math.log(_WIDTH)).clamp_max(0.0)[:, None], centre], 1)


@torch.no_grad()
def _in_parts(agent: AIR, scenes: SceneDataset, look: Callable[[Images, torch.Generator], Tensor]) -> Tensor:
    device = agent.model.log_p_count.device
    generator = torch.Generator(device).manual_seed(0)
    parts = (scenes[start : start + _CHUNK] for start in range(0, len(scenes), _CHUNK))
    return torch.cat([look(part.float_images(device), generator).cpu() for part in parts])


def _follow(agent: AIR, images: Images) -> tuple[Tensor, Tensor, Tensor]:
    """Of every step P(n >= step), ``z_where`` and ``z_what``."""
    path = agent.follow_modes(images, agent.model.config.num_steps)
    return path.logits.sigmoid().cumprod(1), path.z.z_where, path.z.z_what


def _join(present: Tensor, z_where: Tensor, z_what: Tensor) -> Tensor:
    return torch.cat([present[..., None], z_where, z_what], -1)


def _look_again(agent: AIR, images: Images, generator: torch.Generator) -> Objects:
    present, z_where, z_what = _follow(agent, images)
    empty = torch.zeros_like(images).repeat_interleave(present.shape[1], 0)
    where, what = z_where.flatten(0, 1)[:, None], z_what.flatten(0, 1)[:, None]
    pictures = agent.model.renderer.draw(empty, Explanation.of_objects(torch.ones_like(where[..., 0]), where, what))
    windows = around(pictures)
    pictures = pictures.unflatten(0, present.shape) * present[..., None, None, None]
    alone = (images[:, None] - pictures.sum(1, keepdim=True) + pictures).flatten(0, 1)
    looks = []
    for _ in range(_LOOKS):
        moves = _JITTER * torch.randn(windows.shape, generator=generator, device=windows.device)
        window = windows + moves * F.pad(windows[:, :1].exp().expand(-1, 2), (1, 0), value=1.0)
        seen = agent.describe(alone, torch.zeros_like(alone), window).mode
        looks.append(_join(present, window.unflatten(0, present.shape), seen.unflatten(0, present.shape)))
    return torch.stack(looks, 1)
