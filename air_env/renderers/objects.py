"""One three-dimensional object: ``z_what`` is its kind, ``z_where`` its pose ``(x, y, yaw)`` (Section 3.2)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from air_env.priors import PosePrior
from air_env.renderers.backends import SceneBatch, render_with_gradient
from air_env.renderers.backends.camera import CAMERA
from air_env.renderers.solids import SolidRenderer, SolidsConfig


@dataclass(frozen=True)
class ObjectsConfig(SolidsConfig):
    """Settings of a renderer of one three-dimensional object."""

    kind: ClassVar[str] = "objects3d"
    kinds: tuple[str, ...] = ("cube", "sphere", "cylinder")

    def make(self) -> "ObjectRenderer":
        """The renderer.

        Raises:
            OpenGLError: It is to be pyrender, and there is no OpenGL.
        """
        return ObjectRenderer(self)


class ObjectRenderer(SolidRenderer):
    """Draws one object."""

    max_steps = 1
    """It draws one object a scene: a second one may hide part of the first."""

    def __init__(self, config: ObjectsConfig) -> None:
        super().__init__(config)
        self.prior_where = PosePrior(config.position_sd)

    def scenes(self, z_where: Float[Tensor, "batch 3"], z_what: Int[Tensor, "batch"]) -> SceneBatch:
        """One object a scene."""
        return SceneBatch.of(self.kinds[z_what][:, None], z_where[:, None, :2], z_where[:, None, 2], check=False)

    def draw(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch 3"],
        z_what: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch channel height width"]:
        """The object, on black; of the canvas only the size matters."""
        drawer = replace(self.drawer, resolution=canvas.shape[-1])

        def scenes(poses: Tensor) -> SceneBatch:
            return self.scenes(poses, z_what.repeat(len(poses) // max(1, len(z_what))))

        return render_with_gradient(drawer, scenes, [z_where], [self.config.step])

    def draw_all(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch step 3"],
        z_what: Int[Tensor, "batch step"],
    ) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N = 1 objects."""
        return self.draw(canvas, z_where[:, 0], z_what[:, 0])[:, None]

    def boxes(
        self,
        z_where: Float[Tensor, "*batch 3"],
        z_what: Int[Tensor, "*batch"],
        scale: Float[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, "*batch 4"]:
        """What the outlines of objects span, ``(x0, y0, x1, y1)`` in image coordinates."""
        camera = z_where.new_tensor(CAMERA).expand_as(z_where)
        return self.outlines(z_what, z_where[..., :2], z_where[..., 2], camera, scale)
