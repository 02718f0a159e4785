"""Batches of three-dimensional scenes, as every renderer takes them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from air_env.reading import keep_whole
from air_env.renderers.backends.camera import CAMERA
from air_env.renderers.backends.kinds import KINDS


@dataclass(frozen=True)
class View:
    """What all images of a renderer share."""

    resolution: int = 32
    """Side of the images in pixels."""
    field_of_view: float = 0.7
    """Angle of the camera's view, in radians from border to border."""
    background: float = 0.0
    """Grey level where there is no object."""
    light: float = 3.0
    """Strength of the directional light."""
    ambient: float = 0.35
    """Strength of the light from everywhere."""

    def __post_init__(self) -> None:
        keep_whole(self, 1, "resolution")
        if not 0 < self.field_of_view < math.pi:
            raise ValueError(f"field_of_view must lie between 0 and pi radians, got {self.field_of_view}")


@dataclass(frozen=True)
class SceneBatch:
    """Objects on a plane, and the camera that looks at the plane's origin.

    Attributes:
        kind: ``[batch, object]``, places in `KINDS`; -1 where there is no object.
        position: ``[batch, object, 2]``, x and y of its middle, in the scene's unit.
        yaw: ``[batch, object]``, turn about the vertical axis in radians, anticlockwise from above.
        scale: ``[batch, object]``, size relative to its kind's.
        colour: ``[batch, object, 3]``, base colour, RGB in [0, 1].
        camera: ``[batch, 3]``, position of the camera, not above the origin.
        light: ``[batch, 3]``, direction towards the light, of length 1.
    """

    kind: Int[Tensor, "batch object"]
    position: Float[Tensor, "batch object 2"]
    yaw: Float[Tensor, "batch object"]
    scale: Float[Tensor, "batch object"]
    colour: Float[Tensor, "batch object 3"]
    camera: Float[Tensor, "batch 3"]
    light: Float[Tensor, "batch 3"]

    @classmethod
    def of(
        cls,
        kind: Int[Tensor, "batch object"],
        position: Float[Tensor, "batch object 2"],
        yaw: Float[Tensor, "batch object"],
        *,
        camera: Float[Tensor, "batch 3"] | tuple[float, float, float] = CAMERA,
        light: tuple[float, float, float] = (-0.4, -0.5, 0.77),
        check: bool = True,
    ) -> "SceneBatch":
        """Objects of their kinds' own sizes and colours.

        Args:
            kind: Places in `KINDS`; -1 where there is no object.
            position: In the scene's unit.
            yaw: Radians.
            camera: Position of each scene's camera, or of every one's.
            light: Direction towards every scene's light, of any length.
            check: False skips the check of kinds, which on a GPU waits for it.

        Raises:
            ValueError: A kind is unknown.
        """
        if check and len(kind) and not ((kind >= -1) & (kind < len(KINDS))).all():
            names = ", ".join(f"{i} ({name})" for i, name in enumerate(KINDS))
            raise ValueError(f"kinds hold {kind.unique().tolist()}, wanted -1 (none), {names}")
        colours = position.new_tensor([spec.colour for spec in KINDS.values()])
        towards = torch.nn.functional.normalize(position.new_tensor(light), dim=0)
        return cls(
            kind=kind,
            position=position,
            yaw=yaw,
            scale=torch.ones_like(yaw),
            colour=colours[kind.clamp_min(0)],
            camera=torch.as_tensor(camera, dtype=position.dtype, device=position.device).expand(len(kind), 3),
            light=towards.expand(len(kind), 3),
        )

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.kind)

    def __getitem__(self, rows: slice | Tensor) -> "SceneBatch":
        """A selection of scenes."""
        return self.map(lambda part: part[rows])

    def map(self, function: Callable[[Tensor], Tensor]) -> "SceneBatch":
        """The scenes with a function applied to every part: an index, a repetition, a move to a device."""
        return SceneBatch(*(function(getattr(self, field.name)) for field in fields(self)))
