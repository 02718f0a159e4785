"""`scripts/train_agent.py`: a run from the command line, resumed, interrupted, refused."""

import csv
import importlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import RECIPE, assert_equal
from torch.optim.optimizer import register_optimizer_step_post_hook

from air_agents import load_agent
from air_agents.estimators import ESTIMATORS

from air_agents.training.checkpoints import load_recipe
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_agent.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A tiny recipe, evaluated often and on few scenes; the script's global settings are undone."""
    for name, value in {"_NUM_TEST": 16, "_NUM_FINAL": 16, "_NUM_PICTURED": 2}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPE, max_steps=4, evaluate_every=2))
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def train_agent(monkeypatch, tmp_path):
    """Runs the script in an empty working directory."""
    module = importlib.import_module("air_agents.commands.train")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_agent.py", *map(str, arguments)])
        module.main()

    return call


@contextmanager
def after_step(number: int, do: Callable[[], object]) -> Iterator[None]:
    """Does something inside a step of the optimizer, when it has changed the weights."""
    steps = itertools.count(1)
    handle = register_optimizer_step_post_hook(lambda *_: do() if next(steps) == number else None)
    try:
        yield
    finally:
        handle.remove()


def strict_json(text: str) -> dict[str, float | None]:
    """JSON as the standard has it, without NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_help_runs_as_people_run_it_and_names_every_choice():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    for option in ("recipe", "estimator", "seed", "data-dir", "output-dir", "resume", "max-minutes", "max-steps",
                   "device"):  # fmt: skip
        assert option in result.stdout.lower(), option
    for name in (*ESTIMATORS, "digits", "multi_mnist"):
        assert name in result.stdout


def test_a_run_from_beginning_to_end(train_agent, capsys):
    train_agent("tiny", "--max-steps", 6, "--estimator", "nvil", "--seed", 3, "--learning-rate", 0.002)
    directory = Path("runs/tiny-nvil-3")
    recipe = load_recipe(directory)
    assert (recipe.max_steps, recipe.estimator, recipe.seed, recipe.learning_rate) == (6, "nvil", 3, 0.002)
    output = capsys.readouterr().out
    for name in ("count_accuracy", "box_iou", "elbo", str(directory), "minutes"):
        assert name in output
    metrics = strict_json((directory / "evaluation.json").read_text())
    assert next(iter(metrics)) == "count_accuracy"
    with (directory / "metrics.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert load_agent(directory).model.config == RECIPE.model


def test_the_same_command_gives_the_same_agent(train_agent):
    for name in ("first", "second"):
        train_agent("tiny", "--output-dir", name)
    agents = [dict(load_agent(name).state_dict()) for name in ("first", "second")]
    assert_equal(agents[0], agents[1])
    metrics = [json.loads(Path(name, "evaluation.json").read_text()) for name in ("first", "second")]
    assert metrics[0] == pytest.approx(metrics[1] | {"minutes": metrics[0].get("minutes")}, abs=0, nan_ok=True)


def test_an_interrupted_run_says_how_to_go_on_and_ends_the_same(train_agent, monkeypatch, capsys):
    train_agent("tiny", "--output-dir", "whole")
    # The weights have changed, the rest of the state has not.
    interruption = after_step(3, lambda: signal.raise_signal(signal.SIGINT))
    with interruption, pytest.raises(SystemExit, match=r"--resume parts --data-dir 'my data'$") as caught:
        train_agent("tiny", "--output-dir", "parts", "--data-dir", "my data")
    assert isinstance(caught.value.code, str)
    assert TrainingRun.resume(Path("parts")).trainer.iteration == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train_agent("--resume", "parts")
    agents = [dict(load_agent(name).state_dict()) for name in ("whole", "parts")]
    assert_equal(agents[1], agents[0])


def test_an_ignored_interruption_stays_ignored(train_agent):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with after_step(1, lambda: signal.raise_signal(signal.SIGINT)):
            train_agent("tiny", "--output-dir", "run")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert Path("run", "evaluation.json").is_file()


def test_a_second_interruption_does_not_wait(train_agent):
    def interrupt_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with after_step(3, interrupt_twice), pytest.raises(SystemExit, match=r"stopped at once; .*--resume"):
        train_agent("tiny", "--output-dir", "run")
    assert TrainingRun.resume(Path("run")).trainer.iteration == 0, "nothing half-finished is saved"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["tiny"], "RECIPE"),
        (["--seed", "0"], "--seed"),
        (["--estimator", "nvil", "--max-steps", "9"], "--estimator, --max-steps"),
        (["--learning-rate", "0.1", "--batch-size", "4", "--output-dir", "b"],
         "--learning-rate, --batch-size, --output-dir"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_resumed_run_cannot_change_is_refused(train_agent, arguments, names):
    train_agent("tiny", "--output-dir", "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match=f"^error: --resume .* cannot change {names}: leave it out"):
        train_agent(*arguments, "--resume", "run")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    train_agent("--resume", "run", "--device", "cpu", "--data-dir", ".", "--max-minutes", 5)
    assert TrainingRun.resume(Path("run")).max_minutes == 5


def test_minutes_end_a_run(train_agent):
    train_agent("tiny", "--max-steps", 1_000_000, "--max-minutes", 0.005, "--output-dir", "run")
    resumed = TrainingRun.resume(Path("run"))
    assert resumed.max_minutes == 0.005
    assert 0 < resumed.trainer.iteration < 1_000_000
    assert resumed.minutes >= 0.005


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digitz"], "recipe 'digitz' is unknown; choose one of digits, multi_mnist"),
        (["tiny", "--estimator", "nvill"], "estimator 'nvill' is unknown; choose one of half_critic"),
        (["multi_mnist", "--data-dir", "nowhere"], "nowhere/mnist/.* does not exist; .*--data-dir"),
        (["tiny", "--output-dir", "taken"], "taken already holds something; .*choose another --output-dir"),
        (["tiny", "--output-dir", "file"], "file already holds something"),
        (["tiny", "--output-dir", "file/run"], "could not make the run directory file/run"),
        (["tiny", "--output-dir", "."], r"\. already holds something"),
        (["tiny", "--device", "abacus"], "device 'abacus' cannot be used .*; try cpu"),
        (["tiny", "--device", "meta"], r"device 'meta' cannot be used \(.{,60}\); try cpu"),
        (["tiny", "--device", "hpu"], r"device 'hpu' cannot be used \(.{,60}\); try cpu"),
        (["tiny", "--device", "vulkan"], r"device 'vulkan' cannot be used \(.{,120}\); try cpu"),
        (["--resume", "nowhere"], "nowhere holds no run to resume"),
        (["--resume", "taken"], "taken holds no run to resume"),
        (["tiny", "--max-steps", "0"], "max_steps must be positive, got 0"),
        (["tiny", "--max-minutes", "0"], "max_minutes must be positive, got 0"),
        (["tiny", "--max-minutes", "-1"], "max_minutes must be positive, got -1"),
        (["tiny", "--batch-size", "65"], "batch_size 65 exceeds the 64 training images"),
        (["tiny", "--learning-rate", "nan"], "learning_rate must be positive, got nan"),
        (["tiny", "--learning-rate", "1e30"], "training diverged; lower the learning rate"),
        (["tiny", "--seed", "-1"], "seed must .*, got -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_with_a_message_and_without_a_traceback(train_agent, arguments, message):
    Path("taken").mkdir()
    Path("taken", "notes.txt").write_text("mine")
    Path("file").write_text("mine")
    with pytest.raises(SystemExit, match=rf"^error: .*{message}") as caught:
        train_agent(*arguments)
    assert "\n" not in str(caught.value.code).rstrip()
    if "diverged" not in message:
        assert not Path("runs").exists()
    assert [path.name for path in Path("taken").iterdir()] == ["notes.txt"]


def test_a_second_run_of_the_same_command_is_refused_with_the_remedy(train_agent):
    train_agent("tiny")
    with pytest.raises(SystemExit, match=r"^error: runs/tiny-half_critic-0 already holds a run; .*--resume"):
        train_agent("tiny")


def test_figures_that_cannot_be_written_are_a_clear_error(train_agent, monkeypatch):
    write_text = Path.write_text

    def full(self, *arguments, **options):
        if "evaluation" in self.name:
            raise OSError(28, "No space left on device")
        return write_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit, match=r"^error: .*No space left on device"):
        train_agent("tiny")


def test_wrong_arguments_are_answered_with_the_usage(train_agent, capsys):
    with pytest.raises(SystemExit) as caught:
        train_agent("--seeed", 1)
    assert caught.value.code == 2
    assert "--seed" in capsys.readouterr().err
