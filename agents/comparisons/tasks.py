"""What is asked about scenes (Section 3.1.2; Figure 5): the digits' sum, their order, their number."""

from collections.abc import Callable

from jaxtyping import Int
from torch import Tensor

from air_env.registry import Registry
from air_env.scenes import SceneDataset

Targets = Int[Tensor, "scene"]


def digit_sum(scenes: SceneDataset) -> Targets:
    """The sum of the two digits, 0 to 18."""
    return _pairs(scenes).sum(1)


def ascending(scenes: SceneDataset) -> Targets:
    """1 where the left digit is smaller in value than the right one, 0 where it is as large or larger.

    Left is the digit whose box has the smaller centre x.
    """
    digits, centre = _pairs(scenes), scenes.boxes[:, :2, 0::2].sum(-1)
    digits = digits.gather(1, centre.argsort(1))
    return (digits[:, 0] < digits[:, 1]).long()


def count(scenes: SceneDataset) -> Targets:
    """The number of objects."""
    _refuse_unknown(scenes)
    return scenes.count.long()


def _refuse_unknown(scenes: SceneDataset) -> None:
    if not scenes.counted.all():
        raise ValueError("this task is learned from the true counts, and there is no truth about some of these images")


def _pairs(scenes: SceneDataset) -> Tensor:
    _refuse_unknown(scenes)
    if not (scenes.count == 2).all():
        raise ValueError(
            f"sum and order are asked of two digits, and there are scenes of {scenes.count.unique().tolist()} objects; "
            "make them with scene option counts=(2,)"
        )
    return scenes.labels[:, :2].long()


TASKS: Registry[tuple[int, Callable[[SceneDataset], Targets]]] = Registry(
    "task",
    {
        "sum": (19, digit_sum),
        "order": (2, ascending),
        # As AIR, whose count is one of 0 to N = 3.
        "count": (4, count),
    },
)
"""Name -> number of classes, and the class of each scene."""


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of the scenes whose most probable class is right."""
    return (logits.argmax(1) == targets).float().mean().item()
