"""The camera: between the scene and image coordinates, from -1 (left, top) to 1 (right, bottom)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

CAMERA = (0.0, -4.5, 3.2)
"""Where it is unless a scene says otherwise; it looks at the origin."""


def orbit(angle: Float[Tensor, "*batch"], distance: float, height: float) -> Float[Tensor, "*batch 3"]:
    """Positions around the vertical axis: angle 0 is in front, where y is negative; then anticlockwise from above."""
    return torch.stack([distance * angle.sin(), -distance * angle.cos(), torch.full_like(angle, height)], -1)


def camera_axes(
    camera: Float[Tensor, "*batch 3"],
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
    """Forward, right and up of a camera that looks at the origin and is not above it; of length 1."""
    forward = -torch.nn.functional.normalize(camera, dim=-1)
    fx, fy, fz = forward.unbind(-1)
    flat = (fx * fx + fy * fy).sqrt()
    rx, ry = fy / flat, -fx / flat
    right = torch.stack([rx, ry, torch.zeros_like(rx)], -1)
    up = torch.stack([ry * fz, -rx * fz, rx * fy - ry * fx], -1)
    return forward, right, up


def project(
    points: Float[Tensor, "*batch 3"], camera: Float[Tensor, "*#batch 3"], field_of_view: float
) -> Float[Tensor, "*batch 2"]:
    """Where points of the scene are seen, ``(x, y)`` in image coordinates; they must be before the camera."""
    away = points - camera
    depth, x, y = ((away * axis).sum(-1) for axis in camera_axes(camera))
    return torch.stack([x, -y], -1) / (depth * math.tan(field_of_view / 2))[..., None]


def unproject(
    places: Float[Tensor, "*batch 2"],
    height: Float[Tensor, "*#batch"],
    camera: Float[Tensor, "*#batch 3"],
    field_of_view: float,
) -> Float[Tensor, "*batch 2"]:
    """The point ``(x, y)`` at a height that is seen at a place of the image, which must be below the horizon."""
    forward, right, up = camera_axes(camera)
    x, y = (math.tan(field_of_view / 2) * places)[..., None].unbind(-2)
    ray = forward + x * right - y * up
    distance = (height - camera[..., 2]) / ray[..., 2]
    return camera[..., :2] + distance[..., None] * ray[..., :2]
