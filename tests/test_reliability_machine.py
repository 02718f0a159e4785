"""Workers of a sweep run out of memory, threads, libraries or disk: no estimator is blamed, and nothing is lost."""

import importlib
import os
import resource
import signal
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from campaign import campaign
from tiny import RECIPE

from air_agents import load_agent
from air_agents.estimator_benchmark.sweep import Sweep, run_sweep
from air_agents.jobs.cluster import LocalCluster, ThisProcess
from air_agents.training.trainer import Trainer

TRIALS = 24
ITERATIONS = 12
SWEEP = Sweep(replace(RECIPE, max_steps=ITERATIONS, evaluate_every=1), ("nvil",), (0, 1))


def _short_of_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**17,) * 2)


def _thread() -> None:
    _short_of_memory()
    for _ in range(100):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def _library() -> None:
    _short_of_memory()
    importlib.import_module("sqlite3")


def _disk() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"no room")


FAULTS = {
    "torch": lambda: torch.empty(2**50),
    "numpy": lambda: np.empty(2**50),
    "thread": _thread,
    "library": _library,
    "disk": _disk,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


@dataclass(frozen=True)
class Fault:
    """A probe under which the machine fails at an iteration."""

    kind: str
    iteration: int

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        if trainer.iteration == self.iteration:
            FAULTS[self.kind]()
        return {}


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return dict(load_agent(directory).state_dict())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of a process in /proc")
def test_no_fault_of_the_machine_is_laid_on_an_estimator(tmp_path, monkeypatch):
    monkeypatch.setattr("air_agents.training.run.curve", lambda rows, name, path: path.write_bytes(b""))
    run_sweep(SWEEP, tmp_path / "whole", ThisProcess(tmp_path / "whole"))
    expected = [weights(tmp_path / "whole" / f"nvil-{seed}") for seed in SWEEP.seeds]
    rng = np.random.default_rng(0)
    with campaign("machine's faults in a sweep", seed=0) as counts:
        for trial in range(TRIALS):
            counts.tried += 1
            kind, directory = list(FAULTS)[trial % len(FAULTS)], tmp_path / str(trial)
            fault = Fault(kind, int(rng.integers(1, ITERATIONS + 1)))
            try:
                run_sweep(replace(SWEEP, probe=fault), directory, LocalCluster(directory), workers=1)
                counts.failed.append(f"{fault}: the sweep went on")
            except OSError as error:
                if "nvil-0 was stopped by the machine" not in str(error):
                    counts.failed.append(f"{fault}: {error}")
            jobs = run_sweep(SWEEP, directory, ThisProcess(directory))
            for job, weight in zip(jobs, expected, strict=True):
                if job.status != "finished":
                    counts.failed.append(f"{fault}: {job.name} is {job.status}: {job.failure}")
                elif any(not torch.equal(part, weight[name]) for name, part in weights(job.directory).items()):
                    counts.lost.append(f"{fault}: {job.name} has other weights")
