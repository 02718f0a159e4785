"""Where images come from: the interface of scenes, and their ground truth."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from air_env.frames import Frame
from air_env.pictured import SHOWN, Pictured, strip
from air_env.reading import read_whole

Split = Literal["train", "validation", "test"]
STREAMS: dict[Split, int] = {"train": 0, "test": 1, "validation": 2}
"""Split -> the number that tells its random numbers from those of the other splits with the same seed."""
LARGEST_SEED = 2**32 - 1
"""Of scenes: numpy has the same random numbers for [s + 2^32, 0] as for [s, 1], those of another split."""


@dataclass(frozen=True)
class SceneDataset(Pictured):
    """Images with the truth about them, for evaluation only.

    Attributes:
        images: ``[scene, channel, height, width]``, uint8.
        count: ``[scene]``, number of objects; -1 where nobody knows.
        labels: ``[scene, object]``, class of each object; -1 where there is none. Where ``z_what`` is a category,
            these are the same categories. ``[scene, 0]``, as boxes and poses, where nothing is known of any scene.
        boxes: ``[scene, object, 4]``, borders ``(x0, y0, x1, y1)`` in pixels; NaN where there is none.
        poses: ``[scene, object, 3]``, x, y and yaw of three-dimensional objects, or ``[scene, object, 2]`` without yaw;
            NaN where there is none. ``[scene, object, 0]`` where scenes are flat.
        z_scene: ``[scene, latent]``, of the whole scene, such as the angle of a camera that is to be inferred; of
            length zero where there is none.
        facts: Further truth about each object by name, ``[scene, object]``; -1, or NaN, where there is none.
    """

    images: Tensor
    count: Tensor
    labels: Tensor
    boxes: Tensor
    poses: Tensor = field(default_factory=lambda: torch.empty(0))
    z_scene: Tensor = field(default_factory=lambda: torch.empty(0))
    facts: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, like in (("poses", self.boxes[..., :0]), ("z_scene", self.boxes.new_empty(len(self.boxes), 0))):
            if getattr(self, name).dim() == 1:
                object.__setattr__(self, name, like)

    @classmethod
    def unlabelled(cls, images: Tensor) -> "SceneDataset":
        """Images ``[scene, channel, height, width]``, uint8, of which nothing else is known."""
        unknown = torch.full((len(images),), -1, dtype=torch.long)
        return cls(images, unknown, unknown[:, None][:, :0], torch.empty(len(images), 0, 4))

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> "SceneDataset":
        """A selection of scenes."""
        return self._map(lambda part: part[index])

    def to(self, device: torch.device | str) -> "SceneDataset":
        """The scenes on a device."""
        return self._map(lambda part: part.to(device))

    @property
    def truth(self) -> dict[str, Tensor]:
        """All that is known of the images, by name."""
        parts = {name: part for name, part in vars(self).items() if name not in ("images", "facts")}
        return {name: part for name, part in parts.items() if math.prod(part.shape[1:]) > 0} | dict(self.facts)

    @property
    def counted(self) -> Bool[Tensor, "scene"]:
        """Of which scenes the number of objects is known."""
        return self.count >= 0

    def counted_only(self, what: str) -> "SceneDataset":
        """The scenes whose number of objects is known.

        Raises:
            ValueError: There is none; the message says what is not to be had.
        """
        if not self.counted.any():
            raise ValueError(
                f"there is no truth about these images, so there is no {what}; take scenes with known counts"
            )
        return self[self.counted]

    def unknown_truth(self, num_images: int) -> dict[str, Tensor]:
        """The truth of images of which nothing is known: -1, or NaN."""
        return {
            name: part.new_full((num_images, *part.shape[1:]), torch.nan if part.is_floating_point() else -1)
            for name, part in self.truth.items()
        }

    def _map(self, function: Callable[[Tensor], Tensor]) -> "SceneDataset":
        parts = {name: function(part) for name, part in vars(self).items() if name != "facts"}
        return SceneDataset(**parts, facts={name: function(part) for name, part in self.facts.items()})

    def float_images(self, device: torch.device | str = "cpu") -> Tensor:
        """The images in [0, 1], float32."""
        return self.images.to(device).float() / 255

    def picture(self) -> Frame:
        """The first images with their true boxes."""
        return strip(self[:SHOWN].float_images(), self.boxes[:SHOWN].cpu())


class Scene(Protocol):
    """A source of images.

    ``train`` scenes are learned from. ``validation`` scenes show the progress of training, and are what choices are
    made by; ``test`` scenes are looked at once, at the end. The three are made of different objects.
    """

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        ...

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Makes scenes; the same arguments give the same scenes."""
        ...


class PicturedScene(Pictured):
    """A scene that notebooks show by its first validation images."""

    def picture(self: Scene) -> Frame:
        """The first validation images with their true boxes."""
        return self.dataset("validation", SHOWN).picture()


def check_request(split: str, num_scenes: int, seed: int) -> None:
    """Checks what a scene is asked for.

    Raises:
        ValueError: The split is unknown, or a number is too small or too large.
    """
    if not isinstance(split, str) or split not in STREAMS:
        raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(get_args(Split))}")
    read_whole("num_scenes", num_scenes, 1)
    if read_whole("the seed of scenes", seed) > LARGEST_SEED:
        raise ValueError(f"the seed of scenes must be at most {LARGEST_SEED}, got {seed}")


def read_counts(counts: object, most: int | None = None) -> tuple[int, ...]:
    """Numbers of objects, equally probable.

    Raises:
        ValueError: There is none, or one is no whole number of 0 to the most there may be.
    """
    try:
        numbers = tuple(read_whole("counts", count, 0, most) for count in cast(Iterable[object], counts))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers:
        limits = ", such as (0, 1, 2)" if most is None else f" from 0 to {most}, the most of these scenes"
        raise ValueError(f"counts must be one or more numbers of objects{limits}, got {counts!r}")
    return numbers
