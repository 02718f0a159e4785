"""One cell of a sweep, an estimator and a seed: an ordinary run, in a process of its own.

    OUTPUT/ESTIMATOR-SEED/        the run, and beside its files
        machine.json              what it was last trained with
        failed.json               instead of evaluation.json: why there will be none

A worker that is asked to stop, by SIGTERM or by the end of whoever started it, saves the run after the iteration.
"""

import contextlib
import json
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from ..jobs.machine import describe_machine
from ..training.directory import EVALUATION_FILE, RESUME_FILE
from ..training.files import write_text_atomically
from ..training.recipes import Recipe
from ..training.run import Probe, TrainingRun
from .specs import load_estimator

FAILED_FILE, MACHINE_FILE = "failed.json", "machine.json"
JOBS_FOLDER = "jobs"
"""Beside the cells: locks, and what the jobs that train them print."""
_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_STOP = 1.0, 60.0
_SECONDS_FOR_THE_OTHER = 120.0

Status = Literal["waiting", "unfinished", "finished", "diverged", "crashed"]
TO_BE_TRAINED: tuple[Status, ...] = ("waiting", "unfinished")
FAILED: tuple[Status, ...] = ("diverged", "crashed")


@dataclass(frozen=True)
class Cell:
    """What a worker has to know."""

    directory: Path
    """The run directory, in the sweep's."""
    recipe: Recipe
    """What to compute."""
    spec: str
    """The estimator's specification; the recipe has its name."""
    max_minutes: float | None = None
    """Budget of the run."""
    threads: int = 1
    """Of torch."""
    data_dir: str | None = None
    """Folder of the data files, for scenes that need some."""

    @property
    def name(self) -> str:
        """``ESTIMATOR-SEED``."""
        return self.directory.name

    @property
    def jobs(self) -> Path:
        """Folder of its lock and its jobs' output."""
        return self.directory.parent / JOBS_FOLDER / self.name

    def status(self) -> Status:
        """How far it has come."""
        if (self.directory / EVALUATION_FILE).exists():
            return "finished"
        if (self.directory / FAILED_FILE).exists():
            return "diverged" if self.failure()["diverged"] else "crashed"
        return "unfinished" if self.directory.exists() else "waiting"

    def failure(self) -> dict[str, str | bool]:
        """Why it failed: ``error``, ``diverged``, ``traceback``."""
        return json.loads((self.directory / FAILED_FILE).read_text())

    def machine(self) -> dict[str, str | int | None] | None:
        """What it was last trained with; None where training has not begun."""
        path = self.directory / MACHINE_FILE
        return json.loads(path.read_text()) if path.exists() else None


def train_cell(cell: Cell, probe: Probe | None = None, coordinator: Path | None = None) -> None:
    """Trains a cell to its end, from where it stands; what goes wrong in it is recorded as its failure.

    Args:
        cell: The cell; nothing is done where it is finished.
        probe: Gives further columns of metrics.
        coordinator: A lock; the cell is saved and left when nobody holds it any more.

    Raises:
        OSError: The disk is full, or another process trains this cell: no fault of the estimator, and not recorded.
        ValueError: This machine does not have the estimator.
    """
    torch.set_num_threads(cell.threads)
    torch.set_flush_denormal(True)
    load_estimator(cell.spec)
    cell.jobs.mkdir(parents=True, exist_ok=True)
    # A worker whose coordinator was killed takes a moment to leave.
    with stop_request(coordinator) as stop, FileLock(cell.jobs / "lock", timeout=_SECONDS_FOR_THE_OTHER):
        if cell.status() not in TO_BE_TRAINED:
            return
        try:
            run = _start_or_resume(cell, probe)
            write_text_atomically(cell.directory / MACHINE_FILE, json.dumps(describe_machine(), indent=2) + "\n")
            run.train(interrupted=lambda: stop.made)
            if not stop.made:
                run.finish()
        except (OSError, MemoryError):
            raise
        except Exception as error:
            failure = {
                "error": f"{type(error).__name__}: {error}",
                "diverged": isinstance(error, FloatingPointError),
                "traceback": traceback.format_exc(),
            }
            write_text_atomically(cell.directory / FAILED_FILE, json.dumps(failure, indent=2) + "\n")


def _start_or_resume(cell: Cell, probe: Probe | None) -> TrainingRun[Any]:
    if (cell.directory / RESUME_FILE).exists():
        return TrainingRun.resume(cell.directory, data_dir=cell.data_dir, max_minutes=cell.max_minutes, probe=probe)
    return TrainingRun.start(
        cell.directory, cell.recipe, data_dir=cell.data_dir, max_minutes=cell.max_minutes, probe=probe
    )


class StopRequest:
    """Whether this process is to stop."""

    made = False


@contextlib.contextmanager
def stop_request(coordinator: Path | None) -> Iterator[StopRequest]:
    """Notices that this process is to stop; ends it where that is not done in a minute.

    Args:
        coordinator: A lock that is held for as long as the process is wanted.

    Yields:
        The request; it is made by SIGTERM, by the signal of Slurm's time limit, and when the lock is free or the
        parent is gone.
    """
    request, left, parent = StopRequest(), threading.Event(), os.getppid()

    def make(*_: object) -> None:
        request.made = True

    def watch() -> None:
        while not request.made:
            if left.wait(_SECONDS_BETWEEN_LOOKS):
                return
            if coordinator is not None and (os.getppid() != parent or not is_held(coordinator)):
                make()
        if not left.wait(_SECONDS_TO_STOP):
            # It hangs; what was saved last is whole.
            os._exit(1)

    before = {number: signal.signal(number, make) for number in (signal.SIGTERM, signal.SIGUSR2)}
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield request
    finally:
        left.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock; one that nobody holds is removed."""
    try:
        with FileLock(lock, blocking=False):
            lock.unlink(missing_ok=True)
    except Timeout:
        return True
    return False
