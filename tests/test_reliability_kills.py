"""Kills at random moments: what is started again ends as if it had never been killed.

Most kills are of processes forked from one that has imported torch, which takes seconds; a few are of real command
lines. A signal of a terminal goes to all processes of a command, others to the one that was started.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Process, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from campaign import Campaign, campaign
from PIL import Image
from safetensors.torch import load_file
from test_slurm import slurm  # noqa: F401 (a fixture)
from tiny import RECIPE

from air_agents.training.recipes import RECIPES

pytestmark = pytest.mark.slow

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -signal.SIGKILL}
"""Signal -> exit status of a command that it stops."""
OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)
SECONDS = 480
"""After so long, nothing further is begun."""

SHORT = ("--evaluate-every", "3", "--batch-size", "4")
TRAIN = ("train", "tiny", "--max-steps", "30", *SHORT, "--iwae-samples", "1")
TRAIN_SB3 = ("train-sb3", "--max-steps", "256", "--evaluate-every", "32", "--num-envs", "8",
             "--num-train", "32", "--num-validation", "8", "--num-final", "8", "--num-pictured", "2")  # fmt: skip
SWEEP = ("benchmark-estimators", "train", "tiny", "--estimators", "exact", "nvil", "--seeds", "0", "--max-steps", "12",
         *SHORT, "--exploration-steps", "0", "--output-dir", "run")  # fmt: skip
REPRODUCE = ("reproduce", "figure3", "--scale", "smoke", "--seeds", "0", "--device", "cpu", "--runs-dir", "run")


def in_child(folder: str, arguments: Sequence[str], patient: bool, environment: dict[str, str]) -> None:
    """Runs a command in this process, which saves at every evaluation, and forks its workers."""
    import air_agents.jobs.cluster as cluster
    from air_agents.commands.main import main
    from air_agents.training.run import TrainingRun

    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)  # of Slurm, which was started later
    TrainingRun.save_every = 30.0 if patient else 0.0
    cluster.get_context = lambda _: get_context("fork")
    cluster.SlurmCluster.poll_seconds = 0.5
    RECIPES["tiny"] = RECIPE
    torch.set_num_threads(1)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(log, number)
    sys.argv[1:] = arguments
    Path("begun").touch()
    sys.exit(main())


class Command:
    """A command in a folder, forked from a process that has imported everything.

    Args:
        folder: Where it runs.
        arguments: Of `air-env`.
        patient: Whether it saves as seldom as by default.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], patient: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.log, self.begun = folder / "log", folder / "begun"
        self.begun.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        self.process = start(target=in_child, args=(str(folder), tuple(arguments), patient, dict(os.environ)))
        self.process.start()
        while not self.begun.exists() and self.process.is_alive():
            time.sleep(0.005)

    def ends(self) -> int | None:
        """Waits for the end; returns the exit status, or None for a process that hangs."""
        self.process.join(120)
        if self.process.exitcode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            return None
        return self.process.exitcode

    def kill(self, number: signal.Signals) -> None:
        """Sends a signal, as who sends such signals does."""
        send = os.killpg if number in OF_TERMINALS else os.kill
        send(self.process.pid, number)

    def leaves_processes(self) -> bool:
        """Whether any process of it is left a while after its end."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.05)
        os.killpg(self.process.pid, signal.SIGKILL)
        return True


def start(**options: Any) -> Process:
    context = get_context("forkserver")
    names = ("commands.train", "commands.benchmark_estimators", "commands.reproduce", "commands.trained", "sb3.trained",
             "jobs.cluster", "estimator_benchmark.sweep", "estimator_benchmark.probe",
             "reproduction.studies")  # fmt: skip
    slow = ("torch._dynamo", "torch.utils.tensorboard", "sklearn.datasets", "scipy.optimize")
    context.set_forkserver_preload([*(f"air_agents.{name}" for name in names), *slow])
    return context.Process(**options)


def progress(folder: Path) -> dict[Path, float]:
    """How far each run has come; one that cannot be read has come nowhere."""
    found = {}
    for path in folder.rglob("resume.pt"):
        if path.parent.name.startswith("."):
            continue
        try:
            state = torch.load(path, weights_only=True)["trainer"]
            load_file(*path.parent.glob("*.safetensors"))
            found[path.parent] = state["iteration" if "iteration" in state else "steps"]
        except Exception:
            found[path.parent] = -1.0
    return found


def results(folder: Path) -> dict[str, object]:
    """What all runs and pages below a folder are, but for times."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = {key: tensor.tolist() for key, tensor in load_file(path).items()}
        elif path.name == "evaluation.json":
            found[name] = json.loads(path.read_text()) | {"minutes": 0, "checksum": ""}  # of the minutes, too
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                found[name] = [row | {"minutes": ""} for row in csv.DictReader(file)]
    return found


def run_and_kill(
    counts: Campaign,
    folder: Path,
    command: Callable[[Path], Sequence[str]],
    kills: int,
    same: bool = True,
    seed: int = 0,
) -> None:
    """Kills a command again and again until it has ended by itself, and then another one, a number of times in all."""
    rng, deadline = np.random.default_rng(seed), time.monotonic() + SECONDS
    whole = Command(folder / "whole", command(folder / "whole"))
    begun = time.monotonic()
    assert whole.ends() == 0, whole.log.read_text()
    seconds, wanted = time.monotonic() - begun, results(folder / "whole" / "run")
    trial = 0
    while counts.tried < kills and time.monotonic() < deadline:
        trial += 1
        place, before = folder / str(trial), {}
        # Of some, most kills come before the first save after the beginning.
        patient, status, most = rng.random() < 0.3, 1, counts.tried + 8
        while status != 0 and counts.tried < min(most, kills):
            number = list(SIGNALS)[rng.integers(len(SIGNALS))]
            running = Command(place, command(place), patient)
            running.process.join(rng.uniform(0, 0.8) * seconds)
            twice = number != signal.SIGKILL and rng.random() < 0.2
            counts.tried += running.process.exitcode is None
            for _ in range(1 + twice):
                if running.process.exitcode is None:
                    running.kill(number)
                    running.process.join(0.05)
            status, log = running.ends(), running.log.read_text()
            what = f"trial {trial}, {number.name}{' twice' * twice}: status {status}, {log[-300:]!r}"
            if status not in (0, SIGNALS[number]) or "Traceback" in log or "rror" in log:
                counts.failed.append(what)
            elif status > 0 and "stopped" not in log.splitlines()[-1]:
                counts.failed.append(f"nothing is said: {what}")
            if running.leaves_processes():
                counts.failed.append(f"processes are left: {what}")
            after = progress(place)
            if any(after.get(run, -1.0) < reached for run, reached in before.items()) or -1.0 in after.values():
                counts.lost.append(f"{before} became {after}: {what}")
            before = after
        if status != 0 and (last := Command(place, command(place))).ends() != 0:
            counts.failed.append(f"trial {trial} does not end: {last.log.read_text()[-500:]}")
        elif same and (found := results(place / "run")) != wanted:
            differ = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
            counts.lost.append(f"trial {trial} ends otherwise: {differ}")


def training(*arguments: str) -> Callable[[Path], Sequence[str]]:
    """A training that is resumed where there is one."""

    def command(folder: Path) -> Sequence[str]:
        if (folder / "run").exists():
            return (arguments[0], "--resume", "run")
        return (*arguments, "--output-dir", "run")

    return command


def test_killed_trainings_end_with_the_same_numbers(tmp_path):
    with campaign("kills: train") as counts:
        run_and_kill(counts, tmp_path, training(*TRAIN), 100)


def test_killed_trainings_of_policies_are_resumed(tmp_path):
    # Their noise begins anew, so that their numbers are others.
    with campaign("kills: train-sb3") as counts:
        run_and_kill(counts, tmp_path, training(*TRAIN_SB3), 50, same=False)


def test_killed_sweeps_end_with_the_same_numbers_and_leave_no_process(tmp_path):
    with campaign("kills: sweep of estimators") as counts:
        run_and_kill(counts, tmp_path, lambda _: SWEEP, 50)


def test_killed_studies_end_with_the_same_page(tmp_path):
    with campaign("kills: reproduce") as counts:
        run_and_kill(counts, tmp_path, lambda _: REPRODUCE, 30)


@pytest.mark.usefixtures("slurm")
def test_killed_coordinators_of_slurm_find_their_jobs_again(tmp_path):
    with campaign("kills: sweep on Slurm") as counts:
        run_and_kill(counts, tmp_path, lambda _: (*SWEEP, "--cluster", "slurm"), 8)


def listens(pid: int) -> bool:
    """Whether a process has begun to listen to signals; before, nobody but Python can be polite."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_command_lines_that_start_up_are_stopped_with_a_line(tmp_path):
    rng = np.random.default_rng(0)
    Image.new("L", (50, 50)).save(tmp_path / "a.png")
    commands = ["train digits", "train-sb3", "evaluate digits", "explain digits a.png", "watch digits --output a.gif",
                "benchmark-speed --only training", "benchmark-estimators properties --estimators nvil",
                "benchmark-estimators train digits --estimators nvil --seeds 0", "summarise nothing",
                "reproduce figure3 --scale smoke --seeds 0 --workers 2"]  # fmt: skip
    code = "import sys; from air_agents.commands.main import main; sys.exit(main())"
    with campaign("signals to command lines that start up") as counts:
        for trial in range(3 * len(commands)):
            command, number = commands[trial % len(commands)], list(SIGNALS)[trial % 3]
            folder = tmp_path / str(trial)
            folder.mkdir()
            shutil.copy(tmp_path / "a.png", folder)
            process = subprocess.Popen(
                [sys.executable, "-c", code, *command.split()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                start_new_session=True,
            )
            while process.poll() is None and not listens(process.pid):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 6))
            (os.killpg if number in OF_TERMINALS else os.kill)(process.pid, number)
            _, errors = process.communicate(timeout=120)
            counts.tried += 1
            if process.returncode not in (0, 1, SIGNALS[number]) or "Traceback" in errors or "Exception" in errors:
                counts.failed.append(f"{command}, {number.name}: {process.returncode}, {errors[-500:]!r}")
