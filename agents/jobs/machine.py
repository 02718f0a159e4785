"""What numbers were made with: code, machine, libraries; and which errors are the machine's."""

import functools
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

from air_env.renderers.backends import OpenGLError

_FAULTS = re.compile(
    "can.t start new thread|can(.t|not) allocate memory|(out of|not enough) memory|alloc_failed|no space left"
    "|failed to map segment|cannot open shared object|no cuda gpus|cuda-capable device|nvidia driver|ecc error",
    re.IGNORECASE,
)
"""How the machine's faults are worded where their type does not tell them, which is RuntimeError or ImportError."""


def fault_of_machine(error: BaseException) -> OSError | None:
    """An error as what the machine lacks: memory, threads, a library, OpenGL, a GPU, disk.

    It says nothing about what is trained. None where neither the error nor what led to it is the machine's.
    """
    cause: BaseException | None = error
    while cause is not None:
        worded = isinstance(cause, RuntimeError | ImportError) and _FAULTS.search(str(cause))
        if worded or isinstance(cause, OSError | MemoryError | OpenGLError):
            what = f"{type(error).__name__}: {error}"
            return OSError(f"this machine cannot go on ({what}); mend that, and give the same command again")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def describe_machine() -> dict[str, str | int | None]:
    """The processor, the cores that may be used, versions, and the commit; under Slurm, also the job."""
    return {
        "host": platform.node(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def _cpu() -> str:
    """The processor's name, which only Linux keeps in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    """The commit that this file is of, ``-dirty`` where files differ from it; None outside a repository."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        # An installed package may lie in a repository that is not its own.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
