"""Sweeps: every cell an ordinary run, none trained twice, failures kept, and an end without orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tiny import NUM_STEPS, RECIPE, assert_equal

from air_agents import load_agent
from air_agents.estimator_benchmark.probe import probe
from air_agents.estimator_benchmark.record import read_record
from air_agents.estimator_benchmark.specs import load_estimator
from air_agents.estimator_benchmark.sweep import Sweep, run_sweep
from air_agents.estimators import ESTIMATORS
from air_agents.jobs import job as job_module
from air_agents.jobs import worker
from air_agents.jobs.cluster import Cluster, LocalCluster, ThisProcess
from air_agents.jobs.job import FAILED_FILE, MACHINE_FILE, Job
from air_agents.jobs.worker import is_held, train_job
from air_agents.training.files import read_rows
from air_agents.training.recipes import RECIPES
from air_agents.training.run import Probe, TrainingRun
from air_env.renderers.backends import OpenGLError

ROOT = Path(__file__).parents[1]
TINY = replace(RECIPE, max_steps=4, evaluate_every=2)
ESTIMATOR_FILE = """
from air_agents.estimators.score_function import StopNow

class Mine(StopNow):
    pass

class Broken(StopNow):
    def forward(self, problem, generator=None):
        if not self.training:
            return super().forward(problem, generator)
        raise ZeroDivisionError("so it is")

class Diverging(StopNow):
    def forward(self, problem, generator=None):
        return super().forward(problem, generator) * float("nan")

class Unmakable(StopNow):
    def __init__(self, context_dim):
        raise TypeError("no")

NOT_A_CLASS = 3
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What workers set in their own processes is undone, and so is what is registered."""
    # Drawing it takes longer than the training.
    monkeypatch.setattr("air_agents.training.run.curve", lambda rows, name, path: path.write_bytes(b""))
    before, threads = dict(ESTIMATORS), torch.get_num_threads()
    yield
    ESTIMATORS.clear()
    ESTIMATORS.update(before)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def estimator_file(tmp_path) -> Path:
    path = tmp_path / "my estimators.py"
    path.write_text(ESTIMATOR_FILE)
    return path


class Recording(ThisProcess):
    """Trains at once, and notes what."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.submitted: list[str] = []
        self.closed = False

    def submit(self, job: Job) -> None:
        self.submitted.append(job.name)
        super().submit(job)

    def __exit__(self, *_: object) -> None:
        self.closed = True


def sweep_here(sweep: Sweep, directory: Path, **options) -> tuple[dict[str, str], list[str]]:
    """Runs a sweep in this process; returns what became of its cells, and which were trained."""
    place = Recording(directory)
    jobs = run_sweep(sweep, directory, place, **options)
    assert place.closed
    return {job.name: job.status for job in jobs}, place.submitted


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_every_cell_is_an_ordinary_run(tmp_path):
    statuses, trained = sweep_here(Sweep(TINY, ("exact", "nvil"), (0, 1)), tmp_path / "sweep")
    names = ["exact-0", "nvil-0", "exact-1", "nvil-1"]
    assert trained == names, "seed by seed"
    assert statuses == dict.fromkeys(names, "finished")
    alone = TrainingRun.start(tmp_path / "alone", replace(TINY, estimator="nvil", seed=1))
    alone.train()
    assert_equal(dict(load_agent(tmp_path / "sweep" / "nvil-1").state_dict()), dict(alone.trainer.agent.state_dict()))
    machine = json.loads((tmp_path / "sweep" / "nvil-1" / MACHINE_FILE).read_text())
    assert machine["torch"] == torch.__version__
    assert read_record(tmp_path / "sweep").cells == names


def test_finished_cells_are_skipped_and_the_grid_may_grow(tmp_path):
    sweep = Sweep(TINY, ("exact",), (0,))
    assert sweep_here(sweep, tmp_path)[1] == ["exact-0"]
    before = files_of(tmp_path)
    seen = []
    statuses, trained = sweep_here(sweep, tmp_path, progress=lambda cell: seen.append(cell.name))
    assert (statuses, trained, seen) == ({"exact-0": "finished"}, [], ["exact-0"])
    assert files_of(tmp_path) == before
    grown = replace(sweep, estimators=("stop_now", "exact"), seeds=(1, 0))
    assert sweep_here(grown, tmp_path)[1] == ["stop_now-1", "exact-1", "stop_now-0"]
    assert read_record(tmp_path).cells == ["exact-0", "stop_now-1", "exact-1", "stop_now-0"]
    assert {name: content for name, content in files_of(tmp_path).items() if "exact-0" in name} == {
        name: content for name, content in before.items() if "exact-0" in name
    }


def test_a_half_finished_cell_is_resumed_and_ends_as_an_undisturbed_one(tmp_path):
    sweep = Sweep(TINY, ("nvil",), (3,))
    sweep_here(sweep, tmp_path / "whole")
    sweep_here(sweep, tmp_path / "parts")
    cell = tmp_path / "parts" / "nvil-3"
    for path in sorted(cell.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    TrainingRun.start(cell, replace(TINY, estimator="nvil", seed=3)).train(stop_at=3)
    assert sweep_here(sweep, tmp_path / "parts") == ({"nvil-3": "finished"}, ["nvil-3"])
    agents = [dict(load_agent(tmp_path / name / "nvil-3").state_dict()) for name in ("whole", "parts")]
    assert_equal(agents[1], agents[0])


def test_the_probe_gives_the_columns_that_the_report_reads(tmp_path):
    sweep_here(Sweep(TINY, ("exact", "reinforce_whole_return"), (0,), probe=probe), tmp_path)
    exact, reinforce = (
        read_rows(tmp_path / f"{name}-0" / "metrics.csv") for name in ("exact", "reinforce_whole_return")
    )
    assert [row["iteration"] for row in exact] == [2, 4]
    # Likelihoods of an image and iteration: all counts, or the one that was sampled.
    assert [row["likelihoods"] for row in exact] == [NUM_STEPS + 1] * 2
    assert [row["likelihoods"] for row in reinforce] == [1] * 2
    assert all(row["added_variance"] == pytest.approx(0, abs=1e-3) for row in exact)
    assert all(row["added_variance"] > 1 for row in reinforce)
    assert all(row["gradient_square"] > 0 and row["saturation"] > 0 for row in exact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": replace(TINY, max_steps=8, batch_size=4)},
         "batch_size was 8 and is now 4|max_steps was 4 and is now 8"),
        ({"max_minutes": 3.0}, "max_minutes was None and is now 3.0"),
        ({"threads": 2}, "threads was 1 and is now 2"),
    ],
)  # fmt: skip
def test_other_settings_in_the_same_directory_are_refused(tmp_path, changes, message):
    sweep = Sweep(TINY, ("exact",), (0,))
    sweep_here(sweep, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"holds a sweep with other settings: .*choose another --output-dir") as caught:
        sweep_here(replace(sweep, **changes), tmp_path)
    assert all(part in str(caught.value) for part in message.split("|"))
    assert files_of(tmp_path) == before


def test_a_directory_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="already holds something that is no sweep; choose another --output-dir"):
        sweep_here(Sweep(TINY, ("exact",), (0,)), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimators": ("nvill",)}, "estimator 'nvill' is unknown; choose one of half_critic"),
        ({"estimators": ("nvil", "exact", "nvil")}, "estimator nvil is given twice"),
        ({"seeds": (0, 1, 0)}, "seed 0 is given twice"),
        ({"seeds": ()}, "there is no seed to train"),
        ({"estimators": ()}, "there is no estimator to train"),
        ({"seeds": (-1,)}, "seed must be at least 0, got -1"),
        ({"max_minutes": 0.0}, "max_minutes must be positive, got 0.0"),
        ({"threads": 0}, "threads must be positive, got 0"),
        ({"recipe": replace(RECIPE, scene="multi_mnist"), "data_dir": "nowhere"}, "nowhere/mnist"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(tmp_path, changes, message):
    sweep = replace(Sweep(TINY, ("exact",), (0,)), **changes)
    with pytest.raises((ValueError, OSError), match=message):
        sweep_here(sweep, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_second_sweep_in_the_same_directory_is_refused(tmp_path):
    sweep, refusals = Sweep(TINY, ("exact",), (0,)), []

    def begin_another(cell):
        with pytest.raises(ValueError, match=r"a sweep is being run in .* by another process; wait") as caught:
            sweep_here(sweep, tmp_path)
        refusals.append(caught)

    sweep_here(sweep, tmp_path, progress=begin_another)
    assert len(refusals) == 1
    assert sweep_here(sweep, tmp_path)[0] == {"exact-0": "finished"}


# Estimators of one's own


def test_an_estimator_from_a_file_is_trained_like_the_one_that_it_is(tmp_path, estimator_file):
    statuses, _ = sweep_here(Sweep(TINY, (f"mine={estimator_file}:Mine", "stop_now"), (0,)), tmp_path / "sweep")
    assert statuses == {"mine-0": "finished", "stop_now-0": "finished"}
    agents = [dict(load_agent(tmp_path / "sweep" / f"{name}-0").state_dict()) for name in ("mine", "stop_now")]
    assert_equal(agents[0], agents[1])
    assert ESTIMATORS["mine"].__module__ not in ("mine", "my estimators"), "it could hide a module of that name"
    assert load_estimator(f"mine={estimator_file}:Mine") == "mine", "again is no contradiction"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nvill", "estimator 'nvill' is unknown; choose one of half_critic"),
        ("nvil=FILE:Mine", "estimator 'nvil' is already registered; give .* another name"),
        ("mine=nowhere.py:Mine", "there is no Python file .*nowhere.py; check the path"),
        ("mine=FILE:Yours", "defines no Yours; check the name"),
        ("mine=FILE:NOT_A_CLASS", "NOT_A_CLASS' is no estimator; derive it from air_agents.estimators.Estimator"),
        ("mine=FOLDER/notes.txt:Mine", "makes no sense"),
        ("mine=FOLDER/wrong.py:Mine", r"wrong.py cannot be imported \(SyntaxError.*correct it"),
        ("mine=FILE", "makes no sense; give a registered name .*name=path.py:ClassName"),
        ("my-own=FILE:Mine", "makes no sense"),
        ("../up=FILE:Mine", "makes no sense"),
        ("", "makes no sense"),
    ],
)
def test_a_wrong_specification_is_refused_with_the_remedy(tmp_path, estimator_file, spec, message):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "wrong.py").write_text("class")
    before = dict(ESTIMATORS)
    with pytest.raises(ValueError, match=message):
        load_estimator(spec.replace("FILE", str(estimator_file)).replace("FOLDER", str(tmp_path)))
    assert before == ESTIMATORS


def test_two_files_cannot_have_the_same_name(tmp_path, estimator_file):
    load_estimator(f"mine={estimator_file}:Mine")
    with pytest.raises(ValueError, match="'mine' is already registered"):
        load_estimator(f"mine={estimator_file}:Broken")


def test_an_estimator_that_cannot_be_made_is_refused_at_once(tmp_path, estimator_file):
    with pytest.raises(ValueError, match=r"estimator 'mine' cannot be made \(TypeError\('no'\)\); correct it"):
        sweep_here(Sweep(TINY, (f"mine={estimator_file}:Unmakable",), (0,)), tmp_path / "sweep")


def test_other_code_under_the_same_name_is_refused(tmp_path, estimator_file):
    sweep = Sweep(TINY, (f"mine={estimator_file}:Mine",), (0,))
    sweep_here(sweep, tmp_path / "sweep")
    estimator_file.write_text(ESTIMATOR_FILE + "\n# changed\n")
    for options in ({}, {"retry_failed": True}):
        with pytest.raises(ValueError, match="'mine' has changed since mine-0 began; give the changed one another"):
            sweep_here(sweep, tmp_path / "sweep", **options)


# Failures


def test_failures_are_recorded_and_the_others_go_on(tmp_path, estimator_file):
    estimators = (f"broken={estimator_file}:Broken", f"diverging={estimator_file}:Diverging", "exact")
    sweep = Sweep(TINY, estimators, (0,))
    statuses, _ = sweep_here(sweep, tmp_path / "sweep")
    assert statuses == {"broken-0": "crashed", "diverging-0": "diverged", "exact-0": "finished"}
    failures = [json.loads((tmp_path / "sweep" / f"{name}-0" / FAILED_FILE).read_text())
                for name in ("broken", "diverging")]  # fmt: skip
    assert failures[0]["error"] == "ZeroDivisionError: so it is"
    assert "my estimators.py" in failures[0]["traceback"]
    assert failures[1]["error"].startswith("FloatingPointError: the ELBO or a weight is not finite at iteration 2 with "
                                           "estimator diverging")  # fmt: skip
    assert sweep_here(sweep, tmp_path / "sweep")[1] == [], "they are not tried again by themselves"


def test_failed_cells_begin_afresh_when_that_is_asked_for(tmp_path, estimator_file):
    sweep = Sweep(TINY, (f"broken={estimator_file}:Broken",), (0,))
    sweep_here(sweep, tmp_path / "sweep")
    estimator_file.write_text(ESTIMATOR_FILE.replace("raise", "return super().forward(problem, generator)  # raise"))
    # As in another process.
    sys.modules.pop(ESTIMATORS.pop("broken").__module__)
    with pytest.raises(ValueError, match="or try failed cells again with --retry-failed"):
        sweep_here(sweep, tmp_path / "sweep")
    statuses, _ = sweep_here(sweep, tmp_path / "sweep", retry_failed=True)
    assert statuses == {"broken-0": "finished"}
    assert not (tmp_path / "sweep" / "broken-0" / FAILED_FILE).exists()
    assert sweep_here(sweep, tmp_path / "sweep")[1] == []


MACHINE_FAULTS = [
    OSError(28, "No space left on device"),
    MemoryError(),
    RuntimeError("can't start new thread"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: no CUDA-capable device is detected"),
    ImportError("libmpi.so.40: failed to map segment from shared object"),
    ImportError("libgomp.so.1: cannot open shared object file: No such file or directory"),
    OpenGLError("the process that draws with OpenGL ended (exit code -9)"),
]


@pytest.mark.parametrize("error", MACHINE_FAULTS, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_the_machines_faults_stop_the_sweep_and_are_tried_again(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        try:
            raise error
        except type(error) as cause:
            raise ValueError("what came of it") from cause

    sweep = Sweep(TINY, ("exact", "nvil"), (0,))
    for attribute in ("train", "start"):
        with monkeypatch.context() as patch:
            patch.setattr(TrainingRun, attribute, fail)
            with pytest.raises(OSError, match=r"this machine cannot go on .* mend that, and give"):
                sweep_here(sweep, tmp_path / attribute)
        job = Job(tmp_path / attribute / "exact-0", TINY)
        assert job.status == "unfinished"
        assert job.failure == "ValueError: what came of it"
        assert Job(tmp_path / attribute / "nvil-0", TINY).status == "waiting", "the sweep has stopped"
    statuses, trained = sweep_here(sweep, tmp_path / "train")
    assert statuses == {"exact-0": "finished", "nvil-0": "finished"}
    assert trained == ["exact-0", "nvil-0"]
    assert not (tmp_path / "train" / "exact-0" / FAILED_FILE).exists()


def test_the_machines_fault_is_not_laid_on_an_estimator_that_cannot_be_made(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("air_agents.estimator_benchmark.sweep.Trainer", fail)
    with pytest.raises(OSError, match=r"this machine cannot go on \(RuntimeError: can't start new thread\)"):
        sweep_here(Sweep(TINY, ("exact",), (0,)), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def lose(trainer):
    """A probe under which a worker cannot tell what ended it."""
    os.kill(os.getpid(), signal.SIGKILL)


def lack(trainer):
    """A probe for which the machine has no memory."""
    raise MemoryError("a petabyte")


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (lose, "its process ended with SIGKILL, as where memory is short"),
        (lack, "MemoryError: a petabyte"),
    ],
)
def test_a_worker_that_the_machine_stops_stops_the_sweep_with_the_reason(tmp_path, probe, reason):
    sweep = Sweep(TINY, ("exact",), (0, 1), probe=probe)
    with pytest.raises(OSError, match=rf"exact-0 was stopped by the machine, .*: {reason}.*; see .*jobs/exact-0\."):
        run_sweep(sweep, tmp_path, LocalCluster(tmp_path), workers=1)
    assert Job(tmp_path / "exact-0", TINY).status == "unfinished"
    assert Job(tmp_path / "exact-1", TINY).status == "waiting"
    assert sweep_here(replace(sweep, probe=None), tmp_path)[0] == {"exact-0": "finished", "exact-1": "finished"}


# Coordinator and workers


class Slow(Cluster):
    """Finishes the oldest job whenever it is asked."""

    poll_seconds = 0.0

    def __init__(self, directory: Path) -> None:
        self.jobs: list[str] = []
        self.most, self.stopped, self.closed = 0, False, False

    def submit(self, job: Job) -> None:
        self.jobs.append(job.name)
        self.most = max(self.most, len(self.jobs))

    def running(self) -> set[str]:
        self.jobs = self.jobs[1:]
        return set(self.jobs)

    def stop(self) -> None:
        self.stopped = True

    def __exit__(self, *_: object) -> None:
        self.closed = True


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (3, 3), (None, 6)])
def test_no_more_cells_are_trained_at_a_time_than_there_are_workers(tmp_path, workers, most):
    slow, ended = Slow(tmp_path), []
    cells = run_sweep(Sweep(TINY, ("exact", "nvil"), (0, 1, 2)), tmp_path, slow, workers=workers, progress=ended.append)
    assert slow.most == most
    assert ended == cells
    assert not slow.stopped
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_sweep(Sweep(TINY, ("exact",), (0,)), tmp_path, slow, workers=0)


def test_an_interrupted_coordinator_stops_its_workers_and_waits_for_them(tmp_path):
    slow = Slow(tmp_path)

    def interrupt(cell):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(Sweep(TINY, ("exact", "nvil"), (0, 1, 2)), tmp_path, slow, progress=interrupt)
    assert slow.stopped
    assert slow.closed
    assert slow.jobs == []
    assert not is_held(tmp_path / ".lock")


def long_job(directory: Path, probe: Probe | None = None) -> Job:
    return Job(directory / "exact-0", replace(TINY, estimator="exact", max_steps=100_000), probe=probe)


def test_a_worker_saves_when_it_is_terminated(tmp_path):
    def terminate(trainer):
        if trainer.iteration == 4:
            signal.raise_signal(signal.SIGTERM)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    train_job(long_job(tmp_path, terminate))
    assert long_job(tmp_path).status == "unfinished"
    assert TrainingRun.resume(tmp_path / "exact-0").trainer.iteration == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_workers_do_not_get_the_signals_of_the_terminal():
    code = """if True:
        import os, signal, time
        from multiprocessing import get_context, resource_tracker
        from air_agents.jobs.cluster import signals_kept
        for number in (signal.SIGINT, signal.SIGHUP):
            with signals_kept():
                worker = get_context("spawn").Process(target=signal.raise_signal, args=(number,))
                worker.start()
            worker.join()
            assert worker.exitcode == 0, number
            # Nor does the process that Python starts beside them.
            os.kill(tracker := resource_tracker._resource_tracker._pid, number)
            time.sleep(0.2)
            assert os.waitpid(tracker, os.WNOHANG) == (0, 0), number
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_worker_saves_and_leaves_when_its_coordinator_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_SECONDS_BETWEEN_LOOKS", 0.01)
    lock = FileLock(tmp_path / "coordinator.lock")
    lock.acquire()

    def leave(trainer):
        if trainer.iteration == 4:
            lock.release()
        return {}

    train_job(long_job(tmp_path, leave), tmp_path / "coordinator.lock")
    assert long_job(tmp_path).status == "unfinished"
    assert TrainingRun.resume(tmp_path / "exact-0").trainer.iteration >= 4


def test_a_worker_that_hangs_is_ended(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(worker, "_SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(worker, "_SECONDS_TO_STOP", 0.01)
    monkeypatch.setattr(os, "_exit", ended.append)
    with worker.stop_request(tmp_path / "nobody holds this"):
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended == [1]


def test_a_job_is_not_trained_by_two_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "_SECONDS_BETWEEN_TRIES", 0.0)
    job, asked = long_job(tmp_path), iter([False, False, True])
    job.notes.mkdir(parents=True)
    with FileLock(job.notes / "lock"):
        job.train(lambda: next(asked))
    assert list(asked) == [], "it waits until it is interrupted"
    assert job.status == "waiting"


KILLED = """
import json, os, signal, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from air_agents.jobs.cluster import LocalCluster
from air_agents.estimator_benchmark.sweep import Sweep, run_sweep
from air_agents.training.run import TrainingRun
from tiny import RECIPE

directory, found = Path(sys.argv[1]), []
sys.path.insert(0, str(directory.parent))
import slow
cell = directory / "nvil-0"
sweep = Sweep(replace(RECIPE, max_steps=120, evaluate_every=5), ("nvil",), (0,), probe=slow.probe)

def workers():
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"SWEEP={directory}".encode() in (path / "environ").read_bytes()
            command = (path / "cmdline").read_text()
        except OSError:
            continue
        if ours and "multiprocessing" in command and "resource_tracker" not in command:
            processes.append(command)
    return processes

def wait_for(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)

for how in (signal.SIGTERM, signal.SIGKILL):
    rows = lambda: (cell / "metrics.csv").exists() and len((cell / "metrics.csv").read_text().splitlines())
    child, before = os.fork(), rows()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            run_sweep(sweep, directory, LocalCluster(directory))
        except KeyboardInterrupt:
            os._exit(3)
        os._exit(0)
    wait_for(lambda: rows() and rows() > before)
    os.kill(child, how)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = len(workers())
    wait_for(lambda: not workers())
    found.append([status, left, TrainingRun.resume(cell).trainer.iteration])
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_sweep_leaves_no_process_and_goes_on_to_the_same_numbers(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(ROOT / "tests")]
    (tmp_path / "slow.py").write_text("import time\n\ndef probe(trainer):\n    time.sleep(0.15)\n    return {}\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SWEEP": str(tmp_path / "killed")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    (terminated, left, reached), (killed, _, reached_later) = json.loads(result.stdout.splitlines()[-1])
    assert (terminated, left) == (3, 0), "the coordinator waits for its workers"
    assert killed == -signal.SIGKILL
    assert 0 < reached < reached_later < 120
    sweep = Sweep(replace(RECIPE, max_steps=120, evaluate_every=5), ("nvil",), (0,))
    for name in ("killed", "whole"):
        assert sweep_here(sweep, tmp_path / name)[0] == {"nvil-0": "finished"}
    rows = [
        [{**row, "minutes": None} for row in read_rows(tmp_path / name / "nvil-0" / "metrics.csv")]
        for name in ("killed", "whole")
    ]
    assert rows[0] == rows[1]
    agents = [dict(load_agent(tmp_path / name / "nvil-0").state_dict()) for name in ("killed", "whole")]
    assert_equal(agents[0], agents[1])


def test_the_command_trains_in_processes_and_tells_what_failed(tmp_path, estimator_file, monkeypatch, air_env_command):
    monkeypatch.setitem(RECIPES, "tiny", RECIPE)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    train = ("train", "tiny", "--estimators", "mine=my estimators.py:Mine", "broken=my estimators.py:Broken",
             "--seeds", "0", "--max-steps", "4", "--evaluate-every", "2", "--exploration-steps", "0",
             "--output-dir", "sweep")  # fmt: skip
    status, out, _ = air_env_command("benchmark-estimators", *train)
    assert status == 1
    assert "broken-0 crashed: ZeroDivisionError: so it is" in out
    (log,) = (tmp_path / "sweep" / "jobs" / "broken-0").glob("*.log")
    assert "broken-0 failed: so it is" in log.read_text()
    assert [line.split()[:5] for line in out.splitlines() if line.startswith(("mine ", "broken "))] == [
        ["mine", "1", "0", "0", "0"],
        ["broken", "0", "0", "1", "0"],
    ]
    assert [row["iteration"] for row in read_rows(tmp_path / "sweep" / "mine-0" / "metrics.csv")] == [2, 4]
    assert {"likelihoods", "added_variance"} <= read_rows(tmp_path / "sweep" / "mine-0" / "metrics.csv")[0].keys()
    recipe = read_record(tmp_path / "sweep").full_recipe()
    assert (recipe.max_steps, recipe.exploration_steps, recipe.evaluate_every) == (4, 0, 2)
    status, _, err = air_env_command("benchmark-estimators", *train, "--batch-size", "4")
    assert status == 1
    assert "error: sweep holds a sweep with other settings: batch_size" in err
    assert signal.getsignal(signal.SIGTERM) is before
