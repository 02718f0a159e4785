"""Crockery on a table: ``z_what`` is the kind, ``z_where`` the place ``(x, y)`` on the table (Section 3.2; Figure 7).

One latent belongs to the whole scene: ``z_camera``, the angle in radians at which the camera stands.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from air_env.priors import GaussianPrior
from air_env.renderers.backends import KINDS, RaycastRenderer, SceneBatch, render_with_gradient
from air_env.renderers.backends.camera import orbit
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
    """Of the camera from the axis about which it turns."""
    camera_height: float = 5.0
    """Of the camera above the table."""

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

    config: TabletopConfig

    def __init__(self, config: TabletopConfig) -> None:
        super().__init__(config)
        self.prior_where = GaussianPrior((0.0, 0.0), (config.position_sd, config.position_sd))
        self.prior_camera = GaussianPrior((0.0,), (config.camera_sd,))

    def camera(self, z_camera: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 3"]:
        """Where the camera is."""
        return orbit(z_camera[..., 0], self.config.camera_distance, self.config.camera_height)

    def scenes(
        self,
        z_camera: Float[Tensor, "batch 1"],
        present: Bool[Tensor, "batch step"],
        z_where: Float[Tensor, "batch step 2"],
        z_what: Int[Tensor, "batch step"],
    ) -> SceneBatch:
        """The objects that are present, and the table."""
        kinds = torch.where(present, self.kinds[z_what], -1)
        kinds = torch.cat([kinds, kinds.new_full((len(kinds), 1), _TABLE)], 1)
        position = torch.cat([z_where, z_where.new_zeros(len(kinds), 1, 2)], 1)
        yaw = torch.zeros_like(position[..., 0])
        return SceneBatch.of(kinds, position, yaw, camera=self.camera(z_camera), check=False)

    def draw_scenes(
        self,
        canvas: Float[Tensor, "batch 3 height width"],
        z_camera: Float[Tensor, "batch 1"],
        present: Bool[Tensor, "batch step"],
        z_where: Float[Tensor, "batch step 2"],
        z_what: Int[Tensor, "batch step"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """The table, seen from the camera, with the objects that are present."""
        if len(z_camera) == 0:
            return torch.zeros_like(canvas)

        def scenes(camera: Tensor, *places: Tensor) -> SceneBatch:
            copies = len(camera) // len(z_camera)
            where = torch.stack(places, 1) if places else z_where.repeat(copies, 1, 1)
            return self.scenes(camera, present.repeat(copies, 1), where, z_what.repeat(copies, 1))

        config = self.config
        steps = [config.camera_step] + [config.step] * z_where.shape[1]
        drawer = replace(self.drawer, resolution=canvas.shape[-1])
        if isinstance(drawer, RaycastRenderer):
            drawer = replace(drawer, shapes=("round",) * z_where.shape[1] + ("box",))
        return render_with_gradient(drawer, scenes, [z_camera, *z_where.unbind(1)], steps)

    def boxes(
        self,
        z_where: Float[Tensor, "batch step 2"],
        z_what: Int[Tensor, "batch step"],
        z_camera: Float[Tensor, "batch 1"],
        scale: Float[Tensor, "batch step"] | None = None,
    ) -> Float[Tensor, "batch step 4"]:
        """What the outlines of objects span, ``(x0, y0, x1, y1)`` in image coordinates."""
        camera = self.camera(z_camera)[:, None].expand(*z_what.shape, 3)
        return self.outlines(z_what, z_where, torch.zeros_like(z_where[..., 0]), camera, scale)
