"""Schedules jobs: a number of them at a time, in this process, on this machine or on a cluster."""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from .cluster import Cluster, LocalCluster, ThisProcess
from .job import TO_BE_TRAINED, Job

Progress = Callable[[float, str], object]
"""Called with the number of runs that are done, in parts of one, and what goes on."""


def train_on(
    cluster: Cluster,
    jobs: Sequence[Job],
    workers: int,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    ended: Callable[[Job], object] = lambda job: None,
    waits: Callable[[Collection[str]], object] = lambda names: None,
) -> None:
    """Trains jobs on a cluster; those that fail are left, and the others go on.

    Args:
        cluster: Where to train.
        jobs: What is not finished.
        workers: Jobs at a time.
        interrupted: Whether to save and stop.
        ended: Called with each job that has ended, be it finished, failed, or lost with its worker.
        waits: Called again and again with the names of what is trained.

    Raises:
        ValueError: A directory holds a run with other settings, or the cluster does not take a job.
        OSError: The runs cannot be written, or the machine cannot train one: all others are saved and stopped.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    for job in jobs:
        job.check()
    running = cluster.running()
    # What an earlier coordinator left to Slurm.
    begun = {job.name: job for job in jobs if job.name in running}
    waiting = deque(job for job in jobs if job.name not in begun)
    try:
        while (waiting or begun) and not interrupted():
            while waiting and len(begun) < workers:
                job = waiting.popleft()
                # First noted, then started: what is interrupted in between is stopped, too.
                begun[job.name] = job
                cluster.submit(job)
            running = cluster.running()
            for name in [name for name in begun if name not in running]:
                job = begun.pop(name)
                ended(job)
                if job.status in TO_BE_TRAINED and (reason := job.failure or cluster.why_lost(name)):
                    raise OSError(
                        f"{name} was stopped by the machine, not by a fault of its own: {reason}; see {job.notes}. "
                        "Mend that, and give the same command again: it goes on where it was"
                    )
            if begun:
                waits(begun)
                time.sleep(cluster.poll_seconds)
    finally:
        if begun:
            cluster.stop()
        while begun and cluster.running():
            time.sleep(cluster.poll_seconds)


def train_all(
    jobs: Sequence[Job],
    directory: Path,
    *,
    workers: int = 1,
    interrupted: Callable[[], bool] = lambda: False,
    progress: Progress = lambda done, what: None,
) -> None:
    """Trains all jobs that are not finished, on this machine; those that failed before are tried again.

    Args:
        jobs: The jobs.
        directory: Folder of their run directories.
        workers: Runs at a time; more than one are processes of their own.
        interrupted: Whether to save and stop.
        progress: What to tell people.

    Raises:
        ValueError: A directory holds a run with other settings; nothing is trained then.
        ChildProcessError: A training failed; the others are finished.
        OSError: The runs cannot be written, or the machine cannot train one: all others are saved and stopped.
    """
    for job in jobs:
        job.check()
    missing = [job for job in jobs if not job.finished]
    done = len(jobs) - len(missing)
    progress(done, "")

    def show(job: Job, iteration: int) -> None:
        progress(done + iteration / job.recipe.max_steps, f"{job.name} {iteration}/{job.recipe.max_steps}")

    def ended(job: Job) -> None:
        nonlocal done
        done += 1
        progress(done, job.name)

    alone = workers == 1 or len(missing) <= 1
    with ThisProcess(directory, interrupted, show) if alone else LocalCluster(directory) as cluster:
        train_on(
            cluster,
            missing,
            workers,
            interrupted=interrupted,
            ended=ended,
            waits=lambda names: progress(done, ", ".join(names)),
        )
    if not interrupted() and (failed := [job for job in jobs if not job.finished]):
        reasons = "; ".join(f"{job.name}: {job.failure or f'lost with its worker, see {job.notes}'}" for job in failed)
        raise ChildProcessError(f"{len(failed)} of {len(jobs)} trainings failed: {reasons}. The others are finished")
