"""`TrainingRun`: any training in its directory, with a budget, rows of metrics, and a state to resume from.

    run = TrainingRun.start("runs/digits", RECIPES.find("digits"))     # or TrainingRun.resume("runs/digits")
    run.train()
    run.finish()

A directory appears whole, with loadable weights in it, and every file in it is replaced atomically, so that a run
killed at any moment can be used and resumed, to the same numbers. The recipe says what is trained: AIR agents, the
models they are compared with, or Stable-Baselines3's algorithms (`air_agents.training.settings.Trains`).
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, Self, TypeVar

import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from air_env.scenes import SceneDataset

from ..evaluation.pictures import curve
from .directory import (
    CONFIG_FILE,
    EVALUATION_FILE,
    METRICS_FILE,
    PICTURES_FOLDER,
    RESUME_FILE,
    nascent,
    occupied,
    read_checkpoint,
    refuse_occupied,
    refuse_unlike,
    refusing_damage,
    stamp,
)
from .files import read_json, write_atomically, write_json_atomically, write_results, write_rows
from .serialisation import to_json
from .settings import State, TrainingSettings, Trains

Progress = Callable[[dict[str, float]], object]
Probe = Callable[..., dict[str, float]]
"""Looks at a trainer at every evaluation, and gives further columns of metrics."""

_LOG = logging.getLogger(__name__)
R = TypeVar("R", bound=TrainingSettings)


class TrainingRun(Generic[R]):
    """A training run in its directory; use `start` or `resume`.

    Args:
        directory: The run directory, which exists.
        recipe: What to compute.
        data_dir: Folder of the data files, for scenes that need some.
        device: Where to compute.
        max_minutes: Budget of the whole run; where it is the tighter one, the learning rate follows it.
        probe: Gives further columns of metrics; its time is not counted as training.

    Attributes:
        trainer: What is trained.
        validation: The scenes that rows of metrics and pictures are made of.
        minutes: Minutes of training so far.
        rows: The metrics so far.
        save_every: Seconds between checkpoints, at least.
        threads: Torch's threads, as many as the run was begun with: other numbers of them round sums otherwise.
    """

    save_every = 30.0

    def __init__(
        self,
        directory: Path,
        recipe: R,
        data_dir: str | Path | None,
        device: torch.device | str,
        max_minutes: float | None,
        probe: Probe | None = None,
    ) -> None:
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes must be positive, got {max_minutes}")
        self.directory, self.recipe = directory, recipe
        self.max_minutes = None if max_minutes is None else float(max_minutes)
        self.scene = recipe.make_scene(data_dir)
        self.validation = self.scene.dataset("validation", recipe.num_validation, recipe.seed)
        self.trainer: Trains = recipe.make_trainer(self.scene, device)
        self.minutes = 0.0
        self.rows: list[dict[str, float]] = []
        self.threads = torch.get_num_threads()
        self._probe = probe
        self._seen = (0, 0)
        # Of the iterations since the last evaluation; summed on the device, which nothing waits for.
        self._sum = torch.zeros((), device=self.trainer.device)

    @classmethod
    def start(
        cls,
        directory: str | Path,
        recipe: R,
        *,
        data_dir: str | Path | None = None,
        device: torch.device | str = "cpu",
        max_minutes: float | None = None,
        probe: Probe | None = None,
    ) -> Self:
        """Makes a run directory, with untrained weights in it.

        Raises:
            ValueError: The budget is not positive, or the directory is the working directory.
            FileExistsError: The directory holds something already.
            OSError: It cannot be written.
        """
        directory = Path(directory)
        refuse_occupied(directory)
        run = cls(directory, recipe.settled(data_dir), data_dir, device, max_minutes, probe)
        with nascent(directory) as run.directory:
            write_json_atomically(run.directory / CONFIG_FILE, to_json(run.recipe))
            run.save()
        run.directory = directory
        return run

    @classmethod
    def resume(
        cls,
        directory: str | Path,
        *,
        data_dir: str | Path | None = None,
        device: torch.device | str | None = None,
        max_minutes: float | None = None,
        max_steps: int | None = None,
        probe: Probe | None = None,
    ) -> Self:
        """Continues a run, of whatever kind, from its last checkpoint.

        Args:
            directory: The run directory.
            data_dir: Folder of the data files, for scenes that need some.
            device: One of the type that it was trained on; by default such a one.
            max_minutes: Budget of the whole run; by default the one it has.
            max_steps: Iterations of the whole run, which config.json then has; by default those it has.
            probe: Gives further columns of metrics.

        Raises:
            FileNotFoundError: The directory holds no run.
            ValueError: Its files are damaged or not of one run, of another type of device, or past ``max_steps``.
            BlockingIOError: It is to be extended, and another process trains it.
        """
        directory = Path(directory)
        recipe, state, seen = read_checkpoint(directory)
        trained_on, budget = state["device"], state["max_minutes"]
        place = torch.device(trained_on if device is None else device)
        if place.type != trained_on or (trained_on == "cuda" and not torch.cuda.is_available()):
            raise ValueError(
                f"the run in {directory} was trained on {trained_on}, and its noise goes on only there: resume it with "
                f"--device {trained_on}, where there is one (its weights can be used anywhere)"
            )
        extended = recipe if max_steps is None else replace(recipe, max_steps=max_steps)
        run = cls(directory, extended, data_dir, place, budget if max_minutes is None else max_minutes, probe)  # type: ignore[arg-type]
        with refusing_damage(directory, RESUME_FILE):
            refuse_unlike(state, run.state_dict() | {"max_minutes": None})
            run.trainer.load_state_dict(state["trainer"])
            run.minutes, run.rows = state["minutes"], [dict(row) for row in state["rows"]]
            run._sum = state[f"{run.trainer.objective}_sum"].to(place)
            run.threads = state.get("threads", run.threads)
        run._seen = seen
        if run.threads != (here := torch.get_num_threads()):
            _LOG.warning("%s goes on with the %d threads it was begun with, not %d", directory, run.threads, here)
        if extended != recipe:
            if extended.max_steps < run.trainer.iteration:
                raise ValueError(
                    f"max_steps {max_steps} is less than the {run.trainer.iteration} iterations that the run in "
                    f"{directory} has done; give more"
                )
            with occupied(directory, seen, run.threads):
                run.save(recipe)
                write_json_atomically(directory / CONFIG_FILE, to_json(extended))
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

        Raises:
            BlockingIOError: Another process trains it, or has done so since it was read.
        """
        trainer, begun, saved = self.trainer, time.monotonic() - 60 * self.minutes, time.monotonic()
        max_steps, evaluate_every = self.recipe.max_steps, self.recipe.evaluate_every
        last = min(max_steps, stop_at or max_steps)
        budget = 60 * self.max_minutes if self.max_minutes else math.inf
        held = occupied(self.directory, self._seen, self.threads)
        with held, SummaryWriter(self.directory / "tensorboard", purge_step=trainer.iteration) as tensorboard:
            if trainer.iteration == 0:
                self._picture()
            while trainer.iteration < last and (elapsed := time.monotonic() - begun) < budget and not interrupted():
                rows_due = trainer.iteration // evaluate_every
                self._sum += trainer.step(max(trainer.iteration / max_steps, elapsed / budget))
                if trainer.iteration // evaluate_every > rows_due:
                    self.minutes = (time.monotonic() - begun) / 60
                    begun += self._log(self._sum.item() / evaluate_every, tensorboard)
                    self._sum.zero_()
                    if time.monotonic() - saved > self.save_every:
                        self.save()
                        saved = time.monotonic()
                if progress is not None:
                    progress(self.rows[-1] if self.rows else {})
            self.minutes = (time.monotonic() - begun) / 60
            self.save()

    def state_dict(self) -> State:
        """What resume.pt holds."""
        return {
            "trainer": self.trainer.state_dict(),
            "device": self.trainer.device.type,
            "threads": self.threads,
            "max_minutes": self.max_minutes,
            "minutes": self.minutes,
            "rows": self.rows,
            f"{self.trainer.objective}_sum": self._sum,
        }

    def save(self, *former: TrainingSettings) -> None:
        """Saves the weights and the state to resume from; config.json may have a former recipe beside the run's own.

        Raises:
            FloatingPointError: Training has diverged; the last checkpoint stays.
            OSError: They cannot be written; the last checkpoint stays.
        """
        self._check_finite()
        state = self.state_dict() | {"recipes": [to_json(recipe) for recipe in (*former, self.recipe)]}
        write_atomically(self.directory / RESUME_FILE, lambda path: torch.save(state, path))
        self._seen = stamp(self.directory)
        self.trainer.save(self.directory)

    def finished(self) -> dict[str, float] | None:
        """The metrics of evaluation.json, if they are those of the trained run."""
        path = self.directory / EVALUATION_FILE
        if self.trainer.iteration < self.recipe.max_steps or not path.is_file():
            return None
        metrics = {name: math.nan if value is None else value for name, value in read_json(path).items()}
        return metrics if metrics.get("iterations") == self.trainer.iteration else None

    def finish(self, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """Measures what was trained on test scenes, which nothing has looked at before, and draws the last pictures.

        Args:
            progress: Called with the number of scenes of every batch; there are ``recipe.num_final`` in all.

        Returns:
            The metrics, which are also in evaluation.json, with the run's iterations and minutes.
        """
        with occupied(self.directory, self._seen, self.threads):
            metrics = self.trainer.evaluate(self.final_scenes(), progress)
            metrics |= {"iterations": self.trainer.iteration, "minutes": self.minutes}
            self._picture()
            for name in {"count_accuracy", "explained"} & metrics.keys():
                file = self.directory / PICTURES_FOLDER / f"{name}.png"
                write_atomically(file, lambda path, name=name: curve(self.rows, name, path))
            # JSON has no NaN, which an IoU is where no count is right.
            defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}
            write_results(self.directory / EVALUATION_FILE, defined)
        return metrics

    def final_scenes(self) -> SceneDataset:
        """The test scenes of `finish`; no choice may depend on them."""
        return self.scene.dataset("test", self.recipe.num_final, self.recipe.seed + 1)

    def _picture(self) -> None:
        # Empty scenes are explained, but nothing to look at.
        scenes = self.validation[self.validation.count != 0][: self.recipe.num_pictured]
        if (picture := self.trainer.picture(scenes)) is not None:
            path = self.directory / PICTURES_FOLDER / f"scenes_{self.trainer.iteration:06d}.png"
            write_atomically(path, lambda temporary: Image.fromarray(picture).save(temporary, "PNG"))

    def _check_finite(self) -> None:
        trainer = self.trainer
        if not (self._sum.isfinite() and all(part.isfinite().all() for part in trainer.network.parameters())):
            raise FloatingPointError(
                f"the {trainer.objective.replace('elbo', 'ELBO')} or a weight is not finite at iteration "
                f"{trainer.iteration} with {trainer.description}: training diverged; lower the learning rate. The "
                f"last checkpoint in {self.directory} is good"
            )

    def _log(self, objective: float, tensorboard: SummaryWriter) -> float:
        """Evaluates on validation scenes and writes a row of metrics; returns the seconds that the probe took."""
        self._check_finite()
        trainer = self.trainer
        row = {
            "iteration": trainer.iteration,
            "minutes": round(self.minutes, 3),
            **trainer.objectives(objective),
            **trainer.measure(self.validation),
            "learning_rate": trainer.learning_rate,
        }
        begun = time.monotonic()
        if self._probe is not None:
            # Plain numbers: nothing else can be read back from a checkpoint.
            row |= {name: float(value) for name, value in self._probe(trainer).items()}
        probing = time.monotonic() - begun
        self.rows.append(row)
        for name in list(row)[2:]:
            tensorboard.add_scalar(name, row[name], trainer.iteration)
        write_atomically(self.directory / METRICS_FILE, lambda path: write_rows(self.rows, path))
        # At the 1st, 2nd, 4th, 8th, ... evaluation.
        if (trainer.iteration // self.recipe.evaluate_every).bit_count() == 1:
            self._picture()
        return probing
