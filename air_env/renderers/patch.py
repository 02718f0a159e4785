"""A learned renderer: a network paints a patch, a spatial transformer places it, patches add up or hide each other.

    c_i = c_{i-1} + place(colour_i, z_where_i)                                          (Figure 2, left)
    c_i = (1 - place(alpha_i, z_where_i)) c_{i-1} + place(alpha_i colour_i, z_where_i)  if patches are opaque

with ``colour_i``, of one channel or three, and the opacity ``alpha_i`` of every pixel read off ``z_what_i``. Opaque
patches are composited in the order of the steps, each in front of those before it ("over", Porter and Duff, 1984): the
canvas after i objects then depends on the canvas before and the i-th object alone, as a step of `SceneModel` and the
error canvas of DAIR have it. With the first object in front it would depend on what each pixel still lets through.
"""

import math
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

INITIAL_LOGIT = -2.0
"""Bias of the output: pictures, such as windows, start nearly empty. Bright first reconstructions make the inference
network switch its steps off for good."""
_EDGE = 0.3
"""Brightness, or opacity, at which an object ends, relative to its largest (our choice): of 0.02 to 0.5 the one whose
boxes agree best with those of multi-MNIST digits that are not trained on."""


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
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    opaque: bool = False
    """Whether a patch has an opacity, too, and hides what earlier ones drew (Appendix H); otherwise they add up."""

    def __post_init__(self) -> None:
        keep_whole(self, 1, "what_dim", "patch_size", "hidden", "channels")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")
        if not isinstance(self.opaque, bool):
            raise ValueError(f"opaque must be True or False, got {self.opaque!r}")

    def make(self) -> "PatchRenderer":
        """The renderer, with fresh weights."""
        return PatchRenderer(self)


class PatchRenderer(WindowRenderer):
    """Decoder and spatial transformer; its weights are a learnable part of the generative model."""

    differentiable = True

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.channels, self.opaque = config.channels, config.opaque
        self.patch_shape = (config.channels + config.opaque, config.patch_size, config.patch_size)
        self.prior_what: Prior = GaussianPrior((0.0,) * config.what_dim, (1.0,) * config.what_dim)
        # What is hardly there may be of a middling colour.
        middling = config.channels if config.opaque else 0
        self.decoder = picture_decoder(config.what_dim, config.hidden, self.patch_shape, middling)

    @exact
    def patch(self, z_what: Float[Tensor, "batch what"]) -> Float[Tensor, "batch layer h w"]:
        """What the object looks like, in [0, 1]: its colours; if it is opaque, times its opacity, which is last."""
        layers = torch.sigmoid(self.decoder(z_what)).view(-1, *self.patch_shape)
        if not self.opaque:
            return layers
        colour, opacity = layers.split([self.channels, 1], 1)
        return torch.cat([opacity * colour, opacity], 1)

    def add(self, canvas: Images, z_where: Float[Tensor, "batch 3"], z_what: Float[Tensor, "batch what"]) -> Images:
        """Adds the object's pixels to the canvas, or lays them over it."""
        return self._onto(canvas, geometry.place(self.patch(z_what), z_where, canvas.shape[-1]))

    def draw_all(self, canvas: Images, z: Explanation) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects, whose patches are decoded at once."""
        objects = geometry.place(self.patch(z.z_what.flatten(0, 1)), z.z_where.flatten(0, 1), canvas.shape[-1])
        canvases = accumulate(objects.unflatten(0, z.z_where.shape[:2]).unbind(1), self._onto, initial=canvas)
        return torch.stack(list(canvases)[1:], 1)

    def _onto(self, canvas: Images, placed: Float[Tensor, "batch layer height width"]) -> Images:
        """The canvas with a placed patch."""
        if not self.opaque:
            return canvas + placed
        colour, opacity = placed.split([self.channels, 1], 1)
        return torch.addcmul(colour, canvas, 1 - opacity)

    @torch.no_grad()
    def boxes(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """What patches draw, or hide, within window and image; the window's part of the image where that is nothing."""
        patches = self.patch(z.z_what.flatten(0, 1)).amax(1).unflatten(0, z.z_where.shape[:2])
        profiles = torch.stack([patches.amax(-2), patches.amax(-1)], -2)
        begin, end = _begins(torch.cat([profiles, profiles.flip(-1)], -2)).chunk(2, -1)
        borders = torch.cat([begin, -end], -1)
        return (z.z_where[..., :1].exp() * borders + z.z_where[..., 1:].repeat(1, 1, 2)).clamp(-1, 1)


def picture_decoder(code_dim: int, hidden: int, shape: tuple[int, int, int], middling: int = 0) -> nn.Sequential:
    """A network from codes to the logits of pictures of a shape, flattened: dark at first, but for so many layers."""
    output = nn.Linear(hidden, math.prod(shape))
    decoder = nn.Sequential(nn.Linear(code_dim, hidden), nn.ReLU(), output)
    nn.init.constant_(output.bias, INITIAL_LOGIT)
    nn.init.zeros_(output.bias.view(shape)[:middling])
    return decoder


def _begins(rows: Float[Tensor, "batch step row pixel"]) -> Float[Tensor, "batch step row"]:
    """Where the interpolation of a row of pixels first reaches the object's edge, in window coordinates."""
    size, edge = rows.shape[-1], _EDGE * rows.amax(-1, keepdim=True)
    # With the black before it, pixel i of the row has its centre i - 1/2 pixels from the window's border.
    padded = F.pad(rows, (1, 0))
    first = (padded > edge).byte().argmax(-1, keepdim=True)
    before, here = padded.gather(-1, (first - 1).clamp_min(0)), padded.gather(-1, first)
    begin = first - 0.5 - (here - edge) / (here - before)
    return torch.where(first > 0, 2 * begin / size - 1, -1.0).clamp_min(-1)[..., 0]
