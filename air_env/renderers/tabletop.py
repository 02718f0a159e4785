"""Crockery on a table: ``z_what`` is the kind, ``z_where`` the place ``(x, y)`` on the table (Section 3.2; Figure 7).

``z_scene`` is the angle in radians at which the camera stands.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation, Images
from air_env.priors import GaussianPrior
from air_env.renderers.backends import KINDS, PyrenderRenderer, RaycastRenderer, SceneBatch
from air_env.renderers.backends.camera import orbit
from air_env.renderers.base import MOST_STEPS
from air_env.renderers.solids import SolidRenderer, SolidsConfig

_TABLE = list(KINDS).index("table")


@dataclass(frozen=True)
class TabletopConfig(SolidsConfig):
    """Settings of a renderer of crockery on a table."""

    kind: ClassVar[str] = "tabletop3d"
    kinds: tuple[str, ...] = ("plate", "bowl", "cup")
    position_sd: float = 0.9
    """Prior standard deviation of x and y, in the scene's unit: the table is 4.2 wide."""
    camera_sd: float = 0.4
    """Prior standard deviation of the camera's angle in radians."""
    camera_step: float = 0.06
    """Half the distance of two angles of the camera that finite differences compare, in radians; about a pixel."""
    camera_distance: float = 6.6
    """Distance of the camera from the axis about which it turns."""
    camera_height: float = 5.0
    """Height of the camera above the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_not_positive("camera_sd", "camera_step", "camera_distance", "camera_height")
        if round_ones := [kind for kind in self.kinds if KINDS[kind].yaw_symmetry]:
            raise ValueError(f"kinds on a table must be round, for they have no yaw; {', '.join(round_ones)} are not")

    def make(self) -> "TabletopRenderer":
        """The renderer.

        Raises:
            OpenGLError: It is to be pyrender, and there is no OpenGL.
        """
        return TabletopRenderer(self)


class TabletopRenderer(SolidRenderer):
    """Draws a table and what stands on it."""

    max_steps = MOST_STEPS
    config: TabletopConfig

    def __init__(self, config: TabletopConfig) -> None:
        super().__init__(config)
        self.prior_where = GaussianPrior((0.0, 0.0), (config.position_sd, config.position_sd))
        self.prior_scene = GaussianPrior((0.0,), (config.camera_sd,))

    @property
    def scene_step(self) -> float:
        """Step of finite differences in the camera's angle, in radians."""
        return self.config.camera_step

    def poses(self, z_where: Float[Tensor, "*batch 2"]) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
        """Places on the table; round items have no yaw."""
        return z_where, torch.zeros_like(z_where[..., 0])

    def camera(self, z_scene: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 3"]:
        """Where the camera is, by its angle."""
        return orbit(z_scene[..., 0], self.config.camera_distance, self.config.camera_height)

    def scenes(self, z: Explanation) -> SceneBatch:
        """The items that are present, and the table as the last object."""
        kinds = F.pad(self.numbers_of(z.z_pres > 0.5, z.z_what), (0, 1), value=_TABLE)
        position, yaw = self.poses(F.pad(z.z_where, (0, 0, 0, 1)))
        return SceneBatch.of(kinds, position, yaw, camera=self.camera(z.z_scene), check=False)

    def drawer_of(self, canvas: Images, num_objects: int) -> RaycastRenderer | PyrenderRenderer:
        """The backend, told which of the two shapes every object has."""
        drawer = super().drawer_of(canvas, num_objects)
        if isinstance(drawer, RaycastRenderer):
            drawer = replace(drawer, shapes=("round",) * num_objects + ("box",))
        return drawer
