"""One three-dimensional object: ``z_what`` is its kind, ``z_where`` its pose ``(x, y, yaw)`` (Section 3.2)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation
from air_env.priors import GaussianPrior, PosePrior
from air_env.renderers.backends import SceneBatch
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
    """Draws one object on black, seen by a camera that stays where it is."""

    max_steps = 1

    def __init__(self, config: ObjectsConfig) -> None:
        super().__init__(config)
        self.prior_where = PosePrior(config.position_sd)
        self.prior_scene = GaussianPrior()

    def poses(self, z_where: Float[Tensor, "*batch 3"]) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
        """Positions and yaws."""
        return z_where[..., :2], z_where[..., 2]

    def camera(self, z_scene: Float[Tensor, "batch 0"]) -> Float[Tensor, "batch 3"]:
        """Where the camera always is."""
        return z_scene.new_tensor(CAMERA).expand(len(z_scene), 3)

    def scenes(self, z: Explanation) -> SceneBatch:
        """The objects that are present."""
        return SceneBatch.of(self.numbers_of(z.z_pres > 0.5, z.z_what), *self.poses(z.z_where), check=False)
