"""What the recurrent core sees at every step: AIR's view of the scene, and DAIR's beside it.

    air         the image, embedded once, and the latents of the step before    (Figure 2, middle)
    dair        the error canvas, what the objects so far draw minus the image   (Section 3.1; Figure 8)
    air_canvas  image, error and latents; for objects that hide each other       (our choice)

An embedding is called with the images, the canvas so far, without gradient, and the start: which of the places where
something is unexplained comes next. It returns features and, if it has an opinion, the place ``(x, y)`` where the next
window should start. The core's own state is all else that it gets.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Images
from air_env.precision import exact
from air_env.registry import Registry


class ImageEmbedding(nn.Module):
    """AIR: from an image ``[batch, channel, side, side]`` to features by a small network on overlapping patches.

    Deviation: the paper feeds the pixels to the core. Patches of 8 pixels every 4 find objects of many
    sizes in half the iterations; as matrix products they take half the time of two convolutions.
    """

    reads_canvas, reads_latents, starts_anywhere = False, True, False
    patch, stride, padding = 8, 4, 3

    def __init__(
        self, image_shape: tuple[int, int, int], features: int, hidden: int = 64, patch_features: int = 16
    ) -> None:
        super().__init__()
        channels, image_size, _ = image_shape
        if image_size < (least := self.patch - 2 * self.padding):
            raise ValueError(f"this core wants images of at least {least} pixels a side, got {image_size}; take larger")
        side = len(self.centres(image_size))
        self.patches = nn.Sequential(
            nn.Linear(channels * self.patch**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, patch_features),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.image = nn.Sequential(nn.Linear(patch_features * side**2, features), nn.ReLU())
        self.features = features

    def forward(self, images: Images, *unused: Tensor) -> tuple[Float[Tensor, "batch feature"], None]:
        """The features of a batch of images, whatever is drawn of them so far."""
        del unused
        return self.image(self.patches(self.unfold(images))), None

    def centres(self, image_size: int) -> Float[Tensor, "patch"]:
        """Where the patches of a row are centred, in image coordinates."""
        first = torch.arange(0, image_size + 2 * self.padding - self.patch + 1, self.stride) - self.padding
        return (first + self.patch / 2) * 2 / image_size - 1

    def unfold(self, images: Images) -> Float[Tensor, "batch place pixel"]:
        """The patches of a batch of images, row by row."""
        padded = F.pad(images, (self.padding,) * 4)
        patches = padded.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)
        return patches.movedim(1, 3).flatten(3).flatten(1, 2)


class ErrorEmbedding(nn.Module):
    """DAIR: a large glimpse of the error canvas, centred where most is unexplained.

    What is explained looks like what was never there, and what is not looks the same wherever it is and whatever else
    is in the scene: a third object is found as the first one was, by agents that never saw three.

    Deviation: the paper does not say how DAIR reads the error canvas. Features of the whole canvas put windows between
    two objects where either could be next, and what is left over then counts as an object more.
    """

    reads_canvas, reads_latents, starts_anywhere = True, False, True
    blurs: Tensor
    glimpse_size, glimpse_scale, blur = 20, 0.8, 0.17
    """Pixels of the glimpse; its size and that of the square over which errors are averaged, relative to the image."""
    considerable = 0.5
    """Share of the largest error from which a place may be the first one."""

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        channels, image_size, _ = image_shape
        pixel, radius = torch.arange(image_size), max(1, round(self.blur * image_size / 2))
        near = (pixel[:, None] - pixel).abs() <= radius
        self.register_buffer("blurs", near / (2.0 * radius + 1), persistent=False)
        self.glimpse = nn.Sequential(
            nn.Linear(channels * self.glimpse_size**2, features),
            nn.ReLU(),
            nn.Linear(features, features),
            nn.ReLU(),
        )
        self.features = features + 2

    def forward(
        self, images: Images, canvas: Images, start: Float[Tensor, "batch"] | None = None
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch 2"]]:
        """The features of what the objects so far draw minus the image, and the place from which it is seen."""
        error = canvas - images
        place = self.place(error, error.new_zeros(len(error)) if start is None else start)
        scale = torch.full_like(place[:, :1], math.log(self.glimpse_scale))
        glimpse = geometry.attend(error, torch.cat([scale, place], 1), self.glimpse_size)
        return torch.cat([self.glimpse(glimpse.flatten(1)), place], 1), place

    @exact
    def place(self, error: Images, start: Float[Tensor, "batch"]) -> Float[Tensor, "batch 2"]:
        """Where the mean absolute error of a square of pixels is largest, in image coordinates.

        Or, for starts above 0, the place at this share of those, row by row, whose error is considerable.
        """
        side = error.shape[-1]
        mean = (self.blurs @ error.abs().mean(1) @ self.blurs.mT).flatten(1)
        rank = (mean >= self.considerable * mean.amax(1, keepdim=True)).cumsum(1)
        elsewhere = torch.searchsorted(rank, (start[:, None] * rank[:, -1:]).ceil().long())[:, 0]
        pixel = torch.where(start > 0, elsewhere, mean.argmax(1))
        return (torch.stack([pixel % side, pixel // side], 1).to(error) + 0.5) * 2 / side - 1


class SpatialSoftmax(nn.Module):
    """Where maps of attention lie on a grid of patches (Levine et al., 2016, Section 5.1).

    The place of an object is then linear in the features. At first the attention is on what is unexplained, and of
    two objects every map prefers the one that is further in a direction of its own.

    Args:
        places: ``[place, 2]``, centres ``(x, y)`` of the patches in image coordinates.
        features: Number of features of a patch.
        maps: Number of maps.
    """

    sharpness, preference_strength = 60.0, 8.0
    places: Tensor

    def __init__(self, places: Float[Tensor, "place 2"], features: int, maps: int = 16) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)
        self.attention = nn.Linear(features, maps)
        angle = torch.arange(maps) * (2 * torch.pi / maps)
        directions = torch.stack([angle.cos(), angle.sin()], 1)
        self.preference = nn.Parameter(self.preference_strength * directions @ places.T)

    def forward(
        self, patches: Float[Tensor, "batch place feature"], unexplained: Float[Tensor, "batch place"]
    ) -> Float[Tensor, "batch map 2"]:
        """The mean place of each map; ``unexplained`` is the mean absolute error of a patch."""
        logits = self.attention(patches).mT + self.sharpness * unexplained[:, None] + self.preference
        return logits.softmax(-1) @ self.places


class CanvasEmbedding(nn.Module):
    """From image and canvas to features, and to a place where something is not explained yet (Deviation).

    The paper's AIR reads the image, and its DAIR the error alone. This reads both, and starts its windows from where
    attention lies on the error: what finds the first object finds the others, too.
    """

    reads_canvas, reads_latents, starts_anywhere = True, True, False

    def __init__(self, image_shape: tuple[int, int, int], features: int, hidden: int = 64, maps: int = 16) -> None:
        super().__init__()
        channels, image_size, _ = image_shape
        self.embed = ImageEmbedding((2 * channels, image_size, image_size), features, hidden)
        centres = self.embed.centres(image_size)
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        self.places = SpatialSoftmax(torch.stack([x.flatten(), y.flatten()], 1), hidden, maps)
        self.features = features + 2 * maps

    def forward(
        self, images: Images, canvas: Images, *unused: Tensor
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch 2"]]:
        """The features, and the place of the first map of attention."""
        del unused
        pixels = self.embed.unfold(torch.cat([images, images - canvas], 1))
        hidden = self.embed.patches[:2](pixels)
        places = self.places(hidden, pixels[..., pixels.shape[-1] // 2 :].abs().mean(-1))
        features = self.embed.image(self.embed.patches[2:](hidden))
        return torch.cat([features, places.flatten(1)], 1), places[:, 0]


CORES: Registry[type[ImageEmbedding] | type[ErrorEmbedding] | type[CanvasEmbedding]] = Registry(
    "core", {"air": ImageEmbedding, "dair": ErrorEmbedding, "air_canvas": CanvasEmbedding}
)
"""Name -> what embeds what the core sees. Its attributes say whether its features change as objects are drawn
(``reads_canvas``), whether the core gets the latents of the step before (``reads_latents``), and whether explanations
can begin anywhere (``starts_anywhere``)."""
