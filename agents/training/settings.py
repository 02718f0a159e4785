"""Settings shared by all training runs: scenes, steps, seed, validation and test scenes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from air_env.frames import Frame
from air_env.scenes import SCENES, ImageScene, Scene, SceneDataset, make_scene
from air_env.scenes.base import LARGEST_SEED

Rows = Sequence[Mapping[str, float]]
Options = dict[str, Any]
"""Options of a scene by name, or other plain values of JSON."""
State = Options
"""What a checkpoint holds of a trainer: tensors, numbers and containers of them."""


class Trains(ABC):
    """Trains one iteration at a time; measures, draws and saves what it trains.

    Attributes:
        network: The weights, which must stay finite.
        device: Where they are.
        iteration: Iterations so far.
        objective: Column of metrics of the training objective.
        description: Name of the model in the error message if training diverges.
        optimizer: Changes the weights.
    """

    network: nn.Module
    device: torch.device
    iteration: int = 0
    objective: str
    description: str
    optimizer: torch.optim.Optimizer

    @property
    def learning_rate(self) -> float:
        """The latest learning rate."""
        return self.optimizer.param_groups[0]["lr"]

    @abstractmethod
    def step(self, progress: float | None = None) -> Tensor:
        """One iteration.

        Args:
            progress: Share of the training that is done, for the learning rate; by default that of the iterations.

        Returns:
            The batch's mean objective, detached and still on the device.
        """

    def objectives(self, mean: float) -> dict[str, float]:
        """Columns of metrics of the training objective, from its mean since the last row."""
        return {self.objective: mean}

    @abstractmethod
    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Columns of metrics of validation scenes."""

    @abstractmethod
    def evaluate(self, scenes: SceneDataset, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """Final metrics of test scenes; ``progress`` is called with the number of scenes of every batch."""

    @abstractmethod
    def picture(self, scenes: SceneDataset) -> Frame | None:
        """Scenes beside their reconstructions; None if the model makes none."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes the file of weights, with the recipe in it, to a run directory."""

    @abstractmethod
    def state_dict(self) -> State:
        """All that the next iteration depends on."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Restores the state saved by a trainer of the same recipe."""


def refuse_unknown(what: str, name: str, known: Collection[str]) -> None:
    """Refuses a name that is not among the known ones.

    Raises:
        ValueError: It is not; the message lists those that are.
    """
    if name not in known:
        raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(ABC):
    """Settings of a training run; each kind of run has a class of its own."""

    kind: ClassVar[str]
    """Name of this class in config.json."""

    scene: str = "multi_mnist"
    """One of `SCENES`."""
    max_steps: int
    """Iterations of training."""
    scene_options: Options = field(default_factory=dict)
    """Options of the scene: counts, object_size, ..."""
    num_train: int = 60_000
    """Number of training images (paper: 60,000)."""
    learning_rate: float = 1e-3
    """Learning rate of Adam (Deviation; paper: 1e-4 with RMSProp)."""
    evaluate_every: int = 250
    """Iterations between rows of metrics."""
    num_validation: int = 1_000
    """Number of validation scenes that rows of metrics are measured on."""
    num_final: int = 5_000
    """Number of test scenes that the finished model is measured on."""
    num_pictured: int = 12
    """Number of validation scenes in pictures."""
    seed: int = 0
    """Decides the training images, the initial weights, the order of batches and all noise."""

    def __post_init__(self) -> None:
        SCENES.find(self.scene)
        whole = ("max_steps", "num_train", "evaluate_every", "num_validation", "num_final", "num_pictured")
        self._refuse_nonsense(positive=(*whole, "learning_rate"), not_negative=("seed",), whole=(*whole, "seed"))
        if self.seed >= LARGEST_SEED:  # the next one is that of the test scenes
            raise ValueError(f"seed must be less than {LARGEST_SEED}, got {self.seed}")

    @abstractmethod
    def make_trainer(self, scene: Scene, device: torch.device | str = "cpu") -> Trains:
        """What is trained by these settings, with initial weights.

        Raises:
            ValueError: The settings do not go together.
        """

    def make_scene(self, data_dir: str | Path | None = None) -> Scene:
        """The source of training, validation and test images.

        Args:
            data_dir: Folder of the data files, for scenes that need some.
        """
        return make_scene(self.scene, data_dir=None if data_dir is None else str(data_dir), **self.scene_options)

    def settled(self, data_dir: str | Path | None = None) -> Self:
        """The settings, with the options of the scene that the scene reads off its data.

        With them, the agent's file says how pictures are read, and another folder is read alike.
        """
        scene = self.make_scene(data_dir)
        return replace(self, scene_options=scene.options) if isinstance(scene, ImageScene) else self

    def upgraded_state(self, state: State) -> State:
        """The state of resume.pt in today's form; a kind of run whose form has changed overrides it."""
        return state

    def _refuse_nonsense(
        self, *, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = (), whole: tuple[str, ...] = ()
    ) -> None:
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:  # so that NaN is refused
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in whole:
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class GradientSettings(TrainingSettings):
    """Settings of runs that follow the gradient of batches of images."""

    batch_size: int = 64
    """Images per iteration (paper: 64)."""
    decay: float = 0.4
    """Last part of training over which the learning rates fall to 0, as a share of all iterations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_nonsense(positive=("batch_size",), whole=("batch_size",))
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be a share from 0 to 1, got {self.decay}")
        if self.batch_size > self.num_train:
            raise ValueError(f"batch_size {self.batch_size} exceeds the {self.num_train} training images")

    def learning_rate_factor(self, progress: float) -> float:
        """What the learning rates are multiplied by at a share of the training: 1, then linearly to 0."""
        return min(1.0, (1 - progress) / self.decay) if self.decay > 0 else 1.0
