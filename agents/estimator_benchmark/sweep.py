"""A sweep: every estimator with every seed, each cell a run of its own.

    OUTPUT/sweep.json             what all cells share, and which there are (`agents/estimator_benchmark/record.py`)
    OUTPUT/ESTIMATOR-SEED/        the cells (`agents/jobs/job.py`)
    OUTPUT/jobs/                  what the workers that train them print

Finished cells are skipped and half-finished ones resumed, so that a killed sweep goes on with the same command. The
grid may grow; other settings in the same directory are refused, so that all its cells can be compared.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from ..jobs.cluster import Cluster
from ..jobs.job import FAILED, TO_BE_TRAINED, Job
from ..jobs.machine import describe_machine, fault_of_machine
from ..jobs.schedule import train_on
from ..training.recipes import Recipe
from ..training.run import Probe
from ..training.serialisation import to_json
from ..training.trainer import Trainer
from .record import Record, keep_record
from .specs import absolute, fingerprint, load_estimator

_LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Sweep:
    """What is compared."""

    recipe: Recipe
    """What all cells share; its estimator and seed are the cells' own."""
    estimators: tuple[str, ...]
    """Specifications: ``name``, or ``name=path.py:ClassName``."""
    seeds: tuple[int, ...]
    """Seeds of the recipe: each decides images, initial weights and noise."""
    max_minutes: float | None = None
    """Budget of each cell."""
    threads: int = 1
    """Torch's threads in each cell."""
    data_dir: str | None = None
    """Folder of the data files, for scenes that need some."""
    probe: Probe | None = None
    """Gives further columns of metrics."""

    def names(self) -> dict[str, str]:
        """Name -> specification of the estimators, which are from then on registered in this process.

        Raises:
            ValueError: There is none, one does not exist, or a name or a seed is given twice.
        """
        names = [spec.partition("=")[0] for spec in self.estimators]
        for kind, given in (("estimator", names), ("seed", [str(seed) for seed in self.seeds])):
            if not given:
                raise ValueError(f"there is no {kind} to train; give at least one")
            if twice := {value for value in given if given.count(value) > 1}:
                raise ValueError(f"{kind} {', '.join(sorted(twice))} is given twice; leave one out")
        return {load_estimator(spec): spec for spec in self.estimators}

    def jobs(self, directory: Path) -> list[Job]:
        """All cells in the order of training: all estimators with the first seed, then with the second, ...

        Raises:
            ValueError: An estimator does not exist, or a setting makes no sense.
        """
        names = self.names()
        for name, value in (("max_minutes", self.max_minutes), ("threads", self.threads)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        return [
            Job(
                directory=directory.resolve() / f"{name}-{seed}",
                recipe=replace(self.recipe, estimator=name, seed=seed),
                data_dir=self.data_dir,
                threads=self.threads,
                max_minutes=self.max_minutes,
                probe=self.probe,
                prepare=partial(load_estimator, absolute(spec)),
            )
            for seed in self.seeds
            for name, spec in names.items()
        ]

    def check(self) -> None:
        """Sees to it that the data are there, and that every estimator can train by this recipe.

        Raises:
            ValueError: It cannot.
            OSError: The data are not there, or the machine lacks what it takes.
        """
        few = self.recipe.make_scene(self.data_dir).dataset("train", self.recipe.batch_size, 0)
        for name in self.names():
            try:
                Trainer(replace(self.recipe, estimator=name), few)
            except ValueError:
                raise
            except Exception as error:
                if fault := fault_of_machine(error):
                    raise fault from error
                raise ValueError(f"estimator {name!r} cannot be made ({error!r}); correct it") from error

    def record(self, jobs: list[Job]) -> Record:
        """What the directory is about."""
        recipe = {name: value for name, value in to_json(self.recipe).items() if name not in ("estimator", "seed")}
        estimators = {
            name: {"spec": absolute(spec), "fingerprint": fingerprint(spec)} for name, spec in self.names().items()
        }
        names = [job.name for job in jobs]
        return Record(recipe, self.max_minutes, self.threads, estimators, names, describe_machine())


def run_sweep(
    sweep: Sweep,
    directory: Path,
    cluster: Cluster,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
    progress: Callable[[Job], object] = lambda job: None,
) -> list[Job]:
    """Trains all cells that are not finished; those that fail are left, and the others go on.

    Args:
        sweep: What is compared.
        directory: Folder of the sweep, new or with a part of the same sweep.
        cluster: Where to train.
        workers: Cells at a time; by default all.
        retry_failed: Begins failed cells afresh.
        interrupted: Whether to save and stop.
        progress: Called with each cell that has ended, be it finished, failed, or lost with its worker.

    Returns:
        All cells; `Job.status` says what became of them.

    Raises:
        ValueError: Settings make no sense or differ from those in the directory, or the sweep is being run already.
        OSError: The directory cannot be written, or the machine cannot train a cell, which counts as unfinished.
    """
    jobs = sweep.jobs(directory)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    sweep.check()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(directory / _LOCK_FILE).acquire(blocking=False)
    except Timeout as error:
        raise ValueError(
            f"a sweep is being run in {directory} by another process; wait for its end, stop it, or choose another "
            "--output-dir"
        ) from error
    with lock:
        again = [job for job in jobs if retry_failed and job.status in FAILED]
        keep_record(sweep.record(jobs), directory, afresh={job.name for job in again})
        for job in again:
            shutil.rmtree(job.directory)
        missing = [job for job in jobs if job.status in TO_BE_TRAINED]
        for job in jobs:
            if job not in missing:
                progress(job)
        with cluster:
            train_on(cluster, missing, workers or len(jobs), interrupted=interrupted, ended=progress)
    return jobs


def summary(jobs: Sequence[Job]) -> str:
    """A line for each estimator: what became of its seeds, with the median accuracy of those that finished."""
    ends = {"waiting": "lost", "unfinished": "lost"}
    runs = pd.DataFrame(
        {
            "estimator": job.kind,
            "status": ends.get(job.status, job.status),
            "accuracy": job.evaluation().get("count_accuracy", math.nan),
        }
        for job in jobs
    )
    counts = pd.crosstab(runs.estimator, runs.status)
    counts = counts.reindex(runs.estimator.unique(), columns=["finished", "diverged", "crashed", "lost"], fill_value=0)
    return counts.assign(accuracy=runs.groupby("estimator").accuracy.median()).round(3).to_string(na_rep="-")
