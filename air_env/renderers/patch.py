"""A learned renderer: a network paints a patch, a spatial transformer places it, patches add up.

canvas_i = canvas_{i-1} + place(sigmoid(decoder(z_what_i)), z_where_i)        (Figure 2, left)
"""

from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env import geometry


class PatchRenderer(nn.Module):
    """Decoder and spatial transformer; its weights are the learnable part of the generative model.

    Args:
        what_dim: Length of ``z_what``.
        patch_size: Side of the square patch in pixels.
        hidden: Units of the decoder's hidden layer.
        bias: Initial bias of the output. Negative, so that windows start nearly empty: bright first
            reconstructions make the inference network switch its steps off for good.
    """

    def __init__(self, what_dim: int = 50, patch_size: int = 20, hidden: int = 200, bias: float = -2.0) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.decoder = nn.Sequential(nn.Linear(what_dim, hidden), nn.ReLU(), nn.Linear(hidden, patch_size**2))
        output = self.decoder[-1]
        assert isinstance(output, nn.Linear)
        nn.init.constant_(output.bias, bias)

    def draw_all(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch step 3"],
        z_what: Float[Tensor, "batch step what"],
    ) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects."""
        objects = geometry.place(self.patch(z_what.flatten(0, 1)), z_where.flatten(0, 1), canvas.shape[-1])
        canvases = accumulate(objects.unflatten(0, z_where.shape[:2]).unbind(1), torch.add, initial=canvas)
        return torch.stack(list(canvases)[1:], 1)

    def patch(self, z_what: Float[Tensor, "batch what"]) -> Float[Tensor, "batch 1 h w"]:
        """What the object looks like, in [0, 1]."""
        return torch.sigmoid(self.decoder(z_what)).view(-1, 1, self.patch_size, self.patch_size)

    def draw(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch 3"],
        z_what: Float[Tensor, "batch what"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Adds the object's pixels to the canvas."""
        return canvas + geometry.place(self.patch(z_what), z_where, canvas.shape[-1])
