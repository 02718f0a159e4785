"""A learned renderer: a network paints a patch, a spatial transformer places it, patches add up.

canvas_i = canvas_{i-1} + place(sigmoid(decoder(z_what_i)), z_where_i)        (Figure 2, left)
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Explanation, Images
from air_env.precision import exact
from air_env.priors import GaussianPrior, Prior
from air_env.reading import keep_whole
from air_env.renderers.base import RendererSettings, WindowRenderer

_INITIAL_BIAS = -2.0
"""Bias of the output: windows start nearly empty. Bright first reconstructions make the inference network switch its
steps off for good."""
_EDGE = 0.3
"""Brightness at which an object ends, relative to its brightest pixel (our choice): of 0.02 to 0.5 the one whose boxes
agree best with those of multi-MNIST digits that are not trained on."""


@dataclass(frozen=True)
class PatchConfig(RendererSettings):
    """Settings of a learned patch renderer."""

    kind: ClassVar[str] = "patch"

    what_dim: int = 50
    """Length of ``z_what``, a priori standard normal."""
    patch_size: int = 20
    """Side of a decoded patch in pixels."""
    hidden: int = 200
    """Units of the decoder's hidden layer."""

    def __post_init__(self) -> None:
        keep_whole(self, 1, "what_dim", "patch_size", "hidden")

    def make(self) -> "PatchRenderer":
        """The renderer, with fresh weights."""
        return PatchRenderer(self)


class PatchRenderer(WindowRenderer):
    """Decoder and spatial transformer; its weights are the learnable part of the generative model."""

    channels = 1
    differentiable = True

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.prior_what: Prior = GaussianPrior((0.0,) * config.what_dim, (1.0,) * config.what_dim)
        output = nn.Linear(config.hidden, config.patch_size**2)
        self.decoder = nn.Sequential(nn.Linear(config.what_dim, config.hidden), nn.ReLU(), output)
        nn.init.constant_(output.bias, _INITIAL_BIAS)

    @exact
    def patch(self, z_what: Float[Tensor, "batch what"]) -> Float[Tensor, "batch 1 h w"]:
        """What the object looks like, in [0, 1]."""
        return torch.sigmoid(self.decoder(z_what)).view(-1, 1, self.patch_size, self.patch_size)

    def add(self, canvas: Images, z_where: Float[Tensor, "batch 3"], z_what: Float[Tensor, "batch what"]) -> Images:
        """Adds the object's pixels to the canvas."""
        return canvas + geometry.place(self.patch(z_what), z_where, canvas.shape[-1])

    def draw_all(self, canvas: Images, z: Explanation) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects, whose patches are decoded at once."""
        objects = geometry.place(self.patch(z.z_what.flatten(0, 1)), z.z_where.flatten(0, 1), canvas.shape[-1])
        canvases = accumulate(objects.unflatten(0, z.z_where.shape[:2]).unbind(1), torch.add, initial=canvas)
        return torch.stack(list(canvases)[1:], 1)

    @torch.no_grad()
    def boxes(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """What the patches draw, within window and image; the window's part of the image where they are black."""
        patches = self.patch(z.z_what.flatten(0, 1))[:, 0].unflatten(0, z.z_where.shape[:2])
        profiles = torch.stack([patches.amax(-2), patches.amax(-1)], -2)
        begin, end = _begins(torch.cat([profiles, profiles.flip(-1)], -2)).chunk(2, -1)
        borders = torch.cat([begin, -end], -1)
        return (z.z_where[..., :1].exp() * borders + z.z_where[..., 1:].repeat(1, 1, 2)).clamp(-1, 1)


def _begins(rows: Float[Tensor, "batch step row pixel"]) -> Float[Tensor, "batch step row"]:
    """Where the interpolation of a row of pixels first reaches the object's edge, in window coordinates."""
    size, edge = rows.shape[-1], _EDGE * rows.amax(-1, keepdim=True)
    # With the black before it, pixel i of the row has its centre i - 1/2 pixels from the window's border.
    padded = F.pad(rows, (1, 0))
    first = (padded > edge).byte().argmax(-1, keepdim=True)
    before, here = padded.gather(-1, (first - 1).clamp_min(0)), padded.gather(-1, first)
    begin = first - 0.5 - (here - edge) / (here - before)
    return torch.where(first > 0, 2 * begin / size - 1, -1.0).clamp_min(-1)[..., 0]
