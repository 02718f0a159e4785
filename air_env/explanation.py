"""What an episode says about an image: the latents of a whole scene, and what they draw."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from air_env import findings, geometry
from air_env.findings import View
from air_env.frames import Frame
from air_env.pictured import SHOWN, Pictured, stack, strip

if TYPE_CHECKING:
    import pandas as pd

Images = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True)
class Action:
    """The choice of one step.

    Attributes:
        z_pres: ``[batch]``, 1 draws an object, 0 stops.
        z_where: ``[batch, where]``, where the object is.
        z_what: ``[batch, what]``, or ``[batch]`` of categories: what it is.
        z_scene: ``[batch, scene]``, the latent of the whole scene, which only the first action of an episode chooses;
            of length zero where there is none.
    """

    z_pres: Tensor
    z_where: Float[Tensor, "batch where"]
    z_what: Tensor
    z_scene: Float[Tensor, "batch scene"]

    @classmethod
    def of_object(cls, z_pres: Tensor, z_where: Tensor, z_what: Tensor) -> "Action":
        """The choice of a step in scenes that have no latent of their own."""
        return cls(z_pres, z_where, z_what, z_where.new_zeros(len(z_where), 0))


@dataclass(frozen=True)
class Explanation:
    """The explanation ``z`` of a batch of images in up to N steps: latents only.

    Attributes:
        z_pres: ``[batch, step]``, ones for the objects, then zeros (the unary code of Section 2.1).
        z_where: ``[batch, step, where]``, windows (`air_env.geometry`) or poses; 0 where no object is present.
        z_what: ``[batch, step, what]``, appearance codes, or ``[batch, step]``, categories (int64); 0 where no
            object is present.
        z_scene: ``[batch, scene]``, of the whole scene, such as the camera's angle; of length zero where there is none.
    """

    z_pres: Float[Tensor, "batch step"]
    z_where: Float[Tensor, "batch step where"]
    z_what: Float[Tensor, "batch step what"] | Int[Tensor, "batch step"]
    z_scene: Float[Tensor, "batch scene"]

    @classmethod
    def of_objects(cls, z_pres: Tensor, z_where: Tensor, z_what: Tensor) -> "Explanation":
        """The explanation of scenes that have no latent of their own."""
        return Explanation(z_pres, z_where, z_what, z_where.new_zeros(len(z_where), 0))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The explanations of several batches, one batch after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    @property
    def count(self) -> Int[Tensor, "batch"]:
        """Number of objects of each image."""
        return self.z_pres.sum(1).long()

    def first(self, num_objects: int) -> "Explanation":
        """The first objects only."""
        z_pres, z_where, z_what = (part[:, :num_objects] for part in (self.z_pres, self.z_where, self.z_what))
        return Explanation(z_pres, z_where, z_what, self.z_scene)

    def keep(self, count: Int[Tensor, "batch"]) -> "Explanation":
        """So many first objects of each image, with the latents of the others 0."""
        present = torch.arange(self.z_pres.shape[1], device=count.device) < count[:, None]
        return Explanation(present.to(self.z_pres.dtype), self.z_where, self.z_what, self.z_scene).without_absent()

    def without_absent(self) -> "Explanation":
        """The latents, 0 where no object is present."""
        present = self.z_pres > 0.5
        return Explanation(self.z_pres, masked(present, self.z_where), masked(present, self.z_what), self.z_scene)

    def _repr_html_(self) -> str:
        """The latents of the first images, for notebooks."""
        lines = ["<table><tr><th>image</th><th>object</th><th>z_where</th><th>z_what</th></tr>"]
        for i, count in enumerate(self.count[:SHOWN].tolist()):
            for step in range(count):
                where, what = (_short(part[i, step]) for part in (self.z_where, self.z_what))
                lines.append(f"<tr><td>{i}</td><td>{step + 1} of {count}</td><td>{where}</td><td>{what}</td></tr>")
        return "\n".join([*lines, "</table>"])


@dataclass(frozen=True)
class DrawnExplanation(Pictured, Explanation):
    """An explanation with what it draws (`SceneModel.drawn`).

    Attributes:
        reconstruction: ``[batch, channel, height, width]``, the canvas that the latents draw.
        outlines: ``[batch, step, 4]``, what the objects span, ``(x0, y0, x1, y1)`` in image coordinates; NaN where no
            object is present.
        windows: ``[batch, step, 4]``, the attention windows, likewise; the outlines where ``z_where`` is no window.
    """

    reconstruction: Images
    outlines: Float[Tensor, "batch step 4"]
    windows: Float[Tensor, "batch step 4"]

    def boxes(self, image_size: int) -> Float[Tensor, "batch step 4"]:
        """What the objects span, ``(x0, y0, x1, y1)`` in pixels; NaN where no object is present.

        Args:
            image_size: Side of the square image in pixels.
        """
        return geometry.to_pixels(self.outlines, image_size)

    def to_frame(
        self, views: Sequence[View] | None = None, columns: Mapping[str, ArrayLike] | None = None
    ) -> "pd.DataFrame":
        """A table with a row for each object (`air_env.findings.to_frame`); ``to_csv`` writes it.

        Args:
            views: The files that the images show parts of; boxes are then in pixels of the files.
            columns: More to say of each image: name -> one number for each.
        """
        side = self.reconstruction.shape[-1]
        categories = None if self.z_what.is_floating_point() else self.z_what.numpy(force=True)
        return findings.to_frame(self.boxes(side).numpy(force=True), side, views, categories, columns)

    def to_coco(self, views: Sequence[View], kinds: Sequence[str] = ()) -> dict[str, Any]:
        """COCO's JSON of the boxes in their files (`air_env.findings.to_coco`)."""
        return findings.to_coco(self.to_frame(views), views, kinds)

    def to_detections(self, views: Sequence[View] | None = None) -> list[Any]:
        """A ``supervision.Detections`` for each image.

        Raises:
            ImportError: supervision is not installed.
        """
        return findings.to_detections(self.to_frame(views), len(self.z_pres))

    def picture(self) -> Frame:
        """The first reconstructions with their windows."""
        return strip(self.reconstruction[:SHOWN].cpu(), self._marks[:SHOWN])

    def beside(self, images: Images) -> Frame:
        """Images with their windows (red, green, blue, ...) above, reconstructions below."""
        return stack([strip(part.cpu(), self._marks) for part in (images, self.reconstruction)])

    @property
    def _marks(self) -> Tensor:
        return geometry.to_pixels(self.windows, self.reconstruction.shape[-1]).cpu()

    def _repr_html_(self) -> str:
        content = base64.b64encode(self._repr_png_() or b"").decode()
        return f'<img src="data:image/png;base64,{content}">\n{super()._repr_html_()}'


def _short(latent: Tensor) -> str:
    """A category, or the first numbers of a latent."""
    if latent.dim() == 0:
        return str(latent.item())
    return ", ".join(f"{value:.2f}" for value in latent[:3].tolist()) + ", ..." * (len(latent) > 3)


def masked(present: Tensor, latents: Tensor) -> Tensor:
    """The latents ``[*batch, ...]``, with 0 where ``present [*batch]`` does not hold.

    Whatever the latents of absent objects hold then reaches neither values nor gradients.
    """
    zero = torch.zeros((), dtype=latents.dtype, device=latents.device)
    return torch.where(present.view(*present.shape, *[1] * (latents.dim() - present.dim())), latents, zero)
