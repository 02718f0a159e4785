"""Triangles of the kinds, for renderers that want such."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from air_env.renderers.backends.kinds import Kind

SEGMENTS, RINGS = 64, 24
"""Segments of a circle, and rings of a curved side: enough that corners are not seen."""


@dataclass(frozen=True)
class Mesh:
    """The surface of an object.

    Attributes:
        positions: ``[vertex, 3]``.
        normals: ``[vertex, 3]``, of length 1.
        brightness: ``[vertex]``, what the light from there is multiplied by.
        triangles: ``[triangle, 3]``, vertices anticlockwise from outside.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    brightness: NDArray[np.float32]
    triangles: NDArray[np.uint32]


@cache
def mesh_of(kind: Kind) -> Mesh:
    """The surface of a kind of object."""
    patches = _box(kind) if kind.half_width else _round(kind)
    starts = np.cumsum([0, *(len(positions) for positions, _, _ in patches[:-1])])
    positions, normals = (np.concatenate([patch[i] for patch in patches]).astype(np.float32) for i in range(2))
    triangles = np.concatenate([patch[2] + start for patch, start in zip(patches, starts, strict=True)])
    # Linear in x, so that triangles show it as it is.
    brightness = 1 - kind.texture * (1 - positions[:, 0] / kind.width) / 2
    return Mesh(positions, normals, brightness.astype(np.float32), triangles.astype(np.uint32))


_Patch = tuple[NDArray, NDArray, NDArray]
"""Positions, normals and triangles."""


def _box(kind: Kind) -> list[_Patch]:
    half = np.array([kind.half_width, kind.half_width, kind.height / 2])
    patches = []
    for normal in (*np.eye(3), *-np.eye(3)):
        across = np.roll(normal, 1)
        along = np.cross(normal, across)
        corners = np.stack([normal + i * across + j * along for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
        positions = half * corners + [0, 0, kind.height / 2]
        patches.append((positions, np.tile(normal, (4, 1)), np.array([[0, 1, 2], [0, 2, 3]])))
    return patches


def _round(kind: Kind) -> list[_Patch]:
    c2, c1, _ = kind.quadric
    rings = RINGS if c2 or c1 else 1
    # Close together at both ends, where a sphere is flat.
    z = kind.height * (1 - np.cos(np.pi * np.arange(rings + 1) / rings)) / 2
    # A quarter begins and ends with a segment.
    angle = np.arange(SEGMENTS + 1) * 2 * np.pi / SEGMENTS - np.pi / 4
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1)
    radius = np.array([kind.radius_at(height) for height in z])
    positions = radius[:, None, None] * circle + z[:, None, None] * [0, 0, 1]
    normals = positions * [1, 1, 0] + (c2 * z + c1 / 2)[:, None, None] * [0, 0, 1]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    corner = np.arange(rings)[:, None] * (SEGMENTS + 1) + np.arange(SEGMENTS)
    above = corner + SEGMENTS + 1
    triangles = np.stack([corner, corner + 1, above + 1, corner, above + 1, above], -1)
    patches = [(positions.reshape(-1, 3), normals.reshape(-1, 3), triangles.reshape(-1, 3))]
    fan = np.arange(SEGMENTS)
    for height, up in ((0.0, -1), (kind.height, 1)):
        if kind.radius_at(height) > 0:
            rim = kind.radius_at(height) * circle[::up]
            disc = np.append(rim, np.zeros((1, 3)), 0) + np.array([0, 0, height])
            spokes = np.stack([fan, fan + 1, np.full_like(fan, SEGMENTS + 1)], 1)
            patches.append((disc, np.tile([0.0, 0.0, up], (len(disc), 1)), spokes))
    return patches
