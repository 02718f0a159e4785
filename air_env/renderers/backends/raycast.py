"""A batched ray caster in torch, on whatever device the scenes are: the renderer to train with.

Every round object is one clipped quadric and two discs, every other one a box (`kinds`), so that a ray meets an object
in closed form. Colours are those of a rough, non-metallic surface in one directional light and some ambient, without
shadows, as pyrender shades them (Burley, 2012, in the form of the glTF 2.0 specification, appendix B).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from air_env.reading import keep_whole
from air_env.renderers.backends.camera import camera_axes
from air_env.renderers.backends.kinds import KINDS
from air_env.renderers.backends.scene import SceneBatch, View

Vectors = tuple[Tensor, Tensor, Tensor]
"""x, y and z, each ``[batch, ray]``."""

_RAYS_AT_ONCE = 2**18
_COMPILED_RAYS_AT_ONCE = {"cpu": 2**16, "cuda": 2**20}
SHAPES = ("any", "round", "box")
"""What may be known of an object: which of the two shapes it has."""
_SAMPLES = {1: ((0.5, 0.5),), 4: ((0.375, 0.875), (0.875, 0.625), (0.125, 0.375), (0.625, 0.125))}
_FAR = 1e9
# One kernel for everything: what an object draws is never written to memory.
_COMPILER_OPTIONS: dict[str, str | int | bool | Callable] = {
    "max_fusion_size": 1000,
    "realize_opcount_threshold": 60,
    "realize_reads_threshold": 12,
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RaycastRenderer(View):
    """Renders scenes by casting rays.

    Example:
        >>> scenes = SceneBatch.of(torch.tensor([[0]]), torch.zeros(1, 1, 2), torch.zeros(1, 1))
        >>> RaycastRenderer(resolution=32).render(scenes).shape
        torch.Size([1, 3, 32, 32])
    """

    samples: int = 4
    """Rays for each pixel: 1 or 4, as a graphics card places them."""
    compiled: bool = False
    """Whether the rays are cast by a compiled kernel, several times as fast, that takes half a minute to make; without
    a C++ compiler there is none, and a message says so."""
    shapes: tuple[str, ...] = ()
    """What is known of every scene's objects, in their order: each one of `SHAPES`. Others are not looked for, which
    is up to twice as fast. Empty knows nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.shapes) - set(SHAPES):
            raise ValueError(f"shapes {sorted(unknown)} are unknown; choose from {', '.join(SHAPES)}")
        keep_whole(self, 1, "samples")
        if self.samples not in _SAMPLES:
            raise ValueError(f"samples must be one of {', '.join(map(str, _SAMPLES))}, got {self.samples}")

    @torch.no_grad()
    def render(self, scenes: SceneBatch) -> Float[Tensor, "batch 3 height width"]:
        """Images in [0, 1]; for gradients, `render_with_gradient`."""
        if len(scenes) == 0:
            return scenes.position.new_zeros(0, 3, self.resolution, self.resolution)
        cast: Callable[..., Tensor] = _cast
        rays_at_once = _RAYS_AT_ONCE
        if self.compiled and (kernel := _compiled_cast(scenes.camera.device.type)) is not None:
            cast, rays_at_once = kernel, _COMPILED_RAYS_AT_ONCE.get(scenes.camera.device.type, _RAYS_AT_ONCE)
        size = max(1, rays_at_once // (self.samples * self.resolution**2))
        rays = _in_view(self.resolution, self.samples, self.field_of_view, scenes.camera)
        images = []
        for start in range(0, len(scenes), size):
            part = scenes[start : start + size]
            if missing := (size - len(part)) * (cast is not _cast):
                # The kernel is made for one size.
                part = part.map(partial(_padded, missing=missing))
            shapes = self.shapes or ("any",) * part.kind.shape[1]
            if not self.shapes and cast is _cast and part.kind.device.type == "cpu":
                # Not for a kernel, which is made for its shapes; and asking a GPU means waiting for it.
                shapes = _shapes_of(part.kind)
            settings = (self.background, self.light, self.ambient, shapes)
            images.append(cast(*(getattr(part, field.name).contiguous() for field in fields(part)), *rays, *settings))
        pixels = torch.cat(images)[: len(scenes)]
        pixels = pixels.unflatten(2, (self.resolution, self.resolution, self.samples))
        return pixels.mean(4) if self.samples > 1 else pixels[..., 0]


def _shapes_of(kind: Int[Tensor, "batch object"]) -> tuple[str, ...]:
    """One of `SHAPES` for each object."""
    box = torch.tensor([spec.half_width > 0 for spec in KINDS.values()])[kind.clamp_min(0)]
    some_box, some_round = ((of_shape & (kind >= 0)).any(0).tolist() for of_shape in (box, ~box))
    return tuple(
        "any" if has_box and has_round else "box" if has_box else "round"
        for has_box, has_round in zip(some_box, some_round, strict=True)
    )


def _padded(values: Tensor, missing: int) -> Tensor:
    return torch.cat([values, values[:1].repeat_interleave(missing, 0)])


@cache
def _compiled_cast(device_type: str) -> Callable[..., Tensor] | None:
    """`_cast`, compiled for a type of device; None where that is not possible."""
    compiled: Callable[..., Tensor] = torch.compile(_cast, dynamic=False, options=_COMPILER_OPTIONS)
    no_object = SceneBatch.of(torch.tensor([[-1]]), torch.zeros(1, 1, 2), torch.zeros(1, 1))
    no_object = no_object.map(lambda part: part.to(device_type))
    rays = _in_view(1, 1, 1.0, no_object.camera)
    try:
        compiled(*(getattr(no_object, field.name) for field in fields(no_object)), *rays, 0.0, 1.0, 1.0, ("any",))
    except Exception as error:  # whatever the compiler, of which there are many, raises
        _log.warning("rays are cast without a compiled kernel, which is slow: %s", str(error).splitlines()[0])
        return None
    return compiled


def _cast(
    kind: Int[Tensor, "batch object"],
    position: Float[Tensor, "batch object 2"],
    yaw: Float[Tensor, "batch object"],
    scale: Float[Tensor, "batch object"],
    colour: Float[Tensor, "batch object 3"],
    camera: Float[Tensor, "batch 3"],
    light: Float[Tensor, "batch 3"],
    right: Float[Tensor, "ray"],
    up: Float[Tensor, "ray"],
    background: float,
    strength: float,
    ambient: float,
    shapes: tuple[str, ...],
) -> Float[Tensor, "batch 3 ray"]:
    """What rays see of scenes: the parts of a `SceneBatch`, rays in view, and the settings of a renderer."""
    direction = _through(camera, right, up)
    nearest, zero = torch.full_like(direction[0], _FAR), torch.zeros_like(direction[0])
    # Normal, brightness and colour of what is nearest: that alone is shaded.
    surface = [zero] * 7
    for k in range(kind.shape[1]):
        distance, normal, brightness = meet(
            kind[:, k], position[:, k], yaw[:, k], scale[:, k], camera, direction, shapes[k]
        )
        seen = (distance < nearest) & (kind[:, k, None] >= 0)
        met = (*normal, brightness, *colour[:, k, :, None].unbind(1))
        surface = [torch.where(seen, new, old) for new, old in zip(met, surface, strict=True)]
        nearest = torch.where(seen, distance, nearest)
    nx, ny, nz, brightness, *base = surface
    of_colour, of_light = shade((nx, ny, nz), direction, light, strength)
    shaded = [(brightness * ((of_colour + ambient) * b + of_light)).clamp(0, 1) ** (1 / 2.2) for b in base]
    return torch.stack([torch.where(nearest < _FAR, part, background) for part in shaded], 1)


def directions(camera: Float[Tensor, "batch 3"], resolution: int, samples: int, field_of_view: float) -> Vectors:
    """Directions of all rays, of length 1: rows of pixels from the top, then the samples of a pixel."""
    return _through(camera, *_in_view(resolution, samples, field_of_view, camera))


def _in_view(resolution: int, samples: int, field_of_view: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays go through the plane at distance 1 from any camera: to the right and up, ``[ray]`` each."""
    ray = torch.arange(resolution * resolution * samples, device=like.device)
    sample, pixel = ray % samples, ray // samples
    within = like.new_tensor(_SAMPLES[samples])
    wide = math.tan(field_of_view / 2)
    right = wide * ((pixel % resolution + within[sample, 0]) * 2 / resolution - 1)
    up = -wide * ((pixel // resolution + within[sample, 1]) * 2 / resolution - 1)
    return right, up


def _through(camera: Float[Tensor, "batch 3"], right: Float[Tensor, "ray"], up: Float[Tensor, "ray"]) -> Vectors:
    (fx, fy, fz), (rx, ry, _), (ux, uy, uz) = (axis[:, :, None].unbind(1) for axis in camera_axes(camera))
    dx, dy, dz = fx + right * rx + up * ux, fy + right * ry + up * uy, fz + up * uz
    length = (dx * dx + dy * dy + dz * dz).sqrt()
    return dx / length, dy / length, dz / length


def meet(
    kind: Int[Tensor, "batch"],
    position: Float[Tensor, "batch 2"],
    yaw: Float[Tensor, "batch"],
    scale: Float[Tensor, "batch"],
    camera: Float[Tensor, "batch 3"],
    direction: Vectors,
    shape: str = "any",
) -> tuple[Tensor, Vectors, Tensor]:
    """Where rays from the camera meet an object, of which one of `SHAPES` is known.

    Returns:
        The distance, a very large one where they miss; the normal, in the scene's axes; and what the light
        from there is multiplied by.
    """
    table = [
        (s.height, s.half_width, *s.quadric, s.radius_at(0), s.radius_at(s.height), s.width, s.texture / s.width / 2)
        for s in KINDS.values()
    ]
    height, half, c2, c1, c0, below, above, width, texture = position.new_tensor(table)[kind.clamp_min(0)].T[:, :, None]
    scale = scale[:, None]
    cos, sin = yaw[:, None].cos() / scale, yaw[:, None].sin() / scale

    # Camera and rays in the object's own axes and unit: distances stay what they are in the scene.
    ox, oy = (camera[:, :2] - position)[:, :, None].unbind(1)
    ox, oy, oz = cos * ox + sin * oy, cos * oy - sin * ox, camera[:, 2:] / scale
    dx, dy, dz = direction
    dx, dy, dz = cos * dx + sin * dy, cos * dy - sin * dx, dz / scale

    distance = torch.full_like(dx, _FAR)
    normal: Vectors = (torch.zeros_like(dx), torch.zeros_like(dx), torch.ones_like(dx))

    def closer(t: Tensor, hit: Tensor, n: Vectors) -> None:
        nonlocal distance, normal
        hit = hit & (t > 0) & (t < distance)
        distance = torch.where(hit, t, distance)
        normal = tuple(torch.where(hit, new, old) for new, old in zip(n, normal, strict=True))  # pyright: ignore

    zero, one = torch.zeros_like(dx), torch.ones_like(dx)
    round_one = half == 0
    if shape != "box":
        a = dx * dx + dy * dy + c2 * dz * dz
        b = ox * dx + oy * dy + (c2 * oz + c1 / 2) * dz
        c = ox * ox + oy * oy + (c2 * oz + c1) * oz + c0
        root = b * b - a * c
        z_first = (-b - root.clamp_min(0).sqrt()) / a
        z = oz + z_first * dz
        side = (ox + z_first * dx, oy + z_first * dy, c2 * z + c1 / 2)
        closer(z_first, round_one & (root > 0) & (z >= 0) & (z <= height), side)
        for level, radius, up in ((torch.zeros_like(height), below, -one), (height, above, one)):
            t = (level - oz) / dz
            squared = (ox + t * dx) ** 2 + (oy + t * dy) ** 2
            closer(t, round_one & (squared < radius * radius), (zero, zero, up))
    if shape != "round":
        # A box: it is entered where the last of its three slabs is.
        enter, leave = torch.full_like(dx, -_FAR), torch.full_like(dx, _FAR)
        axis = zero
        bounds = ((ox, dx, -half, half), (oy, dy, -half, half), (oz, dz, torch.zeros_like(height), height))
        for i, (origin, along, low, high) in enumerate(bounds):
            first, second = (low - origin) / along, (high - origin) / along
            entry = torch.minimum(first, second)
            axis = torch.where(entry > enter, float(i), axis)
            enter, leave = torch.maximum(enter, entry), torch.minimum(leave, torch.maximum(first, second))
        face = tuple(torch.where(axis == i, -part.sign(), 0.0) for i, part in enumerate((dx, dy, dz)))
        closer(enter, ~round_one & (enter < leave), face)  # pyright: ignore

    brightness = 1 - texture * (width - ox - distance * dx)
    nx, ny, nz = normal
    nx, ny, nz = (cos * nx - sin * ny) * scale, (sin * nx + cos * ny) * scale, nz
    length = (nx * nx + ny * ny + nz * nz).sqrt().clamp_min(1e-12)
    return distance, (nx / length, ny / length, nz / length), brightness


def shade(
    normal: Vectors, direction: Vectors, light: Float[Tensor, "batch 3"], strength: float
) -> tuple[Float[Tensor, "batch ray"], Float[Tensor, "batch ray"]]:
    """What a surface of roughness 1 sends to the eye: a multiple of its colour, and light that has none of it."""
    lx, ly, lz = light[:, :, None].unbind(1)
    nx, ny, nz = normal
    vx, vy, vz = -direction[0], -direction[1], -direction[2]
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    vh = (vx * hx + vy * hy + vz * hz) / (hx * hx + hy * hy + hz * hz).sqrt().clamp_min(1e-12)
    nl = (nx * lx + ny * ly + nz * lz).clamp(0.001, 1)
    nv = (nx * vx + ny * vy + nz * vz).abs().clamp(0.001, 1)
    fresnel = 0.04 + 0.96 * (1 - vh.clamp(0, 1)) ** 5
    geometric = nl / (0.5 * nl + 0.5) * nv / (0.5 * nv + 0.5)
    specular = fresnel * geometric / (math.pi * (4 * nl * nv + 0.001))
    return nl * strength * (1 - fresnel) * (0.96 / math.pi), nl * strength * specular
