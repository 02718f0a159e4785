"""Three-dimensional objects: ``z_what`` is the kind, ``z_where`` the pose ``(x, y, yaw)`` on a plane (Section 3.2).

The renderer is a black box. Its gradient in the pose comes from finite differences; it draws whole objects only.
"""

import logging
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.priors import CategoricalPrior, PosePrior
from air_env.renderers.base import check_kinds
from air_env.renderers.three_d import (
    KINDS,
    OpenGLError,
    PyrenderRenderer,
    RaycastRenderer,
    SceneBatch,
    render_with_gradient,
    why_no_opengl,
)
from air_env.renderers.three_d.camera import project
from air_env.renderers.three_d.meshes import mesh_of

RENDERERS_3D = ("auto", "pyrender", "raycast")
"""What may draw objects: auto is pyrender where there is OpenGL, and the ray caster elsewhere."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectsConfig:
    """Settings of a renderer of one three-dimensional object."""

    kinds: tuple[str, ...] = tuple(KINDS)
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
        for name in ("position_sd", "step"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        RaycastRenderer(samples=self.samples)

    def make(self) -> "ObjectRenderer":
        """The renderer.

        Raises:
            OpenGLError: It is to be pyrender, and there is no OpenGL.
        """
        return ObjectRenderer(self)


class ObjectRenderer(nn.Module):
    """Draws one object; there is nothing to learn.

    Attributes:
        drawer: The `Renderer3D` that makes the images.
    """

    channels = 3
    differentiable = False
    max_steps = 1
    """It draws one object a scene: a second one may hide part of the first."""
    kinds: Tensor

    def __init__(self, config: ObjectsConfig) -> None:
        super().__init__()
        self.config = config
        self.prior_what = CategoricalPrior(len(config.kinds))
        self.prior_where = PosePrior(config.position_sd)
        self.drawer = make_drawer(config)
        places = torch.tensor([list(KINDS).index(kind) for kind in config.kinds])
        self.register_buffer("kinds", places, persistent=False)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Has the ray caster compiled, if that is what draws: some seconds, then several times as fast."""
        if isinstance(self.drawer, RaycastRenderer):
            self.drawer = replace(self.drawer, compiled=True)

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
        drawer, scenes = replace(self.drawer, resolution=canvas.shape[-1]), self.scenes(z_where, z_what)
        if torch.is_grad_enabled() and z_where.requires_grad:
            return render_with_gradient(drawer, scenes, step=self.config.step)
        return drawer.render(scenes)

    def draw_all(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch step 3"],
        z_what: Int[Tensor, "batch step"],
    ) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N = 1 objects."""
        return self.draw(canvas, z_where[:, 0], z_what[:, 0])[:, None]

    def boxes(self, z_where: Float[Tensor, "*batch 3"], z_what: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 4"]:
        """What the outlines of objects span, ``(x0, y0, x1, y1)`` in image coordinates."""
        boxes = z_where.new_empty(*z_what.shape, 4)
        for k, name in enumerate(self.config.kinds):
            rows = z_what == k
            corners = torch.from_numpy(mesh_of(KINDS[name]).positions).to(z_where)
            scenes = self.scenes(z_where[rows], z_what[rows])
            cos, sin = (part[:, None] for part in (z_where[rows][:, 2].cos(), z_where[rows][:, 2].sin()))
            x, y, z = corners.unbind(1)
            x, y = cos * x - sin * y + z_where[rows][:, :1], sin * x + cos * y + z_where[rows][:, 1:2]
            places = project(torch.stack([x, y, z.expand_as(x)], -1), scenes.camera[:, None], self.drawer.field_of_view)
            boxes[rows] = torch.cat([places.amin(1), places.amax(1)], -1)
        return boxes


def make_drawer(config: ObjectsConfig) -> RaycastRenderer | PyrenderRenderer:
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
