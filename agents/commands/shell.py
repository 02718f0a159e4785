"""What a shell, a terminal and a scheduler expect of a command: exit statuses, signals, streams nobody reads.

Ctrl-C, SIGTERM (of schedulers) and SIGHUP (of closed terminals) end a command with one line and the exit status 128 +
signal. Where there is something to save, they wait for it; a second Ctrl-C or SIGTERM does not wait. A second SIGHUP
is the same one: shell and kernel both send it.
"""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SUCCESS, FAILURE = 0, 1
"""Exit statuses; wrong usage is 2."""
_WHOLE = "stopped; what was written is whole"
SAME_COMMAND = "the same command continues"
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_NOBODY_READS = (errno.EPIPE, errno.EIO)
"""Errors of a pipe whose reader has left, and of a terminal that is closed."""


class SettingsError(Exception):
    """Settings that are not valid together; tyro leaves it alone, unlike a ValueError."""


ERRORS = (ValueError, OSError, FloatingPointError, SettingsError)
"""What a user can mend, and need not see a traceback of."""


class _Stop:
    """The signal that asks the command to stop."""

    def __init__(self) -> None:
        self.number = 0
        """Which one came first; 0 while none has."""
        self.patient = False
        """Whether it waits until all is saved."""
        self.over = False
        """Whether there is nothing left to stop."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first = self.number == 0
        if self.over or (not first and number == getattr(signal, "SIGHUP", 0)):
            return
        self.number = self.number or number
        if first and self.patient:
            return
        if _imports(frame):
            # Libraries that are interrupted when they start abort, or make another error of it.
            with suppress(OSError):
                os.write(2, f"\n{_WHOLE}\n".encode())
            os._exit(128 + self.number)
        raise KeyboardInterrupt("" if first else "stopped at once; what was saved last is whole")


_stop = _Stop()


def guarded(work: Callable[[], int | None]) -> int:
    """Does the work of a command; errors and signals become a line and an exit status."""
    global _stop
    _stop = stop = _Stop()
    before = {number: signal.getsignal(number) for number in _SIGNALS} if _can_listen() else {}
    for number, handler in before.items():
        # It is ignored in background jobs and under nohup, and stays so.
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        return work() or SUCCESS
    except ERRORS as error:
        return failed(str(error))
    except KeyboardInterrupt as interruption:
        stop.over = True
        print(f"\n{str(interruption) or _WHOLE}", file=sys.stderr)
        return 128 + (stop.number or signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _can_listen() -> bool:
    return threading.current_thread() is threading.main_thread()


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def failed(*messages: str) -> int:
    """Prints errors; returns the exit status of a failure."""
    for message in messages:
        print(f"error: {message}", file=sys.stderr)
    return FAILURE


@contextmanager
def patient() -> Iterator[Callable[[], bool]]:
    """Signals wait until all is saved.

    Yields:
        Whether one came.
    """
    stop, stop.patient = _stop, True
    try:
        yield lambda: stop.number != 0
    finally:
        stop.patient = False


@contextmanager
def continued_by(how: str) -> Iterator[None]:
    """Whoever stops the work inside is told how to continue it."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(f"{str(interruption) or 'stopped'}; {how}") from None


def own_streams() -> None:
    """Makes the process quiet where nobody reads what it prints, or where a standard stream is closed.

    Work goes on then: it is not for the reader alone.
    """
    # A closed stream's number would be the next file's, and what libraries print would be written into that.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        before, raw = getattr(sys, name), _Stream(number, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=getattr(before, "encoding", None),
            errors=getattr(before, "errors", None),
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, stream)


def end_process() -> None:
    """Signals change nothing any more: what Python does at its end would have tracebacks for them."""
    for number in _SIGNALS if _can_listen() else ():
        signal.signal(number, signal.SIG_IGN)


class _Stream(io.FileIO):
    """A standard stream, which drops what nobody reads; other errors come once."""

    broken = False

    def write(self, data: Any, /) -> int:
        if not self.broken:
            try:
                return super().write(data)
            except OSError as error:
                self.broken = True
                if error.errno not in _NOBODY_READS:
                    raise
        return memoryview(data).nbytes
