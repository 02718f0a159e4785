"""Files of runs under damage, full disks and other numbers of threads: refused, or exactly what was saved."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from campaign import Campaign, campaign
from test_checkpoints import small_disk
from test_comparisons import RECIPE as COMPARISON
from tiny import RECIPE, assert_equal

from air_agents import load_agent
from air_agents.comparisons import load_comparison
from air_agents.comparisons.training import MODEL_FILE
from air_agents.jobs.job import MACHINE_FILE
from air_agents.training.checkpoints import AGENT_FILE, load_recipe
from air_agents.training.directory import CONFIG_FILE, EVALUATION_FILE, RESUME_FILE, read_checkpoint
from air_agents.training.files import read_json, write_results
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun

pytestmark = pytest.mark.slow
TRIALS = 1_000


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with a bit flipped, without its end, or with random bytes somewhere in it."""
    position, kind = rng.randrange(len(content)), rng.randrange(3)
    if kind == 0:
        return content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]
    if kind == 1:
        return content[:position]
    other = rng.randbytes(min(rng.randrange(1, 65), len(content) - position))
    return content[:position] + other + content[position + len(other) :]


def damage_it(counts: Campaign, path: Path, read: Callable[[], object], seed: int = 0) -> None:
    """Damages a file again and again: it is refused by name, or read as it was."""
    content, wanted, rng = path.read_bytes(), read(), random.Random(seed)
    for trial in range(TRIALS):
        path.write_bytes(damaged(content, rng))
        counts.tried += 1
        try:
            found = read()
        except (ValueError, FileNotFoundError) as error:
            if path.name not in str(error) or "weights_only" in str(error):
                counts.failed.append(f"{trial}: {error}")
        except Exception as error:
            counts.failed.append(f"{trial}: {error!r}")
        else:
            if exact(found) != exact(wanted):
                counts.lost.append(f"{trial}: loaded as something else")
    path.write_bytes(content)
    assert exact(read()) == exact(wanted)


def exact(value: object) -> object:
    """What is equal for equal values only, to the last bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, Mapping):
        return {name: exact(part) for name, part in value.items()}
    return [exact(part) for part in value] if isinstance(value, list | tuple) else repr(value)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "run"
    started = TrainingRun.start(directory, replace(RECIPE, evaluate_every=4))
    started.train()
    started.finish()
    return directory


def checkpoint(directory: Path) -> object:
    return read_checkpoint(directory)[:2]


def test_damaged_agents_are_refused(run):
    def read() -> object:
        agent = load_agent(run)
        return agent.state_dict(), agent.config, agent.model.config, load_recipe(run)

    with campaign("damaged agent.safetensors") as counts:
        damage_it(counts, run / AGENT_FILE, read)


def test_damaged_comparisons_are_refused(tmp_path):
    started = TrainingRun.start(tmp_path / "run", COMPARISON)
    started.train(stop_at=1)
    with campaign("damaged model.safetensors") as counts:
        damage_it(counts, tmp_path / "run" / MODEL_FILE, lambda: load_comparison(tmp_path / "run").state_dict())


def test_damaged_policies_are_refused(tmp_path):
    pytest.importorskip("stable_baselines3")
    from air_agents.sb3 import load_algorithm
    from air_agents.sb3.algorithms import POLICY_FILE
    from air_agents.sb3.settings import make_settings

    few = {"num_train": 8, "num_validation": 4, "num_final": 4, "num_pictured": 1, "num_envs": 2, "max_steps": 16}
    TrainingRun.start(tmp_path / "run", make_settings(**few))
    with campaign("damaged policy.safetensors") as counts:
        path = tmp_path / "run" / POLICY_FILE
        damage_it(counts, path, lambda: load_algorithm(path).policy.state_dict())


@pytest.mark.parametrize("name", [RESUME_FILE, CONFIG_FILE])
def test_damaged_runs_are_refused(run, name):
    with campaign(f"damaged {name}") as counts:
        damage_it(counts, run / name, lambda: checkpoint(run))


def test_damaged_results_are_refused(run, tmp_path):
    with campaign(f"damaged {EVALUATION_FILE}") as counts:
        damage_it(counts, run / EVALUATION_FILE, lambda: read_json(run / EVALUATION_FILE))
    path = tmp_path / "measure-air-0.json"
    write_results(path, {"of": {"weights": "ab12", "case": {"seed": 0}}, "rows": [{"accuracy": 0.25, "kind": "cube"}]})
    with campaign("damaged measured/*.json") as counts:
        damage_it(counts, path, lambda: read_json(path))
    path = tmp_path / MACHINE_FILE
    write_results(path, {"host": "node1", "cpu": "Xeon", "threads": 2})
    with campaign(f"damaged {MACHINE_FILE}") as counts:
        damage_it(counts, path, lambda: read_json(path))


@pytest.mark.parametrize("begun", [1, 2, 3])
def test_resumes_with_other_numbers_of_threads_end_the_same(tmp_path, begun):
    recipe = replace(RECIPES.find("digits"), num_train=128, max_steps=6, num_validation=4, num_final=4, num_pictured=1)
    before = torch.get_num_threads()

    def train(name: str, threads: int, **options: int) -> TrainingRun:
        torch.set_num_threads(threads)
        directory = tmp_path / name
        started = TrainingRun.resume(directory) if directory.exists() else TrainingRun.start(directory, recipe)
        started.train(**options)
        assert torch.get_num_threads() == threads
        return started

    try:
        with campaign(f"resumes of runs begun with {begun} threads") as counts:
            whole = train("whole", begun).trainer.state_dict()
            for threads in (1, 2, 3, 4):
                for stop_at in (1, 3, 5):
                    counts.tried += 1
                    name = f"{threads}-{stop_at}"
                    train(name, begun, stop_at=stop_at)
                    try:
                        assert_equal(train(name, threads).trainer.state_dict(), whole)
                    except AssertionError as error:
                        counts.lost.append(f"{name}: {error}")
    finally:
        torch.set_num_threads(before)


ELSEWHERE = """
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
import torch
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun

def say():
    weights = [part.detach().numpy().tobytes() for part in run.trainer.network.parameters()]
    print(run.trainer.iteration, hashlib.sha256(b"".join(weights)).hexdigest())

torch.set_num_threads(1)
directory, stop_at = Path(sys.argv[1]), int(sys.argv[2])
if directory.exists():
    run = TrainingRun.resume(directory)
else:
    sizes = {"num_train": 128, "max_steps": 6, "num_validation": 4, "num_final": 4, "num_pictured": 1}
    run = TrainingRun.start(directory, replace(RECIPES.find("digits"), **sizes))
say()
run.train(stop_at=stop_at)
say()
"""
PROCESSORS = ("default", "avx2", "avx512")


def test_runs_go_on_with_the_kernels_of_other_processors(tmp_path):
    """They stand for other machines: all that was saved is there; further sums may be rounded otherwise."""

    def train(name: str, processor: str, stop_at: int) -> list[list[str]]:
        command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(tmp_path / name), str(stop_at)]
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": processor}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return [line.split() for line in run.stdout.splitlines()] or [[run.stderr[-300:]]]

    with campaign("resumes with the kernels of other processors") as counts:
        for begun in PROCESSORS:
            saved = train(begun, begun, 3)[-1]
            for resumed in PROCESSORS:
                counts.tried += 1
                shutil.copytree(tmp_path / begun, tmp_path / f"{begun}-{resumed}")
                loaded, *_, finished = train(f"{begun}-{resumed}", resumed, 6)
                if loaded != saved:
                    counts.lost.append(f"{begun}, {resumed}: {saved} became {loaded}")
                if finished[0] != "6":
                    counts.failed.append(f"{begun}, {resumed}: {finished}")


# The thread in which TensorBoard writes ends with the disk, and says so.
QUIET = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@QUIET
def test_full_disks_leave_the_last_checkpoint(run, tmp_path):
    rng, sizes = random.Random(0), [(run / name).stat().st_size for name in (RESUME_FILE, AGENT_FILE)]
    directory = tmp_path / "run"
    recipe = replace(RECIPE, max_steps=10_000, evaluate_every=2, num_validation=4, num_pictured=1)
    TrainingRun.start(directory, recipe)
    with campaign("full disks") as counts:
        for trial in range(100):
            started = TrainingRun.resume(directory)
            saved = started.trainer.iteration
            with small_disk(rng.randrange(1, max(sizes) + 1_000)):
                counts.tried += 1
                try:
                    started.train(stop_at=saved + 2)
                except OSError as error:
                    if "could not write" not in str(error) and error.errno is None:
                        counts.failed.append(f"{trial}: {error!r}")
                except Exception as error:
                    counts.failed.append(f"{trial}: {error!r}")
            try:
                load_agent(directory)
                assert TrainingRun.resume(directory).trainer.iteration in (saved, started.trainer.iteration)
            except (ValueError, OSError, AssertionError) as error:
                counts.lost.append(f"{trial}: {error!r}")
            if left := [path.name for path in directory.rglob(".*")]:
                counts.failed.append(f"{trial}: {left} are left over")


@QUIET
def test_a_full_file_system_leaves_the_last_checkpoint(run, tmp_path):
    disk, recipe = tmp_path / "disk", replace(RECIPE, max_steps=10_000, num_validation=4, num_pictured=1)
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    rng = random.Random(0)
    try:
        TrainingRun.start(disk / "run", recipe)
        with campaign("full file systems") as counts:
            for trial in range(50):
                free = rng.randrange(0, 200_000)
                started = TrainingRun.resume(disk / "run")
                saved = started.trainer.iteration
                (disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free)))
                counts.tried += 1
                try:
                    started.train(stop_at=saved + 1)
                except OSError:
                    pass
                except Exception as error:
                    counts.failed.append(f"{trial}: {error!r}")
                (disk / "ballast").unlink()
                shutil.rmtree(disk / "run" / "tensorboard", ignore_errors=True)
                try:
                    load_agent(disk / "run")
                    assert TrainingRun.resume(disk / "run").trainer.iteration in (saved, saved + 1)
                except (ValueError, OSError, AssertionError) as error:
                    counts.lost.append(f"{trial}: {error!r}")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
