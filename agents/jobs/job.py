"""Jobs: one run in its directory each, trained, loaded and identified.

RUNS/SCALE/NAME-SEED/         the run
RUNS/SCALE/NAME-SEED/machine.json   what it was last trained with
RUNS/SCALE/jobs/NAME-SEED/    its lock, what its worker printed, and failed.json if it failed
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from ..comparisons import ComparisonRecipe, load_comparison
from ..comparisons.training import MODEL_FILE
from ..estimator_benchmark.cell import FAILED_FILE, JOBS_FOLDER, MACHINE_FILE
from ..inference.agent import Agent
from ..training.checkpoints import AGENT_FILE, load_agent
from ..training.directory import CONFIG_FILE, EVALUATION_FILE, METRICS_FILE
from ..training.files import read_rows, write_text_atomically
from ..training.recipes import Recipe
from ..training.run import TrainingRun
from ..training.serialisation import from_json, to_json
from .machine import describe_machine

AnyRecipe = Recipe | ComparisonRecipe

_SECONDS_BETWEEN_TRIES = 0.5


@dataclass(frozen=True)
class Job:
    """A run that a figure needs."""

    directory: Path
    """``RUNS/SCALE/NAME-SEED``."""
    recipe: AnyRecipe
    """What it computes."""
    data_dir: str | None = None
    """Folder of the data files, for scenes that need some."""
    device: str = "cpu"
    """Where a new run is trained; one that was begun goes on where it was."""

    @property
    def name(self) -> str:
        """``NAME-SEED``."""
        return self.directory.name

    @property
    def kind(self) -> str:
        """The name without the seed."""
        return self.name.rpartition("-")[0]

    @property
    def notes(self) -> Path:
        """Folder of its lock, its worker's output and its failure."""
        return self.directory.parent / JOBS_FOLDER / self.name

    @property
    def finished(self) -> bool:
        """Whether it is trained and measured."""
        return (self.directory / EVALUATION_FILE).exists()

    @property
    def failure(self) -> str | None:
        """Why its last training failed."""
        path = self.notes / FAILED_FILE
        return json.loads(path.read_text())["error"] if path.exists() else None

    def check(self) -> None:
        """Refuses a directory that holds something else.

        Raises:
            ValueError: It holds a run with other settings, or none.
        """
        path = self.directory / CONFIG_FILE
        if not self.directory.exists():
            return
        remedy = f"delete {self.directory} to train it again, or choose another --runs-dir"
        try:
            found = _plain(from_json(type(self.recipe), json.loads(path.read_text())))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} does not fit ({error}); {remedy}") from error
        wanted = _plain(self.recipe)
        if changed := [name for name in wanted if found[name] != wanted[name]]:
            text = "; ".join(f"{name} is {found[name]}, wanted {wanted[name]}" for name in changed)
            raise ValueError(f"the run in {self.directory} has other settings: {text}; {remedy}")

    def load(self, device: torch.device | str | None = None) -> Any:
        """What was trained, an agent or a comparison; by default on the job's device."""
        load = load_agent if isinstance(self.recipe, Recipe) else load_comparison
        return load(self.directory, self.device if device is None else device)

    def agent(self) -> Agent:
        """The agent that was trained."""
        return load_agent(self.directory, self.device)

    def evaluation(self) -> dict[str, float | None]:
        """The run's own figures, with its minutes and iterations."""
        return json.loads((self.directory / EVALUATION_FILE).read_text())

    def rows(self) -> list[dict[str, float]]:
        """The course of training."""
        return read_rows(self.directory / METRICS_FILE)

    def machine(self) -> dict[str, Any]:
        """What it was last trained with."""
        path = self.directory / MACHINE_FILE
        return json.loads(path.read_text()) if path.exists() else {}

    def fingerprint(self) -> str:
        """Of its weights: what was measured of others is not what it is."""
        file = AGENT_FILE if isinstance(self.recipe, Recipe) else MODEL_FILE
        digest = hashlib.sha256()
        # Not of the file, whose metadata are in no order.
        for name, tensor in sorted(load_file(self.directory / file).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(
        self,
        interrupted: Callable[[], bool] = lambda: False,
        progress: Callable[[int], object] = lambda iteration: None,
    ) -> None:
        """Trains the run to its end, from where it stands.

        Args:
            interrupted: Whether to stop after the iteration; the run is saved.
            progress: Called with the iteration after each.

        Raises:
            ValueError: The directory holds something else.
            FloatingPointError: Training diverged.
            OSError: It cannot be written.
        """
        self.notes.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.notes / "lock")
        while not lock.is_locked:
            try:
                # Figures share runs: another command may be training this one.
                lock.acquire(timeout=_SECONDS_BETWEEN_TRIES)
            except Timeout:
                if interrupted():
                    return
        try:
            self.check()
            (self.notes / FAILED_FILE).unlink(missing_ok=True)
            if not self.finished:
                self._train(interrupted, progress)
        finally:
            lock.release()

    def _train(self, interrupted: Callable[[], bool], progress: Callable[[int], object]) -> None:
        if self.directory.exists():
            run = TrainingRun.resume(self.directory, data_dir=self.data_dir)
        else:
            run = TrainingRun.start(self.directory, self.recipe, data_dir=self.data_dir, device=self.device)
        machine = describe_machine() | {"device": _device_name(run.trainer.device), "threads": torch.get_num_threads()}
        write_text_atomically(self.directory / MACHINE_FILE, json.dumps(machine, indent=2) + "\n")
        run.train(interrupted=interrupted, progress=lambda row: progress(run.trainer.iteration))
        if run.trainer.iteration >= run.recipe.max_steps:
            run.finish()

    def note_failure(self, error: Exception) -> None:
        """Keeps why training failed for whoever asked for it."""
        failure = {"error": f"{type(error).__name__}: {error}"}
        write_text_atomically(self.notes / FAILED_FILE, json.dumps(failure) + "\n")


def _plain(recipe: AnyRecipe) -> dict[str, Any]:
    """Settings as JSON has them: tuples are lists."""
    return to_json(recipe)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
