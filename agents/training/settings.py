"""What decides any training run: scenes, images, batches, learning rate, seed."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from air_env.scenes import SCENES


def refuse_unknown(what: str, name: str, known: Any) -> None:
    """Refuses a name that is not registered, with those that are.

    Raises:
        ValueError: It is not.
    """
    if name not in known:
        raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What recipes of agents and of their comparisons share."""

    scene: str = "multi_mnist"
    """One of `SCENES`."""
    max_steps: int
    """Iterations of training."""
    scene_options: dict[str, Any] = field(default_factory=dict)
    """Options of the scene: counts, object_size, ..."""
    num_train: int = 60_000
    """Number of training images (paper: 60,000)."""
    batch_size: int = 64
    """Images per iteration (paper: 64)."""
    learning_rate: float = 1e-3
    """Of Adam (Deviation; paper: 1e-4 with RMSProp)."""
    decay: float = 0.4
    """Last part of training over which the learning rates fall to 0, as a share of all iterations."""
    evaluate_every: int = 250
    """Iterations between rows of metrics."""
    seed: int = 0
    """Decides the training images, the initial weights, the order of batches and all noise."""

    def __post_init__(self) -> None:
        SCENES.find(self.scene)
        self._refuse_nonsense(
            positive=("max_steps", "num_train", "batch_size", "learning_rate", "evaluate_every"),
            not_negative=("seed",),
            whole=("max_steps", "num_train", "batch_size", "seed", "evaluate_every"),
        )
        if self.batch_size > self.num_train:
            raise ValueError(f"batch_size {self.batch_size} exceeds the {self.num_train} training images")

    def _refuse_nonsense(
        self, *, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = (), whole: tuple[str, ...] = ()
    ) -> None:
        for name in positive:
            if not getattr(self, name) > 0:  # so that NaN is refused
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in whole:
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")

    def learning_rate_factor(self, progress: float) -> float:
        """What the learning rates are multiplied by at a share of the training: 1, then linearly to 0."""
        return min(1.0, (1 - progress) / self.decay) if self.decay > 0 else 1.0
