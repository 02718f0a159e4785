"""Where cells are trained, in processes that submitit starts: on this machine, or as jobs of Slurm.

A cluster knows cells by their names only, and none of what their jobs return: that is in their run directories.
"""

import getpass
import hashlib
import logging
import os
import signal
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..estimator_benchmark.cell import JOBS_FOLDER

_MINUTES = 60 * 24 * 365
_LOG = logging.getLogger(__name__)


class Cluster(ABC):
    """Starts processes, knows which of them still run, and asks them to stop.

    Args:
        directory: The sweep's; the jobs' output goes into a folder for each cell in it.
        kind: ``local`` or ``slurm``.
        settings: Parameters of submitit's executor.

    Raises:
        ValueError: submitit is not installed, Slurm is not, or a setting is unknown.
    """

    poll_seconds = 0.2
    """Between looks at what still runs."""

    def __init__(self, directory: Path, kind: str, **settings: Any) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ValueError('cells are started by submitit; install the extra: pip install -e ".[cluster]"') from error
        self.folder = directory.resolve() / JOBS_FOLDER
        self._make: Callable[..., submitit.AutoExecutor] = submitit.AutoExecutor
        self._kind, self._settings = kind, settings

    def _start(self, name: str, mark: str, function: Callable[..., object], arguments: tuple[object, ...]) -> Any:
        """Starts a job; what the jobs of a cell print is in the cell's folder."""
        try:
            executor = self._make(folder=self.folder / name, cluster=self._kind)
            executor.update_parameters(**self._settings, name=name + mark)
            with _signals_kept():
                return executor.submit(function, *arguments)
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"{self._kind} does not take the job {name}: {error}; see --help for its options"
            ) from error

    @property
    def coordinator(self) -> Path | None:
        """A lock that is held for as long as the jobs are wanted; None where they go on without a coordinator."""
        return None

    @abstractmethod
    def submit(self, name: str, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function in a process of its own.

        Raises:
            ValueError: The cluster does not take it.
        """

    @abstractmethod
    def running(self) -> set[str]:
        """The names of what still runs or waits for its turn."""

    @abstractmethod
    def stop(self) -> None:
        """Asks all that runs to save and end; `running` says when it has."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more is wanted from here."""


class LocalCluster(Cluster):
    """Processes of this machine; they end by themselves when this one is killed.

    Args:
        directory: The sweep's.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "local", timeout_min=_MINUTES)
        self._jobs: dict[str, Any] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        # One for each coordinator: the next one's must not keep the workers of a killed one.
        self._lock = FileLock(self.folder / f"coordinator-{uuid.uuid4().hex}.lock")
        self._lock.acquire()

    @property
    def coordinator(self) -> Path:  # noqa: D102
        return Path(self._lock.lock_file)

    def submit(self, name: str, function: Callable[..., object], *arguments: object) -> None:  # noqa: D102
        self._jobs[name] = self._start(name, "", function, arguments)

    def running(self) -> set[str]:  # noqa: D102
        return {name for name, job in self._jobs.items() if not job.done()}

    def stop(self) -> None:  # noqa: D102
        for name in self.running():
            # The job's own process passes it on. `Job.cancel` would leave a second before it kills.
            os.kill(int(self._jobs[name].job_id), signal.SIGTERM)

    def close(self) -> None:  # noqa: D102
        self._lock.release()
        self.coordinator.unlink(missing_ok=True)


class SlurmCluster(Cluster):
    """Jobs of Slurm; they go on when this process is killed, and are found again by their names.

    Args:
        directory: The sweep's, which all nodes see.
        partition: Where to; by default Slurm's.
        minutes: Time limit of a job; shortly before it, the cell is saved.
        cpus: Of a job.
        options: Further options of ``sbatch``, by their long names.
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
        settings = {"timeout_min": minutes, "cpus_per_task": cpus, "nodes": 1, "tasks_per_node": 1}
        slurm = {"slurm_partition": partition, "slurm_additional_parameters": options}
        super().__init__(directory, "slurm", **settings, **{key: value for key, value in slurm.items() if value})
        # Other sweeps have cells of the same names.
        self._mark = "@" + hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        self._jobs: dict[str, str] = {}
        self._answered = False

    def submit(self, name: str, function: Callable[..., object], *arguments: object) -> None:  # noqa: D102
        self._jobs[name] = self._start(name, self._mark, function, arguments).job_id

    def running(self) -> set[str]:
        """The names of the jobs in Slurm's queue, also of those that an earlier process submitted."""
        command = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%A %j"]
        try:
            # Not `Job.done`, which asks the accounting that not every Slurm has.
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

    def close(self) -> None:  # noqa: D102
        pass


@contextmanager
def _signals_kept() -> Iterator[None]:
    """What is started does not get the terminal's Ctrl-C and hang-up; here they arrive afterwards.

    Both go to every process of the terminal, while only the coordinator knows how to stop a worker.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
