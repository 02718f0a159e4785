"""The interface of everything that draws."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from air_env.priors import CategoricalPrior, GaussianPrior, Prior


class Renderer(Protocol):
    """Draws one more object onto the canvases of a batch of scenes.

    Attributes:
        channels: Number of colours of a canvas: 1 or 3.
        prior_what: The prior of ``z_what``, which also says its shape and type.
        differentiable: Whether pixels have a gradient in ``z_where``, and canvases between two others mean something.
            A black box draws whole objects only.
    """

    channels: int
    differentiable: bool
    prior_what: Prior

    def draw(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch where"],
        z_what: Tensor,
    ) -> Float[Tensor, "batch channel height width"]:
        """The canvas with the object added; rows must not depend on each other."""
        ...

    def draw_all(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_where: Float[Tensor, "batch step where"],
        z_what: Tensor,
    ) -> Float[Tensor, "batch step channel height width"]:
        """The canvases after each of N objects: what N calls of `draw` give, at once."""
        ...


class SceneRenderer(Protocol):
    """Draws whole scenes, seen by a camera: objects hide each other, so that none can be added to a finished image.

    Attributes:
        channels: As of a `Renderer`, like the next two.
        differentiable: False, where it is a black box.
        prior_what: The prior of ``z_what``.
        prior_where: The prior of ``z_where``.
        prior_camera: The prior of ``z_camera``, which the first action of an episode chooses.
    """

    channels: int
    differentiable: bool
    prior_what: CategoricalPrior
    prior_where: GaussianPrior
    prior_camera: GaussianPrior

    def draw_scenes(
        self,
        canvas: Float[Tensor, "batch channel height width"],
        z_camera: Float[Tensor, "batch camera"],
        present: Bool[Tensor, "batch step"],
        z_where: Float[Tensor, "batch step where"],
        z_what: Int[Tensor, "batch step"],
    ) -> Float[Tensor, "batch channel height width"]:
        """The objects that are present, with all that is there without any; rows must not depend on each other.

        Of the canvas only the size matters.
        """
        ...


@dataclass(frozen=True)
class RendererSettings(ABC):
    """Settings of a renderer."""

    kind: ClassVar[str]
    """Name of these settings in `RENDERERS`; files of settings carry it."""

    @abstractmethod
    def make(self) -> Renderer | SceneRenderer:
        """Makes the renderer, a `torch.nn.Module`."""


def check_kinds(kinds: Collection[str], known: Collection[str]) -> None:
    """Checks what a renderer of fixed kinds is to draw.

    Raises:
        ValueError: There is none, or one is unknown or named twice.
    """
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        raise ValueError(f"kinds {unknown} are unknown; choose one or more from {', '.join(known)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds must differ from each other, got {', '.join(kinds)}")
