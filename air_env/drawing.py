"""How a scene comes onto the canvas: object by object, or whole, where a camera sees objects that hide each other."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from air_env.explanation import Explanation
from air_env.renderers import Renderer, SceneRenderer

Images = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True)
class Action:
    """One step's choice: ``z_pres [batch]`` (1 draws an object, 0 stops) and the object's latents.

    ``z_what`` is ``[batch, what]``, or ``[batch]`` of categories.
    """

    z_pres: Tensor
    z_where: Float[Tensor, "batch where"]
    z_what: Tensor
    z_camera: Float[Tensor, "batch camera"] | None = None
    """The camera, where there is one; only an episode's first action is asked for it."""


@dataclass(frozen=True)
class Layout:
    """What has been said so far of scenes that a camera sees; 0 for what has not.

    Attributes:
        z_camera: ``[batch, camera]``.
        z_where: ``[batch, slot, where]``, of the objects so far.
        z_what: ``[batch, slot]``, their categories.
    """

    z_camera: Float[Tensor, "batch camera"]
    z_where: Float[Tensor, "batch slot where"]
    z_what: Int[Tensor, "batch slot"]


class Drawing(Protocol):
    """What the scene model asks of the two ways to draw."""

    def begin(self, images: Images) -> Layout | None:
        """What there is to remember beside the canvas, before the first action."""
        ...

    def add(
        self,
        canvas: Images,
        layout: Layout | None,
        step: Int[Tensor, "batch"],
        present: Bool[Tensor, "batch"],
        first: Bool[Tensor, "batch"],
        action: Action,
    ) -> tuple[Images, Layout | None]:
        """The canvas and the layout after an action, with the object number ``step`` where one is present."""
        ...

    def prefixes(self, images: Images, z: Explanation) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects, which are all present."""
        ...

    def whole(self, canvas: Images, z: Explanation) -> Images:
        """The canvas of a whole explanation, on an empty one."""
        ...


class ObjectByObject:
    """Adds every object to the canvas of those before it."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer

    def begin(self, images: Images) -> None:
        """Nothing."""
        del images

    def add(
        self, canvas: Images, layout: Layout | None, step: Tensor, present: Tensor, first: Tensor, action: Action
    ) -> tuple[Images, None]:
        """The canvas with one more object where there is one."""
        del layout, step, first
        drawn = self.renderer.draw(canvas, action.z_where, action.z_what)
        return torch.where(present[:, None, None, None], drawn, canvas), None

    def prefixes(self, images: Images, z: Explanation) -> Tensor:
        """What the renderer draws at once."""
        return self.renderer.draw_all(torch.zeros_like(images), z.z_where, z.z_what)

    def whole(self, canvas: Images, z: Explanation) -> Images:
        """One object after the other, where there is one."""
        present = z.z_pres > 0.5
        for i in range(present.shape[1]):
            rows = present[:, i].nonzero()[:, 0]
            if len(rows) > 0:
                drawn = self.renderer.draw(canvas[rows], z.z_where[rows, i], z.z_what[rows, i])
                canvas = canvas.index_copy(0, rows, drawn)
        return canvas


class SeenByCamera:
    """Draws all objects so far, and what is there without any, after every action."""

    def __init__(self, renderer: SceneRenderer, num_slots: int) -> None:
        self.renderer = renderer
        self.num_slots = num_slots

    def begin(self, images: Images) -> Layout:
        """No object, and the camera in the middle."""
        batch, where = len(images), self.renderer.prior_where.event_shape[0]
        return Layout(
            z_camera=images.new_zeros(batch, self.renderer.prior_camera.event_shape[0]),
            z_where=images.new_zeros(batch, self.num_slots, where),
            z_what=images.new_zeros(batch, self.num_slots, dtype=self.renderer.prior_what.dtype),
        )

    def add(
        self, canvas: Images, layout: Layout | None, step: Tensor, present: Tensor, first: Tensor, action: Action
    ) -> tuple[Images, Layout]:
        """All objects; also where the first action stops, for it has chosen the camera."""
        assert layout is not None
        slots = torch.arange(self.num_slots, device=step.device)
        chosen = present[:, None] & (slots == step[:, None])
        layout = Layout(
            z_camera=torch.where(first[:, None], _given(action.z_camera), layout.z_camera),
            z_where=torch.where(chosen[..., None], action.z_where[:, None], layout.z_where),
            z_what=torch.where(chosen, action.z_what[:, None], layout.z_what),
        )
        there = slots < (step + present)[:, None]
        drawn = self.renderer.draw_scenes(canvas, layout.z_camera, there, layout.z_where, layout.z_what)
        return torch.where((present | first)[:, None, None, None], drawn, canvas), layout

    def prefixes(self, images: Images, z: Explanation) -> Tensor:
        """One scene for every number of objects."""
        counts = range(1, z.z_where.shape[1] + 1)
        return torch.stack([self.whole(images, z.first(n)) for n in counts], 1)

    def whole(self, canvas: Images, z: Explanation) -> Images:
        """All objects that are present."""
        return self.renderer.draw_scenes(canvas, _given(z.z_camera), z.z_pres > 0.5, z.z_where, z.z_what)


def _given(z_camera: Tensor | None) -> Tensor:
    if z_camera is None:
        raise ValueError("z_camera is missing: a camera sees these scenes; give its latents, [batch, camera]")
    return z_camera


def drawing_of(renderer: Any, num_slots: int) -> Drawing:
    """How a renderer draws scenes of so many objects at most."""
    return SeenByCamera(renderer, num_slots) if hasattr(renderer, "prior_camera") else ObjectByObject(renderer)
