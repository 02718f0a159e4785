"""Workers: processes that train one job each.

A worker that is asked to stop, by SIGTERM or by the end of whoever started it, saves the run after the iteration.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from .job import Job

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_STOP = 1.0, 60.0


def train_job(job: Job, coordinator: Path | None = None) -> None:
    """Trains a job until it is finished, or until this process is to stop.

    Args:
        job: The job; nothing is done where it is finished.
        coordinator: A lock; the run is saved and left when nobody holds it any more.

    Raises:
        OSError: The disk is full.
        ValueError: This machine does not have what the job names, or the directory holds something else.
    """
    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)
    if job.prepare is not None:
        job.prepare()
    with stop_request(coordinator) as stop:
        job.train(lambda: stop.made)


class StopRequest:
    """Whether this process is to stop."""

    made = False


@contextlib.contextmanager
def stop_request(coordinator: Path | None) -> Iterator[StopRequest]:
    """Notices that this process is to stop; ends it where that is not done in a minute.

    Args:
        coordinator: A lock that is held for as long as the process is wanted.

    Yields:
        The request; it is made by what stops a command, by the signal of Slurm's time limit (SIGUSR2), and when the
        lock is free or the parent is gone.
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

    before = {number: signal.signal(number, make) for number in _STOPS}
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
