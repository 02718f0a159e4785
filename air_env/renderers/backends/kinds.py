"""The kinds of objects there are: one table, from which every renderer takes its shapes.

An object stands on the plane ``z = 0`` and turns about the vertical axis through its middle. A round one is the quadric

    x^2 + y^2 + c2 z^2 + c1 z + c0 = 0    for z in [0, height]

closed by discs above and below; the others are boxes. Lengths are in the scene's unit.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from air_env.registry import Registry


@dataclass(frozen=True)
class Kind:
    """Shape and look of a kind of object."""

    height: float
    """From the plane that it stands on."""
    half_width: float = 0.0
    """Half the side of a box; 0 where the object is round."""
    quadric: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """``(c2, c1, c0)`` of a round object."""
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Base colour, RGB in [0, 1]."""
    texture: float = 0.0
    """How much darker it is at its own left end than at its right: so one sees from any side how far it is turned."""
    yaw_symmetry: float = 2 * math.pi
    """The smallest turn in radians after which it looks the same; 0 where every turn does."""

    @cached_property
    def width(self) -> float:
        """Half of the largest extent along its own x-axis."""
        return self.half_width or max(self.radius_at(self.height * i / 64) for i in range(65))

    def radius_at(self, z: float) -> float:
        """Radius of a round object at a height; 0 for a box."""
        c2, c1, c0 = self.quadric
        return 0.0 if self.half_width else math.sqrt(max(0.0, -(c2 * z * z + c1 * z + c0)))


def _sphere(radius: float) -> tuple[float, float, float]:
    """The quadric of a sphere that lies on the plane: ``x^2 + y^2 + (z - r)^2 = r^2``."""
    return (1.0, -2 * radius, 0.0)


def _cone(bottom: float, top: float, height: float) -> tuple[float, float, float]:
    """The quadric of a cone that is cut off, by its radii: ``x^2 + y^2 = (bottom + slope z)^2``."""
    slope = (top - bottom) / height
    return (-slope * slope, -2 * slope * bottom, -bottom * bottom)


KINDS: Registry[Kind] = Registry(
    "kind of object",
    {
        "cube": Kind(height=0.9, half_width=0.45, colour=(0.85, 0.15, 0.12), yaw_symmetry=math.pi / 2),
        "sphere": Kind(height=1.1, quadric=_sphere(0.55), colour=(0.15, 0.25, 0.85), yaw_symmetry=0.0),
        "cylinder": Kind(height=0.9, quadric=(0.0, 0.0, -(0.45**2)), colour=(0.85, 0.75, 0.3), texture=0.8),
        "plate": Kind(height=0.12, quadric=_cone(0.45, 0.7, 0.12), colour=(0.8, 0.8, 0.75), yaw_symmetry=0.0),
        "bowl": Kind(height=0.4, quadric=_cone(0.25, 0.52, 0.4), colour=(0.15, 0.3, 0.8), yaw_symmetry=0.0),
        "cup": Kind(height=0.75, quadric=_cone(0.28, 0.34, 0.75), colour=(0.85, 0.6, 0.1), yaw_symmetry=0.0),
        "table": Kind(height=0.02, half_width=2.1, colour=(0.2, 0.13, 0.08), yaw_symmetry=math.pi / 2),
    },
)
"""Name -> kind; its place in this table is its number in a `SceneBatch`."""
