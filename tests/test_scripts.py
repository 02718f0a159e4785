"""`air-env` and `air-env train`: a run from the command line, with any setting, resumed, interrupted, refused."""

import csv
import itertools
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from tiny import RECIPE, assert_equal
from torch.optim.optimizer import register_optimizer_step_post_hook

from air_agents import load_agent
from air_agents.commands import train as train_command
from air_agents.commands.main import COMMANDS
from air_agents.comparisons import COMPARISONS
from air_agents.estimators import ESTIMATORS
from air_agents.training import trainer
from air_agents.training.checkpoints import load_recipe
from air_agents.training.files import read_json
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun
from air_agents.training.serialisation import to_json
from air_env.scenes import SCENES

SCRIPTS = Path(__file__).parents[1] / "scripts"
OWN = '''
from dataclasses import replace
from air_agents.estimators.score_function import NVIL
from air_agents.training.recipes import RECIPES
from air_env.scenes import digits

class Mine(NVIL):
    """An estimator."""

def small(data_dir=None, counts: tuple[int, ...] = (0, 1), bright: bool = True):
    return digits(counts=counts, image_size=12, object_size=(4, 6))

my_recipe = replace(RECIPES["tiny"], scene_options={}, scene=f"{__file__}:small")
'''


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A tiny recipe, evaluated often and on few scenes, in an empty working directory."""
    few = {"num_validation": 16, "num_final": 16, "num_pictured": 2}
    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPE, max_steps=4, evaluate_every=2, **few))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def train(air_env_command) -> Callable[..., str]:
    """Trains; returns what was printed."""

    def call(*arguments: object) -> str:
        status, out, err = air_env_command("train", *arguments)
        assert status == 0, err
        return out

    return call


@pytest.fixture
def refused(air_env_command) -> Callable[..., str]:
    """Trains in vain; returns the error."""

    def call(*arguments: object) -> str:
        status, out, err = air_env_command("train", *arguments)
        assert (status, out) == (1, "")
        (line,) = (line for line in err.splitlines() if line.startswith("error: "))
        return line.removeprefix("error: ")

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


def forget_files() -> None:
    """Forgets what was registered from files, as another process does not know it."""
    for registry in (RECIPES, ESTIMATORS, SCENES):
        for name in [name for name in registry if ".py:" in name]:
            del registry[name]
    for name in [name for name in sys.modules if name.startswith("_air_env_own_")]:
        del sys.modules[name]


def files(directory: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


# The entry point


def test_every_command_answers_help_without_torch_and_without_extras():
    code = f"""if True:
        import sys
        for extra in ("stable_baselines3", "submitit", "moviepy", "imageio_ffmpeg", "pyrender"):
            sys.modules[extra] = None
        from air_agents.commands.main import main
        for name in {list(COMMANDS)}:
            try:
                main([name, "--help"])
            except SystemExit as exit_:
                assert not exit_.code
            assert "torch" not in sys.modules, name
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for name in COMMANDS:
        # Examples are lines of their own.
        assert f"\n    $ air-env {name}" in result.stdout


def test_the_entry_point_lists_its_commands_and_refuses_others(air_env_command):
    for arguments in ([], ["--help"]):
        status, out, _ = air_env_command(*arguments)
        assert status == 0
        assert all(f"    {name} " in out for name in COMMANDS)
    status, _, err = air_env_command("trian")
    assert (status, err) == (2, f"error: command 'trian' is unknown; choose one of {', '.join(COMMANDS)}\n")


def test_scripts_are_the_commands(monkeypatch):
    ran = []
    monkeypatch.setattr("air_agents.commands.main.main", lambda: ran.append(sys.argv[1:]))
    for script in sorted(SCRIPTS.glob("*.py")):
        monkeypatch.setattr(sys, "argv", [str(script), "--help"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(script), run_name="__main__")
    assert sorted(ran) == sorted([name, "--help"] for name in COMMANDS)


def test_a_script_runs_as_people_run_it():
    result = subprocess.run([sys.executable, SCRIPTS / "train_agent.py", "--list"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    names = result.stdout.replace(":", ",").replace("\n", ",").split(",")
    assert {*RECIPES, *COMPARISONS, *ESTIMATORS, *SCENES} - {"tiny"} <= {name.strip() for name in names}


# Settings


def parsed(*arguments: object):
    """The settings that the command line means."""
    _, settings = train_command.COMMAND.parse([str(argument) for argument in arguments])
    return settings


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("multi_mnist --seed 2 --estimator exact --max-steps 7", {"seed": 2, "estimator": "exact", "max_steps": 7}),
        ("--seed 2 multi_mnist", {"seed": 2}),
        ("multi_mnist --model.num-steps 5 --model.likelihood laplace --scene-options.counts 0 1 2 3",
         {"model.num_steps": 5, "model.likelihood": "laplace", "scene_options": {"counts": (0, 1, 2, 3)}}),
        ("multi_mnist --model.renderer.hidden 9 --model.count-prior.parameter 0.1 --agent.core dair",
         {"model.renderer.hidden": 9, "model.count_prior.parameter": 0.1, "agent.core": "dair"}),
        ("multi_mnist --scene-options.counts 0 1 2 --scene-options.object-size 4 5.5 --scene-options.overlap any",
         {"scene_options": {"object_size": (4, 5.5), "overlap": "any"}}),
        ("digits --scene-options.difficulty close --scene-options.overlap none --scene-options.centre-distance 9 19",
         {"scene_options": {"difficulty": "close", "overlap": "none", "centre_distance": (9, 19)}}),
        ("tabletop3d --agent.camera-hidden 7 --model.renderer.camera-sd 0.3 --scene-options.turn 0.1 --no-compile",
         {"agent.camera_hidden": 7, "model.renderer.camera_sd": 0.3, "compile": False,
          "scene_options": {"renderer": "raycast", "turn": 0.1}}),
        ("objects3d --scene tabletop3d --exploration.presence 0.2",
         {"scene": "tabletop3d", "exploration.presence": 0.2, "scene_options": {"renderer": "raycast"}}),
        ("objects3d --scene digits", {"scene": "digits", "scene_options": {}}),
        ("draw --learning-rate 0.5 --scene-options.counts 2",
         {"learning_rate": 0.5, "scene_options": {"counts": (2,)}}),
    ],
)  # fmt: skip
def test_every_setting_can_be_changed_and_the_others_stay(arguments, changes):
    words = arguments.split()
    name = next(word for word in words if word in RECIPES or word in COMPARISONS)
    expected = COMPARISONS[name] if name in COMPARISONS else RECIPES[name]

    def change(settings, path: list[str], value):
        inner = value if len(path) == 1 else change(getattr(settings, path[0]), path[1:], value)
        return replace(settings, **{path[0]: inner})

    for path, value in changes.items():
        expected = change(expected, path.split("."), value)
    assert parsed(*words) == expected


def test_every_recipe_is_its_own_default():
    for name in [*RECIPES, *COMPARISONS]:
        settings = parsed(name)
        assert settings == (COMPARISONS[name] if name in COMPARISONS else RECIPES[name])


@pytest.mark.parametrize("name", ["tabletop3d", "sprites", "cnn_sum"])
def test_help_of_a_recipe_names_every_setting(air_env_command, name):
    status, out, _ = air_env_command("train", name, "--help")
    assert status == 0

    def flags(settings, prefix: str) -> Iterator[str]:
        for f in fields(settings):
            value, flag = getattr(settings, f.name), f"{prefix}{f.name.replace('_', '-')}"
            yield from flags(value, f"{flag}.") if is_dataclass(value) else [flag]

    settings = COMPARISONS[name] if name in COMPARISONS else RECIPES[name]
    for flag in flags(settings, "--"):
        assert flag in out
    assert "--scene-options.counts" in out


def test_what_is_in_a_file_of_ones_own_is_found_and_found_again_from_elsewhere(train, air_env_command, monkeypatch):
    Path("own.py").write_text(OWN)
    out = train("own.py:my_recipe", "--estimator", "mine=own.py:Mine", "--scene-options.counts", 1)
    directory = Path("runs/my_recipe-mine-0").resolve()
    assert "my_recipe-mine-0" in out
    config = json.loads((directory / "config.json").read_text())
    assert config["estimator"] == f"mine={Path('own.py').resolve()}:Mine"
    assert config["scene_options"] == {"counts": [1]}
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    train("--resume", directory, "--max-steps", 6)
    options = ("--num-scenes", 4, "--num-samples", 1, "--json")
    status, out, _ = air_env_command("evaluate", directory, *options)
    assert (status, json.loads(out)["scene"]) == (0, f"{directory.parents[1] / 'own.py'}:small")
    forget_files()
    Path("../own.py").unlink()
    status, _, err = air_env_command("evaluate", directory, *options)
    assert status == 1
    assert f"there is no Python file {directory.parents[1] / 'own.py'}" in err
    assert "path.py:my_scene" in err
    forget_files()


def test_a_config_repeats_a_run(train):
    train("tiny", "--output-dir", "first", "--seed", 3, "--no-evaluation")
    train("--config", "first/config.json", "--output-dir", "again", "--no-evaluation")
    assert (Path("first") / "config.json").read_text() == (Path("again") / "config.json").read_text()
    assert_equal(dict(load_agent("first").state_dict()), dict(load_agent("again").state_dict()))


def test_older_configs_that_name_overlap_otherwise_are_read(tmp_path):
    config = to_json(RECIPES["digits"]) | {"scene_options": {"overlap": True, "object_size": [8, 12]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = parsed("--config", tmp_path / "config.json")
    assert settings.scene_options == {"overlap": True, "object_size": (8, 12)}
    assert settings.make_scene(None).arrangement.overlap == "any"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "--model.likelihood", "cauchy"], "likelihood 'cauchy' is unknown; choose one of gaussian"),
        (["tiny", "--model.num-steps", "0"], "num_steps must be a whole number from 1 to 1,000, got 0"),
        (["tiny", "--scene", "digitz"], "scene 'digitz' is unknown; choose one of digits"),
        (["tiny", "--scene-options.counts", "-1"], "counts must be one or more numbers of objects"),
        (["digitz"], "recipe 'digitz' is unknown; choose one of digits, multi_mnist"),
        (["tiny", "--estimator", "nvill"], "estimator 'nvill' is unknown; choose one of half_critic"),
        (["missing.py:X"], "there is no Python file"),
        (["multi_mnist", "--data-dir", "nowhere"], "nowhere/mnist/"),
        (["tiny", "--output-dir", "taken"], "taken already holds something; "),
        (["tiny", "--output-dir", "file/run"], "could not make the run directory file/run"),
        (["tiny", "--output-dir", "."], ". already holds something"),
        (["tiny", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["tiny", "--device", "meta"], "device 'meta' cannot be used"),
        (["--resume", "nowhere"], "nowhere holds no run to resume"),
        (["--resume", "taken"], "taken holds no run to resume"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["tiny", "--max-steps", "0"], "max_steps must be positive, got 0"),
        (["tiny", "--max-minutes", "-1"], "max_minutes must be positive, got -1"),
        (["tiny", "--batch-size", "65"], "batch_size 65 exceeds the 64 training images"),
        (["tiny", "--learning-rate", "nan"], "learning_rate must be positive, got nan"),
        (["tiny", "--learning-rate", "1e30"], "training diverged; lower the learning rate"),
        (["tiny", "--seed", "-1"], "seed must be at least 0, got -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_with_a_message_and_without_a_traceback(refused, arguments, message):
    Path("taken").mkdir()
    Path("taken", "notes.txt").write_text("mine")
    Path("file").write_text("mine")
    assert message in refused(*arguments)
    if "diverged" not in message:
        assert not Path("runs").exists()
    assert [path.name for path in Path("taken").iterdir()] == ["notes.txt"]


def test_unknown_arguments_are_answered_with_those_that_are_like_them(air_env_command):
    for arguments, meant in [
        (["--seeed", 1], "--seed"),
        (["tiny", "--model.likelihod", "laplace"], "--model.likelihood"),
        (["sprites", "--scene-options.count", 1], "--scene-options.counts"),
    ]:
        status, _, err = air_env_command("train", *arguments)
        assert status == 2
        assert meant in err


# Runs


def test_a_run_from_beginning_to_end(train):
    out = train("tiny", "--max-steps", 6, "--estimator", "nvil", "--seed", 3, "--learning-rate", 0.002)
    directory = Path("runs/tiny-nvil-3")
    recipe = load_recipe(directory)
    assert (recipe.max_steps, recipe.estimator, recipe.seed, recipe.learning_rate) == (6, "nvil", 3, 0.002)
    for name in (
        "count_accuracy",
        "box_iou",
        "elbo",
        str(directory),
        "minutes",
        *(p.name for p in directory.iterdir()),
    ):
        assert name in out
    metrics = strict_json((directory / "evaluation.json").read_text())
    assert next(iter(metrics)) == "count_accuracy"
    with (directory / "metrics.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert load_agent(directory).model.config == RECIPE.model


def test_the_same_command_gives_the_same_agent(train):
    for name in ("first", "second"):
        train("tiny", "--output-dir", name)
    agents = [dict(load_agent(name).state_dict()) for name in ("first", "second")]
    assert_equal(agents[0], agents[1])
    metrics = [read_json(Path(name, "evaluation.json")) for name in ("first", "second")]
    assert metrics[0] == pytest.approx(metrics[1] | {"minutes": metrics[0].get("minutes")}, abs=0, nan_ok=True)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_says_how_to_go_on_and_ends_the_same(number, expected, train, air_env_command):
    train("tiny", "--output-dir", "whole")
    before = signal.getsignal(number)
    # The weights have changed, the rest of the state has not.
    with after_step(3, lambda: signal.raise_signal(number)):
        status, _, err = air_env_command("train", "tiny", "--output-dir", "parts", "--data-dir", "my data")
    assert status == expected
    assert err.endswith("\nstopped; continue: air-env train --resume parts --data-dir 'my data'\n")
    assert TrainingRun.resume(Path("parts")).trainer.iteration == 3
    assert signal.getsignal(number) is before
    train("--resume", "parts")
    agents = [dict(load_agent(name).state_dict()) for name in ("whole", "parts")]
    assert_equal(agents[1], agents[0])


def test_an_interrupted_measurement_says_how_to_go_on(train, air_env_command, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        status, _, err = air_env_command("train", "tiny", "--output-dir", "run")
    assert status == 143
    assert err.endswith("\nstopped; continue: air-env train --resume run\n")
    train("--resume", "run")
    assert Path("run", "evaluation.json").is_file()


def test_an_ignored_interruption_stays_ignored(train):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with after_step(1, lambda: signal.raise_signal(signal.SIGINT)):
            train("tiny", "--output-dir", "run")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert Path("run", "evaluation.json").is_file()


def test_a_second_interruption_does_not_wait(air_env_command):
    def interrupt_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with after_step(3, interrupt_twice):
        status, _, err = air_env_command("train", "tiny", "--output-dir", "run")
    assert status == 130
    assert "stopped at once; what was saved last is whole" in err
    assert TrainingRun.resume(Path("run")).trainer.iteration == 0, "nothing half-finished is saved"


def test_what_a_resumed_run_cannot_change_is_refused(train, refused):
    train("tiny", "--output-dir", "run", "--no-evaluation")
    before = files("run")
    for arguments, names in [
        (["tiny"], "RECIPE"),
        (["--seed", "0"], "--seed"),
        (["--estimator", "nvil", "--model.num-steps", "2"], "--estimator, --model.num-steps"),
        (["--batch-size", "4", "--output-dir", "b"], "--output-dir, --batch-size"),
    ]:
        assert refused(*arguments, "--resume", "run") == (
            f"--resume continues a run with its own settings, and cannot change {names}: leave it out"
        )
        assert files("run") == before


def test_a_finished_run_is_extended_and_is_not_measured_again(train, refused, monkeypatch):
    first = train("tiny", "--output-dir", "run")
    before = files("run")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", lambda *_, **__: pytest.fail("it was measured"))
        again = train("--resume", "run", "--device", "cpu", "--data-dir", ".")
    assert again.splitlines()[2:] == first.splitlines()[2:]
    assert files("run").keys() - before.keys() <= set(Path("run/tensorboard").iterdir())
    train("--resume", "run", "--max-steps", 6, "--no-evaluation")
    assert (TrainingRun.resume(Path("run")).trainer.iteration, load_recipe("run").max_steps) == (6, 6)
    assert "max_steps 5 is less than the 6 iterations" in refused("--resume", "run", "--max-steps", 5)


def test_minutes_end_a_run(train):
    train("tiny", "--max-steps", 1_000_000, "--max-minutes", 0.005, "--output-dir", "run")
    resumed = TrainingRun.resume(Path("run"))
    assert resumed.max_minutes == 0.005
    assert 0 < resumed.trainer.iteration < 1_000_000
    assert resumed.minutes >= 0.005
    train("--resume", "run", "--max-minutes", 0.006)
    assert TrainingRun.resume(Path("run")).max_minutes == 0.006


def test_a_second_run_of_the_same_command_is_refused_with_the_remedy(train, refused):
    train("tiny", "--no-evaluation")
    assert not Path("runs/tiny-half_critic-0/evaluation.json").exists()
    assert "runs/tiny-half_critic-0 already holds a run; continue it with --resume" in refused("tiny")


def test_figures_that_cannot_be_written_are_a_clear_error(air_env_command, monkeypatch):
    write_bytes = Path.write_bytes

    def full(self, *arguments, **options):
        if "evaluation" in self.name:
            raise OSError(28, "No space left on device")
        return write_bytes(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, err = air_env_command("train", "tiny")
    assert status == 1
    assert "No space left on device" in err.splitlines()[-1]


# Stable-Baselines3

FEW = ("--num-envs", 16, "--num-train", 32, "--num-validation", 16, "--num-final", 16)


@pytest.fixture
def sb3():
    pytest.importorskip("stable_baselines3")


def test_a_policy_is_trained_from_beginning_to_end_and_further(sb3, air_env_command):
    command = ("train-sb3", "--total-steps", 600, *FEW, "--scene-options.counts", 1)
    status, out, err = air_env_command(*command)
    assert status == 0, err
    directory = Path("runs/sprites-ppo-0")
    metrics = strict_json((directory / "evaluation.json").read_text())
    assert next(iter(metrics)) == "count_accuracy"
    assert metrics["return_random"] < metrics["return_empty"]
    for name in (
        "identity_accuracy",
        "return_empty",
        str(directory),
        "minutes",
        *(p.name for p in directory.iterdir()),
    ):
        assert name in out
    assert len((directory / "metrics.csv").read_text().splitlines()) > 2
    assert json.loads((directory / "config.json").read_text())["scene_options"] == {"counts": [1]}
    status, _, err = air_env_command(*command)
    assert status == 1
    assert "error: runs/sprites-ppo-0 already holds a run; continue it with --resume" in err
    for name in ("train-sb3", "train"):
        status, _, err = air_env_command(name, "--resume", directory, "--max-steps", 1000, "--no-evaluation")
        assert status == 0, err
    assert TrainingRun.resume(directory).trainer.iteration >= 1000


def test_a_policy_is_refused_what_makes_no_sense(sb3, air_env_command):
    for arguments, message in [
        ("--algorithm dqn", "algorithm 'dqn' is unknown; choose one of ppo, a2c, sac"),
        ("--scene sprite", "scene 'sprite' is unknown; choose one of"),
        ("--action-mode boxes", "action_mode 'boxes' is unknown; choose one of"),
        ("--device abacus", "device 'abacus' cannot be used"),
        ("--max-minutes 0 --num-train 8", "max_minutes must be positive, got 0"),
        ("--output-dir . --num-train 8", ". is the folder you are in; name one to be made in it with --output-dir"),
        ("--resume x --seed 7 --learning-rate 9", "cannot change --learning-rate, --seed: leave it out"),
        ("--resume nowhere", "nowhere holds no run to resume"),
    ]:
        status, out, err = air_env_command("train-sb3", *arguments.split())
        assert (status, out) == (1, "")
        assert message in err
        assert not list(Path().iterdir())


def test_without_the_extra_a_hint_comes_before_any_work(air_env_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    status, _, err = air_env_command("train-sb3", "--output-dir", "run")
    assert status == 1
    assert err.startswith("error: stable_baselines3 is not installed; ")
    assert 'pip install "air-env[sb3]"' in err
    assert 'pip install -e ".[sb3]"' in err
