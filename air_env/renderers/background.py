"""A learned background: what is there before any object.

    c = sigmoid(decoder(z_scene)),    z_scene ~ N(0, 1)

or, where ``z_scene`` has length 0, one learned level for each channel, the same in all scenes (our choice; the paper's
canvas starts black). Objects are drawn onto it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env.explanation import Images
from air_env.precision import exact
from air_env.renderers.patch import INITIAL_LOGIT, picture_decoder

_PACE = 10.0
"""How many times as fast as its parameter a level moves: Adam's steps, of the learning rate's size, were made for
weights of which hundreds make a pixel."""


class Background(nn.Module):
    """Draws the canvas of scenes without objects.

    Args:
        code_dim: Length of ``z_scene``.
        hidden: Units of the decoder's hidden layer.
        shape: Channels, height and width of an image.
    """

    def __init__(self, code_dim: int, hidden: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        if code_dim > 0:
            self.decoder = picture_decoder(code_dim, hidden, shape)
        else:
            self.level = nn.Parameter(torch.full((shape[0], 1, 1), INITIAL_LOGIT / _PACE))

    @exact
    def forward(self, z_scene: Float[Tensor, "batch scene"]) -> Images:
        """The backgrounds, in [0, 1]."""
        if z_scene.shape[1] > 0:
            return self.decoder(z_scene).sigmoid().view(-1, *self.shape)
        return (_PACE * self.level).sigmoid().expand(len(z_scene), *self.shape)
