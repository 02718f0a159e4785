"""The interface of everything that draws."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Renderer(Protocol):
    """Draws one more object onto the canvases of a batch of scenes."""

    def draw(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch where"],
        z_what: Float[Tensor, "batch what"],
    ) -> Float[Tensor, "batch channel height width"]:
        """The canvas with the object added; rows must not depend on each other."""
        ...

    def draw_all(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch step where"],
        z_what: Float[Tensor, "batch step what"],
    ) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects: what N calls of `draw` give, at once."""
        ...
