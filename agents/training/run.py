"""What every training run has: a directory, a budget, rows of metrics, and a state to resume from.

A directory appears whole, with loadable weights in it, and every file in it is replaced atomically, so that a run
killed at any moment can be used and resumed, to the same numbers. What is trained says how to step, what to measure
and how to save it: `Run` for AIR, `ComparisonRun` for what it is compared with.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from .checkpoints import write_atomically, write_text_atomically
from .directory import (
    CONFIG_FILE,
    EVALUATION_FILE,
    METRICS_FILE,
    RESUME_FILE,
    nascent,
    read_checkpoint,
    refuse_occupied,
    refusing_damage,
    write_rows,
)

_SAVE_EVERY_SECONDS = 30.0

Progress = Callable[[dict[str, float]], None]


class Trains(Protocol):
    """What takes the iterations of a run."""

    iteration: int
    device: torch.device

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Whose first learning rate is reported."""
        ...

    def step(self, progress: float | None = None) -> Tensor:
        """One iteration at a share of the training; returns the batch's mean objective, detached, on the device."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where one of the same recipe stood."""
        ...


class Decides(Protocol):
    """What decides what a run computes: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def max_steps(self) -> int:
        """Iterations of training."""
        ...

    @property
    def evaluate_every(self) -> int:
        """Iterations between rows of metrics."""
        ...


R = TypeVar("R", bound=Decides)
T = TypeVar("T", bound=Trains)


class TrainingRun(ABC, Generic[R, T]):
    """A training run in its directory; use `start` or `resume`.

    Args:
        directory: The run directory, which exists.
        recipe: What to compute.
        data_dir: Folder of the data files, for scenes that need some.
        device: Where to compute.
        max_minutes: Budget of the whole run; where it is the tighter one, the learning rate follows it.
        probe: Looks at the trainer at every evaluation, and gives further columns of metrics; its time is not
            counted as training.
    """

    recipe_class: ClassVar[type[Any]]
    """Of the settings in config.json."""

    def __init__(
        self,
        directory: Path,
        recipe: R,
        data_dir: str | None,
        device: torch.device | str,
        max_minutes: float | None,
        probe: Callable[[T], dict[str, float]] | None = None,
    ) -> None:
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes must be positive, got {max_minutes}")
        self.directory = directory
        self.recipe = recipe
        self.max_minutes = max_minutes
        self.trainer = self._prepare(data_dir, device)
        self.minutes = 0.0
        self._probe = probe
        self._rows: list[dict[str, float]] = []
        # Of the iterations since the last evaluation; summed on the device, which nothing waits for.
        self._sum = torch.zeros((), device=self.trainer.device)

    @abstractmethod
    def _prepare(self, data_dir: str | None, device: torch.device | str) -> T:
        """Makes the scenes and what is trained on them."""

    @property
    @abstractmethod
    def objective(self) -> str:
        """Column of what is trained for."""

    @property
    @abstractmethod
    def _module(self) -> nn.Module:
        """What is trained."""

    @property
    @abstractmethod
    def _description(self) -> str:
        """What to name should training diverge."""

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """Columns of metrics, on held-out scenes."""

    @abstractmethod
    def _evaluate(self, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """The final figures, on held-out scenes that training never looked at."""

    @abstractmethod
    def _save_weights(self) -> None:
        """Writes the file that others load."""

    @abstractmethod
    def _picture(self) -> None:
        """Draws what there is to see at this stage."""

    @classmethod
    def start(
        cls,
        directory: Path,
        recipe: R,
        *,
        data_dir: str | None = None,
        device: torch.device | str = "cpu",
        max_minutes: float | None = None,
        probe: Callable[[T], dict[str, float]] | None = None,
    ) -> Self:
        """Makes a run directory, with untrained weights in it.

        Raises:
            ValueError: The budget is not positive, or the directory is the working directory.
            FileExistsError: The directory holds something already.
            OSError: It cannot be written.
        """
        refuse_occupied(directory)
        run = cls(directory, recipe, data_dir, device, max_minutes, probe)
        with nascent(directory) as run.directory:
            write_text_atomically(run.directory / CONFIG_FILE, json.dumps(asdict(recipe), indent=2) + "\n")
            run.save()
        run.directory = directory
        return run

    @classmethod
    def resume(
        cls,
        directory: Path,
        *,
        data_dir: str | None = None,
        device: torch.device | str | None = None,
        max_minutes: float | None = None,
        max_steps: int | None = None,
        probe: Callable[[T], dict[str, float]] | None = None,
    ) -> Self:
        """Continues a run from its last checkpoint.

        Args:
            directory: The run directory.
            data_dir: Folder of the data files, for scenes that need some.
            device: One of the type that it was trained on; by default such a one.
            max_minutes: Budget of the whole run; by default the one it has.
            max_steps: Iterations of the whole run, to extend it; by default those of its recipe.
            probe: Gives further columns of metrics.

        Raises:
            FileNotFoundError: The directory holds no run.
            ValueError: Its files are damaged, or it was trained on another type of device.
        """
        with refusing_damage(directory):
            recipe, state = read_checkpoint(directory, cls.recipe_class)
            trained_on, budget = state["device"], state["max_minutes"]
        device = torch.device(trained_on if device is None else device)
        if device.type != trained_on or (trained_on == "cuda" and not torch.cuda.is_available()):
            raise ValueError(
                f"the run in {directory} was trained on {trained_on}, and its noise goes on only there: resume it with "
                f"--device {trained_on}, where there is one (its weights can be used anywhere)"
            )
        done = state["trainer"]["iteration"]
        if max_steps is not None and max_steps < done:
            raise ValueError(
                f"max_steps must be at least the {done} iterations of the run in {directory}, got {max_steps}"
            )
        recipe = recipe if max_steps is None else replace(recipe, max_steps=max_steps)
        run = cls(directory, recipe, data_dir, device, budget if max_minutes is None else max_minutes, probe)
        with refusing_damage(directory):
            run.trainer.load_state_dict(state["trainer"])
            run.minutes, run._rows = state["minutes"], state["rows"]
            run._sum = state[f"{run.objective}_sum"].to(device)
        if max_steps is not None:
            write_text_atomically(directory / CONFIG_FILE, json.dumps(asdict(recipe), indent=2) + "\n")
        return run

    def train(
        self,
        *,
        stop_at: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        """Trains until the recipe's iterations or the minutes are used up, whichever comes first.

        Args:
            stop_at: Stops at this iteration, as an interruption would.
            interrupted: Whether to stop, asked between iterations.
            progress: Called with the latest row of metrics after every iteration.
        """
        trainer, begun, saved = self.trainer, time.monotonic() - 60 * self.minutes, time.monotonic()
        max_steps, evaluate_every = self.recipe.max_steps, self.recipe.evaluate_every
        last = min(max_steps, stop_at or max_steps)
        budget = 60 * self.max_minutes if self.max_minutes else float("inf")
        with SummaryWriter(self.directory / "tensorboard", purge_step=trainer.iteration) as tensorboard:
            if trainer.iteration == 0:
                self._picture()
            while trainer.iteration < last and (elapsed := time.monotonic() - begun) < budget and not interrupted():
                self._sum += trainer.step(max(trainer.iteration / max_steps, elapsed / budget))
                if trainer.iteration % evaluate_every == 0:
                    self.minutes = (time.monotonic() - begun) / 60
                    begun += self._log(self._sum.item() / evaluate_every, tensorboard)
                    self._sum.zero_()
                    if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                        self.save()
                        saved = time.monotonic()
                if progress is not None:
                    progress(self._rows[-1] if self._rows else {})
            self.minutes = (time.monotonic() - begun) / 60
            self.save()

    def save(self) -> None:
        """Saves the weights and the state to resume from.

        Raises:
            FloatingPointError: Training has diverged; the last checkpoint stays.
            OSError: They cannot be written; the last checkpoint stays.
        """
        self._check_finite()
        state = {
            "trainer": self.trainer.state_dict(),
            "device": self.trainer.device.type,
            "max_minutes": self.max_minutes,
            "minutes": self.minutes,
            "rows": self._rows,
            f"{self.objective}_sum": self._sum,
        }
        write_atomically(self.directory / RESUME_FILE, lambda path: torch.save(state, path))
        self._save_weights()

    def finished(self) -> dict[str, float] | None:
        """The figures of evaluation.json, if they are those of the trained run."""
        path = self.directory / EVALUATION_FILE
        ended = self.trainer.iteration >= self.recipe.max_steps or self.minutes >= (self.max_minutes or float("inf"))
        if not ended or not path.is_file():
            return None
        metrics = json.loads(path.read_text())
        metrics = {name: float("nan") if value is None else value for name, value in metrics.items()}
        return metrics if metrics.get("iterations") == self.trainer.iteration else None

    def finish(self, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """Draws the last picture, and measures what was trained on scenes that training never looked at.

        Returns:
            The figures, which are also in evaluation.json, with the run's iterations and minutes.
        """
        self._picture()
        metrics = self._evaluate(progress) | {"iterations": self.trainer.iteration, "minutes": self.minutes}
        # JSON has no NaN, which an IoU is where no count is right.
        defined = {name: None if value != value else value for name, value in metrics.items()}
        write_text_atomically(self.directory / EVALUATION_FILE, json.dumps(defined, indent=2) + "\n")
        return metrics

    def _objectives(self, mean: float) -> dict[str, float]:
        """Columns of what was trained for since the last row."""
        return {self.objective: mean}

    def _check_finite(self) -> None:
        if not (self._sum.isfinite() and all(part.isfinite().all() for part in self._module.parameters())):
            raise FloatingPointError(
                f"the {self.objective.replace('elbo', 'ELBO')} or a weight is not finite at iteration "
                f"{self.trainer.iteration} with {self._description}: training diverged; lower the learning rate. The "
                f"last checkpoint in {self.directory} is good"
            )

    def _log(self, objective: float, tensorboard: SummaryWriter) -> float:
        """Evaluates on held-out scenes and writes a row of metrics; returns the seconds that the probe took."""
        self._check_finite()
        row = {
            "iteration": self.trainer.iteration,
            "minutes": round(self.minutes, 3),
            **self._objectives(objective),
            **self._measure(),
            "learning_rate": self.trainer.optimizer.param_groups[0]["lr"],
        }
        begun = time.monotonic()
        if self._probe is not None:
            # Plain numbers: nothing else can be read back from a checkpoint.
            row |= {name: float(value) for name, value in self._probe(self.trainer).items()}
        probing = time.monotonic() - begun
        self._rows.append(row)
        for name in list(row)[2:]:
            tensorboard.add_scalar(name, row[name], self.trainer.iteration)
        write_atomically(self.directory / METRICS_FILE, lambda path: write_rows(self._rows, path))
        # At the 1st, 2nd, 4th, 8th, ... evaluation.
        if (self.trainer.iteration // self.recipe.evaluate_every).bit_count() == 1:
            self._picture()
        return probing
