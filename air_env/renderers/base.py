"""The interface of everything that draws, and what renderers of windows share."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Explanation, Images
from air_env.priors import GaussianPrior, Prior

WHERE_MEAN, WHERE_SD = (-1.3, 0.0, 0.0), (0.25, 0.5, 0.5)
"""Prior of windows, unless a scene's settings say otherwise: log of the size relative to the image, centre x and y."""


class Renderer(Protocol):
    """Draws objects on the canvases of a batch of scenes: a `torch.nn.Module`. Rows must not depend on each other.

    Attributes:
        channels: Number of colours of a canvas: 1 or 3.
        differentiable: Whether pixels have a gradient in ``z_where``, and canvases between two others mean something.
            A black box draws whole objects only.
        kinds: Names of the categories that ``z_what`` may be; none where it is a code.
        max_steps: The most objects of a scene that it can draw.
        prior_where: The prior of ``z_where``.
        prior_what: The prior of ``z_what``, which also says its shape and type.
        prior_scene: The prior of ``z_scene``; `GaussianPrior()`, of length zero, where there is none. That of the
            background's code, which renderers of windows leave alone, is set by `SceneConfig`.
    """

    channels: int
    differentiable: bool
    kinds: tuple[str, ...]
    max_steps: int
    prior_where: GaussianPrior
    prior_what: Prior
    prior_scene: GaussianPrior

    def draw(self, canvas: Images, z: Explanation) -> Images:
        """The canvas after one more object.

        Args:
            canvas: What is there without it: what the objects before draw, or the background or black where there is
                none.
            z: What was said so far, with the new object as the last one; the canvas of a scene without any is wanted
                where there is none.
        """
        ...

    def draw_all(self, canvas: Images, z: Explanation) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects that are all present, on one without any: N calls of `draw` at once."""
        ...

    def render(self, canvas: Images, z: Explanation) -> Images:
        """The canvas of whole explanations, on one without any object."""
        ...

    def boxes(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """What objects span, ``(x0, y0, x1, y1)`` in image coordinates; anything where no object is present."""
        ...


@dataclass(frozen=True)
class RendererSettings(ABC):
    """Settings of a renderer."""

    kind: ClassVar[str]
    """Name of these settings in `RENDERERS`; files of settings carry it."""
    windows: ClassVar[bool] = True
    """Whether ``z_where`` is a window, whose prior `SceneConfig` sets; otherwise the renderer has its own prior."""

    @abstractmethod
    def make(self) -> Renderer:
        """Makes the renderer, a `torch.nn.Module`."""


class WindowRenderer(nn.Module, ABC):
    """A renderer that draws object by object, each into a window; ``z_scene`` is for the background (`SceneConfig`)."""

    kinds: tuple[str, ...] = ()
    max_steps = sys.maxsize

    def __init__(self) -> None:
        super().__init__()
        self.prior_where = GaussianPrior(WHERE_MEAN, WHERE_SD)
        self.prior_scene = GaussianPrior()

    @abstractmethod
    def add(self, canvas: Images, z_where: Float[Tensor, "batch 3"], z_what: Tensor) -> Images:
        """The canvas with an object added; ``z_what`` is ``[batch, what]``, or ``[batch]`` of categories."""

    def draw(self, canvas: Images, z: Explanation) -> Images:
        """The canvas with the last object added where there is one."""
        rows, last = torch.arange(len(canvas), device=canvas.device), (z.count - 1).clamp_min(0)
        drawn = self.add(canvas, z.z_where[rows, last], z.z_what[rows, last])
        return torch.where((z.count > 0)[:, None, None, None], drawn, canvas)

    def draw_all(self, canvas: Images, z: Explanation) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects."""
        canvases = []
        for z_where, z_what in zip(z.z_where.unbind(1), z.z_what.unbind(1), strict=True):
            canvas = self.add(canvas, z_where, z_what)
            canvases.append(canvas)
        return torch.stack(canvases, 1)

    def render(self, canvas: Images, z: Explanation) -> Images:
        """One object after the other, where there is one."""
        for i, present in enumerate((z.z_pres > 0.5).unbind(1)):
            rows = present.nonzero()[:, 0]
            if len(rows) > 0:
                drawn = self.add(canvas[rows], z.z_where[rows, i], z.z_what[rows, i])
                canvas = canvas.index_copy(0, rows, drawn)
        return canvas

    def boxes(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """The windows."""
        return geometry.outlines(z.z_where)


def read_kinds(kinds: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """What a renderer of fixed kinds is to draw.

    Raises:
        ValueError: There is none, or one is unknown or named twice.
    """
    if isinstance(kinds, str) or not isinstance(kinds, Collection):
        raise ValueError(f"kinds must be one or more names, such as {tuple(known)[:2]}, got {kinds!r}")
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        raise ValueError(f"kinds {unknown} are unknown; choose one or more from {', '.join(known)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds must differ from each other, got {', '.join(kinds)}")
    return tuple(kinds)
