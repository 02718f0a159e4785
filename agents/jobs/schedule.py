"""Trains the runs that are missing, one after the other or in processes of one thread each."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..estimator_benchmark.cell import stop_request
from .cluster import Cluster, LocalCluster
from .job import Job

Progress = Callable[[float, str], object]
"""Called with the number of runs that are done, in parts of one, and what goes on."""

_LOG = logging.getLogger(__name__)


def train_all(
    jobs: Sequence[Job],
    directory: Path,
    *,
    workers: int = 1,
    interrupted: Callable[[], bool] = lambda: False,
    progress: Progress = lambda done, what: None,
) -> None:
    """Trains all jobs that are not finished; those that fail are left, and the others go on.

    Args:
        jobs: The jobs.
        directory: That holds their runs.
        workers: Runs at a time; more than one are processes of their own, with one thread each.
        interrupted: Whether to save and stop.
        progress: What to tell people.

    Raises:
        ValueError: A directory holds a run with other settings; nothing is trained then.
        ChildProcessError: A training failed; the others are finished.
        OSError: The runs cannot be written.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    for job in jobs:
        job.check()
    missing = [job for job in jobs if not job.finished]
    done = len(jobs) - len(missing)
    progress(done, "")
    directory.mkdir(parents=True, exist_ok=True)
    if workers == 1 or len(missing) <= 1:
        _train_here(missing, done, interrupted, progress)
    else:
        cluster = LocalCluster(directory)
        try:
            _train_there(missing, done, cluster, workers, interrupted, progress)
        finally:
            cluster.close()
    if not interrupted() and (failed := [job for job in jobs if not job.finished]):
        reasons = "; ".join(f"{job.name}: {job.failure or f'lost with its worker, see {job.notes}'}" for job in failed)
        raise ChildProcessError(f"{len(failed)} of {len(jobs)} trainings failed: {reasons}. The others are finished")


def _train_here(jobs: Sequence[Job], done: int, interrupted: Callable[[], bool], progress: Progress) -> None:
    for number, job in enumerate(jobs, done):
        if interrupted():
            return

        def show(iteration: int, job: Job = job, number: int = number) -> None:
            progress(number + iteration / job.recipe.max_steps, f"{job.name} {iteration}/{job.recipe.max_steps}")

        try:
            job.train(interrupted, show)
        except OSError:
            raise
        except (ValueError, RuntimeError, ArithmeticError) as error:
            _LOG.error("%s failed: %s", job.name, error)
            job.note_failure(error)
        progress(number + 1, job.name)


def _train_there(
    jobs: Sequence[Job],
    done: int,
    cluster: Cluster,
    workers: int,
    interrupted: Callable[[], bool],
    progress: Progress,
) -> None:
    waiting, running = deque(jobs), set[str]()
    try:
        while (waiting or running) and not interrupted():
            while waiting and len(running) < workers:
                job = waiting.popleft()
                running.add(job.name)
                cluster.submit(job.name, train_job, job, cluster.coordinator)
            time.sleep(cluster.poll_seconds)
            left = cluster.running()
            done += len(running - left)
            running &= left
            progress(done, ", ".join(sorted(running)))
    finally:
        cluster.stop()
        while cluster.running():
            time.sleep(cluster.poll_seconds)


def train_job(job: Job, coordinator: Path | None) -> None:
    """What a worker does: one job, until it is finished or whoever started it wants no more."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with stop_request(coordinator) as stop:
        try:
            job.train(lambda: stop.made)
        except Exception as error:
            job.note_failure(error)
            raise
