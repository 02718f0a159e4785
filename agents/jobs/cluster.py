"""Where jobs are trained: in this process, in processes of this machine, or as jobs of Slurm.

A cluster knows jobs by their names only, and nothing of what becomes of them: that is in their run directories.
"""

import getpass
import hashlib
import logging
import os
import signal
import subprocess
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from filelock import FileLock

from .job import JOBS_FOLDER, Job
from .worker import train_job

_LOG = logging.getLogger(__name__)


class Cluster(ABC):
    """Trains jobs, knows which of them still run, and asks them to stop; a context, in which it does so.

    Args:
        directory: Folder of the run directories.
    """

    poll_seconds = 0.2
    """Time between looks at what still runs."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory.resolve() / JOBS_FOLDER

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Trains a job.

        Raises:
            ValueError: The cluster does not take it.
        """

    @abstractmethod
    def running(self) -> set[str]:
        """The names of what still runs or waits for its turn."""

    @abstractmethod
    def stop(self) -> None:
        """Asks all that runs to save and end; `running` says when it has."""

    def why_lost(self, name: str) -> str | None:
        """Why a job ended that is neither finished nor failed; None where it saved and left, or that is unknown."""
        del name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 (Slurm's jobs go on)
        """Nothing more is wanted from here."""


class ThisProcess(Cluster):
    """Trains each job when it is submitted, with the threads and the signals of this process.

    Args:
        directory: Folder of the run directories.
        interrupted: Whether to save and stop.
        progress: Called with the job and the iteration after each iteration.
    """

    def __init__(
        self,
        directory: Path,
        interrupted: Callable[[], bool] = lambda: False,
        progress: Callable[[Job, int], object] = lambda job, iteration: None,
    ) -> None:
        super().__init__(directory)
        self._interrupted, self._progress = interrupted, progress

    def submit(self, job: Job) -> None:  # noqa: D102
        job.train(self._interrupted, lambda iteration: self._progress(job, iteration))

    def running(self) -> set[str]:  # noqa: D102
        return set()

    def stop(self) -> None:  # noqa: D102
        pass


class LocalCluster(Cluster):
    """Processes of this machine; they end by themselves when this one is killed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._processes: dict[str, BaseProcess] = {}
        # One for each coordinator: the next one's must not keep the workers of a killed one.
        self._lock = FileLock(self.folder / f"coordinator-{uuid.uuid4().hex}.lock")

    def submit(self, job: Job) -> None:  # noqa: D102
        arguments = (job, Path(self._lock.lock_file))
        process = get_context("spawn").Process(target=_work, args=arguments)
        with signals_kept():
            process.start()
            self._processes[job.name] = process

    def running(self) -> set[str]:  # noqa: D102
        return {name for name, process in self._processes.items() if process.is_alive()}

    def stop(self) -> None:  # noqa: D102
        for process in self._processes.values():
            process.terminate()

    def why_lost(self, name: str) -> str | None:
        """How its process ended, and the last line that it printed."""
        process = self._processes[name]
        if not process.exitcode:
            return None
        log = self.folder / name / f"{process.pid}.log"
        printed = log.read_text(errors="replace").split("\n") if log.exists() else []
        code = process.exitcode
        how = f"exit code {code}" if code > 0 else f"{signal.Signals(-code).name}, as where memory is short"
        return ": ".join([f"its process ended with {how}", *[line for line in printed if line.strip()][-1:]])

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def _work(job: Job, coordinator: Path) -> None:
    """What a local worker does; what it prints is in the job's folder."""
    job.notes.mkdir(parents=True, exist_ok=True)
    with (job.notes / f"{os.getpid()}.log").open("ab", buffering=0) as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    train_job(job, coordinator)


class SlurmCluster(Cluster):
    """Jobs of Slurm; they go on when this process is killed, and are found again by their names.

    Args:
        directory: Folder of the run directories, which all nodes see.
        partition: Where to submit to; by default Slurm's.
        minutes: Time limit of a job; shortly before it, the run is saved.
        cpus: Processors of a job.
        options: Further options of ``sbatch``, by their long names.

    Raises:
        ValueError: submitit is not installed.
    """

    poll_seconds = 5.0

    def __init__(
        self,
        directory: Path,
        *,
        partition: str | None = None,
        minutes: int = 24 * 60,
        cpus: int = 1,
        options: dict[str, str] | None = None,
    ) -> None:
        super().__init__(directory)
        try:
            import submitit
        except ImportError as error:
            raise ValueError(
                'jobs are submitted to Slurm by submitit; install the extra: pip install "air-env[cluster]"'
            ) from error
        self._make = submitit.AutoExecutor
        settings = {"timeout_min": minutes, "cpus_per_task": cpus, "nodes": 1, "tasks_per_node": 1}
        slurm = {"slurm_partition": partition, "slurm_additional_parameters": options}
        self._settings = settings | {key: value for key, value in slurm.items() if value}
        # Other folders have jobs of the same names.
        self._mark = "@" + hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        self._jobs: dict[str, str] = {}
        self._answered = False

    def submit(self, job: Job) -> None:  # noqa: D102
        try:
            executor = self._make(folder=self.folder / job.name, cluster="slurm")
            executor.update_parameters(**self._settings, name=job.name + self._mark)
            with signals_kept():
                self._jobs[job.name] = executor.submit(train_job, job).job_id
        except (RuntimeError, OSError) as error:
            raise ValueError(f"slurm does not take the job {job.name}: {error}; see --help for its options") from error

    def running(self) -> set[str]:
        """The names of the jobs in Slurm's queue, also of those that an earlier process submitted."""
        command = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%A %j"]
        try:
            # `Job.done` would ask the accounting, which not every Slurm has.
            listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        except FileNotFoundError as error:
            raise ValueError("there is no squeue here: run this where Slurm is, or with --cluster local") from error
        except (subprocess.SubprocessError, OSError) as error:
            reason = getattr(error, "stderr", None) or error
            if not self._answered:
                # What an earlier process submitted is not known: it would be submitted again.
                raise ValueError(f"squeue does not answer ({reason}); see that Slurm runs, and try again") from error
            _LOG.warning("squeue does not answer, and is asked again: %s", reason)
        else:
            self._answered = True
            jobs = (line.split(maxsplit=1) for line in listed)
            self._jobs = {name.removesuffix(self._mark): job for job, name in jobs if name.endswith(self._mark)}
        return set(self._jobs)

    def stop(self) -> None:  # noqa: D102
        if jobs := [self._jobs[name] for name in self.running()]:
            subprocess.run(["scancel", *jobs], check=False, timeout=60)


@contextmanager
def signals_kept() -> Iterator[None]:
    """What is started does not get the terminal's Ctrl-C and hang-up; here they arrive afterwards.

    Both go to every process of the terminal, while only the coordinator knows how to stop a worker.
    """
    # It is started with the first process, and would unblock SIGINT before that.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
