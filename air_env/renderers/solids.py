"""Three-dimensional objects of known kinds: what all renderers of them share (Section 3.2).

``z_what`` is the kind. The renderers are black boxes: gradients in poses, and of the camera, come from finite
differences, and they draw whole objects only.
"""

import logging
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.priors import CategoricalPrior
from air_env.renderers.backends import (
    KINDS,
    OpenGLError,
    PyrenderRenderer,
    RaycastRenderer,
    why_no_opengl,
)
from air_env.renderers.backends.camera import project
from air_env.renderers.backends.meshes import mesh_of
from air_env.renderers.base import RendererSettings, check_kinds

RENDERERS_3D = ("auto", "pyrender", "raycast")
"""What may draw objects: auto is pyrender where there is OpenGL, and the ray caster elsewhere."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SolidsConfig(RendererSettings):
    """Settings of a renderer of three-dimensional objects."""

    kinds: tuple[str, ...]
    """What ``z_what`` may be, each of `KINDS`: category k draws ``kinds[k]``."""
    renderer: str = "auto"
    """One of `RENDERERS_3D`."""
    samples: int = 4
    """Rays of the ray caster for each pixel: 1 or 4 (as OpenGL has them)."""
    position_sd: float = 0.6
    """Prior standard deviation of x and y, in the scene's unit: a cube is 0.9 wide."""
    step: float = 0.15
    """Half the distance of two poses that finite differences compare, in the scene's unit and in radians; about a
    pixel."""

    def __post_init__(self) -> None:
        check_kinds(self.kinds, KINDS)
        if self.renderer not in RENDERERS_3D:
            raise ValueError(f"renderer {self.renderer!r} is unknown; choose one of {', '.join(RENDERERS_3D)}")
        self._refuse_not_positive("position_sd", "step")
        RaycastRenderer(samples=self.samples)

    def _refuse_not_positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class SolidRenderer(nn.Module):
    """Draws three-dimensional objects; there is nothing to learn.

    Attributes:
        drawer: The `Renderer3D` that makes the images.
    """

    channels = 3
    differentiable = False
    kinds: Tensor

    def __init__(self, config: SolidsConfig) -> None:
        super().__init__()
        self.config = config
        self.prior_what = CategoricalPrior(len(config.kinds))
        self.drawer = make_drawer(config)
        places = torch.tensor([list(KINDS).index(kind) for kind in config.kinds])
        self.register_buffer("kinds", places, persistent=False)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Has the ray caster compiled, if that is what draws: some seconds, then several times as fast."""
        if isinstance(self.drawer, RaycastRenderer):
            self.drawer = replace(self.drawer, compiled=True)

    def outlines(
        self,
        z_what: Int[Tensor, "*batch"],
        position: Float[Tensor, "*batch 2"],
        yaw: Float[Tensor, "*batch"],
        camera: Float[Tensor, "*batch 3"],
        scale: Float[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, "*batch 4"]:
        """What the outlines of objects span, ``(x0, y0, x1, y1)`` in image coordinates.

        Args:
            z_what: Categories.
            position: On the plane, in the scene's unit.
            yaw: Turn in radians.
            camera: Position of the camera.
            scale: Size relative to the kind's; by default 1.
        """
        scale = torch.ones_like(yaw) if scale is None else scale
        boxes = position.new_empty(*z_what.shape, 4)
        for k, name in enumerate(self.config.kinds):
            rows = z_what == k
            x, y, z = torch.from_numpy(mesh_of(KINDS[name]).positions).to(position).unbind(1)
            cos, sin = yaw[rows][:, None].cos(), yaw[rows][:, None].sin()
            x, y, z = (scale[rows][:, None] * part for part in (x, y, z))
            x, y = cos * x - sin * y + position[rows][:, :1], sin * x + cos * y + position[rows][:, 1:]
            corners = torch.stack([x, y, z], -1)
            places = project(corners, camera[rows][:, None], self.drawer.field_of_view)
            boxes[rows] = torch.cat([places.amin(1), places.amax(1)], -1)
        return boxes


def make_drawer(config: SolidsConfig) -> RaycastRenderer | PyrenderRenderer:
    """What draws objects; with `auto` a message says which.

    Raises:
        OpenGLError: It is to be pyrender, and there is no OpenGL.
    """
    name = _available() if config.renderer == "auto" else config.renderer
    if name == "pyrender" and (reason := why_no_opengl()) is not None:
        raise OpenGLError(f"objects cannot be drawn by pyrender: {reason}; or choose renderer = 'raycast'")
    return PyrenderRenderer() if name == "pyrender" else RaycastRenderer(samples=config.samples)


@cache
def _available() -> str:
    """What `auto` is on this machine; says so once."""
    if (reason := why_no_opengl()) is None:
        _log.info("objects are drawn by pyrender")
        return "pyrender"
    _log.warning("objects are drawn by the ray caster: %s", reason)
    return "raycast"
