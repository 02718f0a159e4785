"""Jobs: one run in its directory each, trained, loaded and identified.

FOLDER/NAME-SEED/               the run, and beside its files
    machine.json                what it was last trained with
    failed.json                 in place of evaluation.json: why there is none, and whether the machine is to blame
FOLDER/jobs/NAME-SEED/          its lock, and what its workers printed
"""

import hashlib
import logging
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from ..comparisons import ComparisonRecipe, load_comparison
from ..inference.agent import Agent
from ..training.checkpoints import load_agent
from ..training.directory import CONFIG_FILE, EVALUATION_FILE, METRICS_FILE, RESUME_FILE
from ..training.files import read_json, read_rows, write_results
from ..training.recipes import Recipe
from ..training.run import Probe, TrainingRun
from ..training.serialisation import from_json, to_json
from ..training.settings import Options, TrainingSettings
from ..training.weights import read_tensors
from .machine import describe_machine, fault_of_machine

FAILED_FILE, MACHINE_FILE, JOBS_FOLDER = "failed.json", "machine.json", "jobs"

AnyRecipe = Recipe | ComparisonRecipe
Status = Literal["waiting", "unfinished", "finished", "diverged", "crashed"]
TO_BE_TRAINED: tuple[Status, ...] = ("waiting", "unfinished")
FAILED: tuple[Status, ...] = ("diverged", "crashed")

_SECONDS_BETWEEN_TRIES = 0.5
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A run that a sweep or a study needs."""

    directory: Path
    """Run directory, ``FOLDER/NAME-SEED``."""
    recipe: TrainingSettings
    """What it computes."""
    data_dir: str | None = None
    """Folder of the data files, for scenes that need some."""
    device: str = "cpu"
    """Where a new run is trained; one that was begun goes on where it was."""
    threads: int = 1
    """Torch's threads in a worker."""
    max_minutes: float | None = None
    """Budget of the run."""
    probe: Probe | None = None
    """Gives further columns of metrics."""
    prepare: Callable[[], object] | None = None
    """Called in a worker before training: registers what the recipe names."""

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
        """Folder of its lock and its workers' output."""
        return self.directory.parent / JOBS_FOLDER / self.name

    @property
    def finished(self) -> bool:
        """Whether it is trained and measured."""
        return (self.directory / EVALUATION_FILE).exists()

    @property
    def status(self) -> Status:
        """How far it has come; what the machine's faults stopped is unfinished."""
        if self.finished:
            return "finished"
        failure = _read(self.directory / FAILED_FILE)
        if failure and not failure.get("machine"):
            return "diverged" if failure.get("diverged") else "crashed"
        return "unfinished" if self.directory.exists() else "waiting"

    @property
    def failure(self) -> str | None:
        """Why its last training failed, or what the machine lacked for it."""
        return _read(self.directory / FAILED_FILE).get("error")

    def check(self) -> None:
        """Refuses a directory that holds something else.

        Raises:
            ValueError: It holds a run with other settings, or a damaged one.
        """
        if not (self.directory / RESUME_FILE).exists():
            return
        path = self.directory / CONFIG_FILE
        remedy = f"delete {self.directory} to train it again, or choose another --runs-dir (of a sweep: --output-dir)"
        try:
            found = to_json(from_json(type(self.recipe), read_json(path)))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} does not fit ({error}); {remedy}") from error
        wanted = to_json(self.recipe)
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
        """The final metrics, with the run's minutes and iterations."""
        return _read(self.directory / EVALUATION_FILE)

    def rows(self) -> list[dict[str, float]]:
        """The metrics over training."""
        return read_rows(self.directory / METRICS_FILE)

    def machine(self) -> Options:
        """What it was last trained with; empty before."""
        return _read(self.directory / MACHINE_FILE)

    def fingerprint(self) -> str:
        """A hash of its weights, by which results that were measured of others are told apart.

        Raises:
            FileNotFoundError: There are none.
            ValueError: They are damaged.
        """
        file = next(self.directory.glob("*.safetensors"), None)
        if file is None:
            raise FileNotFoundError(f"{self.directory} holds no weights; delete it to train it again")
        digest = hashlib.sha256()
        # The bytes of the file would not do: its metadata are in no order.
        for name, tensor in sorted(read_tensors(file)[1].items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(
        self,
        interrupted: Callable[[], bool] = lambda: False,
        progress: Callable[[int], object] = lambda iteration: None,
    ) -> None:
        """Trains the run to its end, from where it stands; an error in it is recorded as its failure.

        Args:
            interrupted: Whether to stop after the iteration; the run is saved.
            progress: Called with the iteration after each.

        Raises:
            ValueError: The directory holds something else.
            OSError: The machine cannot train it or write the run, which is no failure of what is trained.
        """
        self.notes.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.notes / "lock")
        while not lock.is_locked:
            try:
                # Studies share runs, and a worker whose coordinator was killed takes a moment to leave.
                lock.acquire(timeout=_SECONDS_BETWEEN_TRIES)
            except Timeout:
                if interrupted():
                    return
        try:
            self.check()
            if not self.finished:
                (self.directory / FAILED_FILE).unlink(missing_ok=True)
                self._train_recorded(interrupted, progress)
        finally:
            lock.release()

    def _train_recorded(self, interrupted: Callable[[], bool], progress: Callable[[int], object]) -> None:
        try:
            self._train(interrupted, progress)
        except Exception as error:
            _LOG.error("%s failed: %s", self.name, error)
            fault = fault_of_machine(error)
            failure = {
                "error": f"{type(error).__name__}: {error}",
                "diverged": isinstance(error, FloatingPointError),
                "machine": fault is not None,
                "traceback": traceback.format_exc(),
            }
            # Where the disk is full, this cannot be told in a file either.
            with nullcontext() if fault is None else suppress(OSError):
                write_results(self.directory / FAILED_FILE, failure)
            if fault is not None:
                raise fault from error

    def _train(self, interrupted: Callable[[], bool], progress: Callable[[int], object]) -> None:
        options = {"data_dir": self.data_dir, "max_minutes": self.max_minutes, "probe": self.probe}
        if (self.directory / RESUME_FILE).exists():
            run = TrainingRun.resume(self.directory, **options)
        else:
            run = TrainingRun.start(self.directory, self.recipe, device=self.device, **options)
        device = run.trainer.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        machine = {**describe_machine(), "device": name, "threads": run.threads}
        write_results(self.directory / MACHINE_FILE, machine)
        run.train(interrupted=interrupted, progress=lambda row: progress(run.trainer.iteration))
        if not interrupted():
            run.finish()


def _read(path: Path) -> Options:
    """A JSON object; empty where there is no file."""
    return read_json(path) if path.exists() else {}
