"""A backend, which draws three-dimensional scenes: every object is a blurred dot, seen from above.

It need not be differentiable, nor use torch: `render_with_gradient` compares images of moved objects, all in one call.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.renderers.backends import SceneBatch

_SIDE, _REACH = 16, 2.0
"""Pixels of an image's side; the plane it shows reaches from minus this to this."""


class Dots:
    """Draws dots of the objects' colours."""

    def render(self, scenes: SceneBatch) -> Float[Tensor, "batch 3 height width"]:
        """The images of a batch of scenes; there is no object where the kind is negative."""
        axis = torch.linspace(-_REACH, _REACH, _SIDE)
        plane = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
        away = plane - scenes.position[:, :, None, None]
        dots = torch.exp(-4 * away.square().sum(-1)) * (scenes.kind >= 0)[..., None, None]
        return torch.einsum("bkc,bkhw->bchw", scenes.colour, dots).clamp(0, 1)
