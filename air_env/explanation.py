"""What an episode says about an image: the latents of a whole scene."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from air_env import geometry


@dataclass(frozen=True)
class Explanation:
    """The explanation ``z = (z_pres, z_where, z_what)`` of a batch of images in up to N steps.

    Attributes:
        z_pres: ``[batch, step]``, ones for the objects, then zeros (the unary code of Section 2.1).
        z_where: ``[batch, step, where]``, windows (`air_env.geometry`) or poses; 0 where no object is present.
        z_what: ``[batch, step, what]``, appearance codes, or ``[batch, step]``, categories (int64); 0 where no
            object is present.
        reconstruction: ``[batch, channel, height, width]``, the canvas these latents draw, if it was drawn.
        outlines: ``[batch, step, 4]``, what outlines span in image coordinates, where ``z_where`` are no windows.
        z_camera: ``[batch, camera]``, of the whole scene, where a camera sees it.
    """

    z_pres: Float[Tensor, "batch step"]
    z_where: Float[Tensor, "batch step where"]
    z_what: Float[Tensor, "batch step what"] | Int[Tensor, "batch step"]
    reconstruction: Float[Tensor, "batch channel height width"] | None = None
    outlines: Float[Tensor, "batch step 4"] | None = None
    z_camera: Float[Tensor, "batch camera"] | None = None

    @property
    def count(self) -> Int[Tensor, "batch"]:
        """Number of objects of each image."""
        return self.z_pres.sum(1).long()

    def first(self, num_objects: int) -> "Explanation":
        """The first objects only; nothing that was made of them."""
        z_pres, z_where, z_what = (part[:, :num_objects] for part in (self.z_pres, self.z_where, self.z_what))
        return Explanation(z_pres, z_where, z_what, z_camera=self.z_camera)

    def boxes(self, image_size: int) -> Float[Tensor, "batch step 4"]:
        """The windows, or what outlines span, in pixels, ``(x0, y0, x1, y1)``; NaN where no object is present.

        Args:
            image_size: Side of the square image in pixels.
        """
        if self.outlines is None:
            boxes = geometry.boxes(self.z_where, image_size)
        else:
            boxes = (self.outlines + 1) * (image_size / 2)
        return torch.where(self.z_pres[..., None] > 0, boxes, torch.nan)
