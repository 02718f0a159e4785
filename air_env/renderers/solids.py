"""Three-dimensional objects of known kinds: what all renderers of them share (Section 3.2).

``z_what`` is the kind. The renderers are black boxes: gradients in poses, and of the camera, come from finite
differences, and they draw whole objects only.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from air_env.explanation import Explanation, Images
from air_env.priors import CategoricalPrior, GaussianPrior, Prior
from air_env.reading import is_between, keep_whole
from air_env.registry import Registry
from air_env.renderers.backends import (
    KINDS,
    OpenGLError,
    PyrenderRenderer,
    RaycastRenderer,
    SceneBatch,
    render_with_gradient,
    why_no_opengl,
)
from air_env.renderers.backends.camera import project
from air_env.renderers.backends.meshes import mesh_of
from air_env.renderers.base import RendererSettings, read_kinds

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SolidsConfig(RendererSettings):
    """Settings of a renderer of three-dimensional objects."""

    windows: ClassVar[bool] = False
    kinds: tuple[str, ...]
    """What ``z_what`` may be, each of `KINDS`: category k draws ``kinds[k]``."""
    renderer: str = "auto"
    """The backend, one of `BACKENDS`: auto is pyrender where there is OpenGL, and the ray caster elsewhere."""
    samples: int = 4
    """Rays of the ray caster for each pixel: 1 or 4 (as OpenGL has them)."""
    position_sd: float = 0.6
    """Prior standard deviation of x and y, in the scene's unit: a cube is 0.9 wide."""
    step: float = 0.15
    """Half the distance of two poses that finite differences compare, in the scene's unit and in radians; about a
    pixel."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", read_kinds(self.kinds, KINDS))
        BACKENDS.find(self.renderer)
        self._refuse_not_positive("position_sd", "step")
        keep_whole(self, 1, "samples")
        RaycastRenderer(samples=self.samples)

    def _refuse_not_positive(self, *names: str) -> None:
        for name in names:
            if not is_between(getattr(self, name), 0, math.inf):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")


class SolidRenderer(nn.Module, ABC):
    """Draws whole scenes of three-dimensional objects, which hide each other; there is nothing to learn.

    Attributes:
        drawer: The backend that makes the images.
    """

    channels = 3
    differentiable = False
    max_steps: int
    prior_where: GaussianPrior
    prior_scene: GaussianPrior
    kind_numbers: Tensor

    def __init__(self, config: SolidsConfig) -> None:
        super().__init__()
        self.config = config
        self.kinds = config.kinds
        self.prior_what: Prior = CategoricalPrior(len(config.kinds))
        self.drawer = BACKENDS.find(config.renderer)(config)
        places = torch.tensor([list(KINDS).index(kind) for kind in config.kinds])
        self.register_buffer("kind_numbers", places, persistent=False)

    @abstractmethod
    def poses(
        self, z_where: Float[Tensor, "*batch where"]
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
        """Positions on the plane, in the scene's unit, and yaws in radians."""

    @abstractmethod
    def camera(self, z_scene: Float[Tensor, "batch scene"]) -> Float[Tensor, "batch 3"]:
        """Where the cameras are."""

    @abstractmethod
    def scenes(self, z: Explanation) -> SceneBatch:
        """What explanations say, as a backend takes it."""

    def drawer_of(self, canvas: Images, num_objects: int) -> RaycastRenderer | PyrenderRenderer:
        """The backend, for images as large as a canvas, of so many objects."""
        del num_objects
        return replace(self.drawer, resolution=canvas.shape[-1])

    @property
    def scene_step(self) -> float:
        """Half the distance of two values of ``z_scene`` that finite differences compare."""
        return self.config.step

    def render(self, canvas: Images, z: Explanation) -> Images:
        """All objects that are present, and what is there without any; of the canvas only the size matters."""
        if len(canvas) == 0:
            return canvas

        def scenes(z_scene: Tensor, *places: Tensor) -> SceneBatch:
            copies = len(z_scene) // len(canvas)
            where = torch.stack(places, 1) if places else z.z_where.repeat(copies, 1, 1)
            return self.scenes(Explanation(z.z_pres.repeat(copies, 1), where, z.z_what.repeat(copies, 1), z_scene))

        num_objects = z.z_where.shape[1]
        steps = [self.scene_step] + [self.config.step] * num_objects
        drawer = self.drawer_of(canvas, num_objects)
        return render_with_gradient(drawer, scenes, [z.z_scene, *z.z_where.unbind(1)], steps)

    def draw(self, canvas: Images, z: Explanation) -> Images:
        """The whole scene again: a new object may be behind others."""
        return self.render(canvas, z)

    def draw_all(self, canvas: Images, z: Explanation) -> Float[Tensor, "batch step channel height width"]:
        """One scene for every number of objects."""
        return torch.stack([self.render(canvas, z.first(n + 1)) for n in range(z.z_where.shape[1])], 1)

    def boxes(self, z: Explanation, scale: Tensor | float = 1.0) -> Float[Tensor, "batch step 4"]:
        """What the outlines of objects span, ``(x0, y0, x1, y1)`` in image coordinates.

        Args:
            z: The objects.
            scale: ``[batch, step]``, sizes relative to those of their kinds.
        """
        position, yaw = self.poses(z.z_where)
        scale = torch.as_tensor(scale).to(yaw).expand_as(yaw)
        camera = self.camera(z.z_scene)[:, None].expand(*yaw.shape, 3)
        boxes = position.new_empty(*yaw.shape, 4)
        for k, name in enumerate(self.kinds):
            rows = z.z_what == k
            x, y, height = torch.from_numpy(mesh_of(KINDS[name]).positions).to(position).unbind(1)
            cos, sin = yaw[rows][:, None].cos(), yaw[rows][:, None].sin()
            x, y, height = (scale[rows][:, None] * part for part in (x, y, height))
            x, y = cos * x - sin * y + position[rows][:, :1], sin * x + cos * y + position[rows][:, 1:]
            places = project(torch.stack([x, y, height], -1), camera[rows][:, None], self.drawer.field_of_view)
            boxes[rows] = torch.cat([places.amin(1), places.amax(1)], -1)
        return boxes

    def compile(self, *args: object, **kwargs: object) -> None:
        """Has the ray caster compiled, if that is what draws: some seconds, then several times as fast."""
        if isinstance(self.drawer, RaycastRenderer):
            self.drawer = replace(self.drawer, compiled=True)

    def numbers_of(self, present: Bool[Tensor, "*batch"], z_what: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """The numbers of categories in a `SceneBatch`; -1 where no object is present."""
        return torch.where(present, self.kind_numbers[z_what], -1)


def _pyrender(config: SolidsConfig) -> PyrenderRenderer:
    if (reason := why_no_opengl()) is not None:
        raise OpenGLError(f"objects cannot be drawn by pyrender: {reason}; or choose renderer = 'raycast'")
    return PyrenderRenderer()


def _raycast(config: SolidsConfig) -> RaycastRenderer:
    return RaycastRenderer(samples=config.samples)


def _auto(config: SolidsConfig) -> RaycastRenderer | PyrenderRenderer:
    return _pyrender(config) if _has_opengl() else _raycast(config)


@cache
def _has_opengl() -> bool:
    """Whether there is OpenGL on this machine; says once what that means."""
    if (reason := why_no_opengl()) is None:
        _log.info("objects are drawn by pyrender")
        return True
    _log.warning("objects are drawn by the ray caster: %s", reason)
    return False


BACKENDS: Registry[Callable[[SolidsConfig], RaycastRenderer | PyrenderRenderer]] = Registry(
    "renderer", {"auto": _auto, "pyrender": _pyrender, "raycast": _raycast}
)
"""Name -> what makes the backend; pyrender raises `OpenGLError` where there is no OpenGL."""
