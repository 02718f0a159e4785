"""`images`: people's own pictures, of which nothing is known but what they show."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from air_env.scenes.base import STREAMS, PicturedScene, SceneDataset, Split, check_request
from air_env.scenes.picture_files import digest, find_pictures
from air_env.scenes.treatment import Background, Treatment, Window, look_at

_HELD_OUT = 0.1
"""Share of the pictures that are validation pictures, and of those that are test pictures (our choice)."""
_BANDS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
"""Where fewer than three pictures are, the part of each that a split is cut from, along the longer side."""
_MOST_FITTED = 200
"""Training pictures, spread over all, of which the treatment is read off."""


@dataclass(frozen=True)
class ImageScene(PicturedScene):
    """Scenes cut out of pictures, without truth: every count is -1.

    Every picture belongs to one split, by what it shows: a tenth of the different pictures, and at least one, to
    validation, as many to test. Equal pictures count as one. Fewer than three pictures are cut, each into three bands
    along its longer side, 0.6, 0.2 and 0.2 of it, one for each split. So no pixel is in two splits.

    Scenes take pictures in turns, in random order; squares lie anywhere in a picture, or in its band.

    Args:
        source: Folder, file, array or sequence of pictures (`find_pictures`).
        treatment: How they are read; what it leaves open is read off the training pictures.
        held_out: False cuts the scenes of all splits from all pictures: then nothing is held out.

    Example:
        >>> light = np.random.default_rng(0).random((40, 16, 16)) > 0.9
        >>> scene = ImageScene(light, Treatment(image_size=16))
        >>> scene.dataset("validation", 4).images.shape
        torch.Size([4, 1, 16, 16])
    """

    source: Any
    treatment: Treatment = field(default_factory=Treatment)
    held_out: bool = True

    def __post_init__(self) -> None:
        pictures = self.parts("train")[0]
        some = np.unique(np.linspace(0, len(pictures) - 1, _MOST_FITTED).astype(int))
        object.__setattr__(self, "treatment", self.treatment.fitted([self.pictures[pictures[i]] for i in some]))

    @cached_property
    def pictures(self) -> Sequence[Any]:
        """All pictures of the source."""
        return find_pictures(self.source)

    @cached_property
    def _different(self) -> list[int]:
        """One of each of the pictures that are equal, in an order that does not depend on names."""
        first: dict[bytes, int] = {}
        for i in range(len(self.pictures)):
            first.setdefault(digest(self.pictures[i]), i)
        return [first[key] for key in sorted(first)]

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.treatment.image_size

    @property
    def options(self) -> dict[str, Any]:
        """The options of `images` that make these scenes of any folder: what is kept with an agent."""
        return asdict(self.treatment) | {"held_out": self.held_out}

    def parts(self, split: Split) -> tuple[list[int], tuple[float, float]]:
        """Numbers of the pictures of a split, and the part of each along its longer side.

        Raises:
            ValueError: There are too few pictures to hold some out.
        """
        different = self._different
        if not self.held_out:
            return different, (0.0, 1.0)
        if len(different) < 3:
            if self.treatment.crop is None:
                found = f"{len(self.pictures)} pictures, of which {len(different)} differ"
                raise ValueError(
                    f"training, validation and test need three different pictures, got {found}; add pictures, name the "
                    "side of squares to cut from them by crop, or use all for everything by held_out=False"
                )
            return different, _BANDS[split]
        few = max(1, round(_HELD_OUT * len(different)))
        chosen = {"validation": different[:few], "test": different[few : 2 * few], "train": different[2 * few :]}
        return chosen[split], (0.0, 1.0)

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Cuts scenes; the same arguments give the same scenes.

        Raises:
            ValueError: A picture cannot be read, or is too small for a square in its band.
        """
        check_request(split, num_scenes, seed)
        rng = np.random.default_rng([seed, STREAMS[split]])
        pictures, band = self.parts(split)
        rounds = -(-num_scenes // len(pictures))
        chosen = np.concatenate([rng.permutation(pictures) for _ in range(rounds)])[:num_scenes]
        places = rng.random((num_scenes, 2))
        side = self.treatment.image_size
        images = np.empty((num_scenes, self.treatment.channels, side, side), np.uint8)
        for i in np.unique(chosen):
            pixels = self.treatment(self.pictures[int(i)])
            for row in np.flatnonzero(chosen == i):
                view = look_at(pixels, self._window(pixels, places[row], band), side)
                images[row] = (255 * view).round()
        return SceneDataset.unlabelled(torch.from_numpy(images))

    def _window(self, pixels: NDArray, place: NDArray, band: tuple[float, float]) -> Window:
        """The square at a place, from 0 to 1 across and down, of a picture's band."""
        crop, size = self.treatment.crop, np.array([pixels.shape[1], pixels.shape[0]])
        if crop is None:
            return self.treatment.window(*size.tolist())
        longer = int(size.argmax())
        begin, end = np.zeros(2), size.astype(float)
        begin[longer], end[longer] = np.round(size[longer] * np.array(band))
        room = end - begin - crop
        if band != (0.0, 1.0) and room[longer] < 0:
            raise ValueError(
                f"a picture of {size[0]} x {size[1]} pixels is too small: the {band[1] - band[0]:.0%} of its longer "
                f"side that this split has are less than the crop of {crop}; take a smaller crop, add pictures, or use "
                "all for everything by held_out=False"
            )
        # Where the picture is smaller than the square, it lies in its middle.
        x, y = (begin + np.where(room > 0, np.floor(place * (np.maximum(room, 0) + 1)), np.floor(room / 2))).astype(int)
        return int(x), int(y), crop


def images(
    *,
    data_dir: Path | str | None = None,
    image_size: int = 50,
    channels: int = 1,
    crop: int | None = None,
    invert: bool | None = None,
    background: Background = "subtract",
    levels: tuple[float, float] | None = None,
    held_out: bool = True,
) -> ImageScene:
    """Pictures of one's own, without truth; `ImageScene` says how they are cut, `Treatment` how they are read.

    Args:
        data_dir: Folder of the pictures (PNG, JPEG, TIFF), or a .npy or .npz stack.
        image_size: Side of the square image in pixels.
        channels: 1 for grey, 3 for RGB.
        crop: Side in pixels of the squares that are cut out of the pictures; None takes whole pictures.
        invert: Whether objects are darker than what is around them; None is what most training pictures show.
        background: subtract takes a smooth background off each picture; keep does not.
        levels: Brightness that becomes black and white, from 0 to 1; None is what the training pictures say.
        held_out: False cuts the scenes of all splits from all pictures.

    Raises:
        ValueError: No folder is named, or it holds no pictures, or too few.
        FileNotFoundError: There is no such folder.
    """
    if data_dir is None:
        raise ValueError("scene 'images' needs a folder of pictures; name it by data_dir (--data-dir FOLDER)")
    return ImageScene(data_dir, Treatment(image_size, channels, crop, invert, background, levels), held_out)
