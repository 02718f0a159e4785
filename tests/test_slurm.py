"""The same sweep as jobs of Slurm: a real one, of one node, that is started for the test."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import RECIPE

from air_agents import load_agent
from air_agents.estimator_benchmark.sweep import Sweep, run_sweep
from air_agents.jobs.cluster import SlurmCluster
from air_agents.jobs.job import MACHINE_FILE, Job
from air_agents.training.directory import METRICS_FILE
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=usual Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=other Nodes=ALL MaxTime=INFINITE State=UP
"""


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{command[0]}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(condition: Callable[[], object], folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        logs = "\n".join(f"{path.name}: {path.read_text()[-1000:]}" for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"Slurm does not start:\n{logs}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[None]:
    """A node of two processors, this machine, for as long as the tests of this file take."""
    if missing := [name for name in DAEMONS if shutil.which(name) is None]:
        pytest.skip(f"needs Slurm ({', '.join(missing)} not found): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("needs root, as which alone slurmd runs")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2)))
    version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout.split()[-1]
    # Containers have no cgroups to manage. Versions before 23.02 cannot do without, but version 1 is not looked for.
    plugin = "cgroup/v1" if float(".".join(version.split(".")[:2])) < 23.02 else "disabled"
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("SLURM_CONF", str(configuration))
        # A folder of this user alone is no place for a system's socket, but for a test's.
        munge = ("--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
                 f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/munge.seed")  # fmt: skip
        stack.enter_context(daemon(folder, "munged", "--foreground", *munge))
        wait_for((folder / "munge.socket").exists, folder)
        stack.enter_context(daemon(folder, "slurmctld", "-D", "-f", str(configuration)))
        stack.enter_context(daemon(folder, "slurmd", "-D", "-f", str(configuration)))
        state = ("sinfo", "--noheader", "--format=%T", "--partition=usual")
        wait_for(lambda: subprocess.run(state, capture_output=True, text=True).stdout.strip() == "idle", folder)
        yield
        # What a failing test left would outlive the daemons.
        subprocess.run(["scancel", "--user=root"], check=False)
        wait_for(lambda: not subprocess.run(("squeue", "--noheader"), capture_output=True).stdout.strip(), folder)


class Impatient(SlurmCluster):
    poll_seconds = 0.5


@pytest.mark.usefixtures("slurm")
def test_the_command_trains_its_cells_as_jobs(tmp_path, monkeypatch, air_env_command):
    monkeypatch.setattr("air_agents.jobs.cluster.SlurmCluster", Impatient)
    monkeypatch.setitem(RECIPES, "tiny", RECIPE)
    monkeypatch.chdir(tmp_path)
    options = ("--estimators", "exact", "nvil", "--seeds", "0", "--max-steps", "4", "--evaluate-every", "2",
               "--cluster", "slurm", "--slurm-partition", "other", "--slurm-options", "comment=ours",
               "--output-dir", "sweep")  # fmt: skip
    status, out, _ = air_env_command("benchmark-estimators", "train", "tiny", *options)
    assert status == 0, out
    jobs = set()
    for name in ("exact-0", "nvil-0"):
        assert load_agent(tmp_path / "sweep" / name).model.config == RECIPE.model
        job = json.loads((tmp_path / "sweep" / name / MACHINE_FILE).read_text())["slurm_job_id"]
        described = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
        for text in ("JobState=COMPLETED", "Partition=other", f"JobName={name}@", "Comment=ours"):
            assert text in described
        assert (tmp_path / "sweep" / "jobs" / name / f"{job}_0_log.out").is_file()
        jobs.add(job)
    assert len(jobs) == 2


class GoneError(Exception):
    """In the place of SIGKILL."""


class Killed(Impatient):
    """Is gone as soon as it has submitted something, and stops nothing."""

    def submit(self, job: Job) -> None:
        super().submit(job)
        raise GoneError

    def running(self) -> set[str]:
        return set()

    def stop(self) -> None:
        pass


class Interrupted(Impatient):
    """Submits nothing, and is interrupted when the cell has been trained for a while."""

    def submit(self, job: Job) -> None:
        raise AssertionError("it is running already")

    def running(self) -> set[str]:
        found = super().running()
        if found and (self.folder.parent / "exact-0" / METRICS_FILE).exists() and not self.stopping:
            raise KeyboardInterrupt
        return found

    stopping = False

    def stop(self) -> None:
        self.stopping = True
        super().stop()


@pytest.mark.usefixtures("slurm")
def test_jobs_of_a_killed_coordinator_are_found_again_and_save_when_they_are_stopped(tmp_path):
    recipe = replace(RECIPE, estimator="exact", max_steps=100_000, evaluate_every=5)
    job = Job(tmp_path / "sweep" / "exact-0", recipe)
    sweep = Sweep(recipe, ("exact",), (0,))
    with pytest.raises(GoneError):
        run_sweep(sweep, tmp_path / "sweep", Killed(tmp_path / "sweep"))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, tmp_path / "sweep", Interrupted(tmp_path / "sweep"))
    assert Impatient(tmp_path / "sweep").running() == set()
    assert job.status == "unfinished"
    assert TrainingRun.resume(job.directory).trainer.iteration >= 5


@pytest.mark.usefixtures("slurm")
def test_what_slurm_does_not_take_is_refused_with_its_reason(tmp_path):
    sweep = Sweep(RECIPE, ("exact",), (0,))
    with pytest.raises(ValueError, match=r"(?s)slurm does not take the job exact-0: .*[Ii]nvalid partition"):
        run_sweep(sweep, tmp_path, SlurmCluster(tmp_path, partition="nowhere"))


def test_without_slurm_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no squeue here: .*--cluster local"):
        run_sweep(Sweep(RECIPE, ("exact",), (0,)), tmp_path / "sweep", SlurmCluster(tmp_path / "sweep"))


def test_without_submitit_the_remedy_is_named_before_anything_is_made(tmp_path, monkeypatch, air_env_command):
    monkeypatch.setitem(sys.modules, "submitit", None)
    options = ("--estimators", "exact", "--cluster", "slurm", "--output-dir", tmp_path / "sweep")
    status, _, err = air_env_command("benchmark-estimators", "train", *options)
    assert status == 1
    assert 'pip install "air-env[cluster]"' in err
    assert not (tmp_path / "sweep").exists()
