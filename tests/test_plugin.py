"""A package of one's own adds a scene, a renderer, ...: pip installs it, every command uses it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from air_env.registry import Registry

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "plugin"
COMMAND = "import sys; from air_agents.commands.main import main; sys.exit(main())"
QUICK = (
    "--max-steps",
    "4",
    "--evaluate-every",
    "2",
    "--num-train",
    "64",
    "--num-validation",
    "60",
    "--num-final",
    "60",
    "--device",
    "cpu",
)

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The folder that pip installed the package into."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("installed")
    # pip builds where the source is.
    shutil.copytree(PLUGIN, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=120)
    return target


@pytest.fixture(scope="session")
def python(installed, tmp_path_factory) -> Python:
    """Runs Python where the package is installed, in a folder that a session's calls share."""
    folder = tmp_path_factory.mktemp("work")

    def run(*arguments: str, package: Path | None = installed) -> subprocess.CompletedProcess[str]:
        paths = [str(path) for path in (package, os.environ.get("PYTHONPATH")) if path]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def air_env(python) -> Python:
    """Runs `air-env COMMAND ...`."""
    return lambda *arguments, **options: python("-c", COMMAND, *arguments, **options)


@pytest.fixture(scope="session")
def run_directory(air_env) -> Path:
    """A short training by the package's recipe, of its agent by its estimator on its scene."""
    result = air_env("train", "rings", "--output-dir", "trained", *QUICK)
    assert result.returncode == 0, result.stderr
    return Path("trained")


def test_its_parts_pass_the_checks(python):
    result = python("-W", "error", str(PLUGIN / "checks.py"))
    assert result.returncode == 0, result.stderr


NAMES = """
import sys
from air_agents.comparisons import COMPARISON_MODELS, COMPARISONS
from air_agents.estimators import ESTIMATORS
from air_agents.inference import AGENTS
from air_agents.reproduction.studies import STUDIES
from air_agents.training.recipes import RECIPES
from air_env.likelihoods import LIKELIHOODS
from air_env.renderers import RENDERERS
from air_env.scenes import SCENES
registries = SCENES, RENDERERS, LIKELIHOODS, ESTIMATORS, AGENTS, RECIPES, COMPARISON_MODELS, COMPARISONS, STUDIES
for registry in registries:
    print(registry.noun.replace(" ", "_"), registry.names()[-1], sep=".")
assert not [name for name in sys.modules if name.startswith("air_env_example")], "listing imports the package"
"""


def test_its_names_are_listed_and_nothing_is_imported_before_it_is_used(python):
    result = python("-c", NAMES)
    assert result.returncode == 0, result.stderr
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    assert result.stdout.split() == list(project["entry-points"]["air_env.plugins"])


def test_its_agent_is_trained_and_measured_by_the_commands(air_env, run_directory):
    result = air_env("evaluate", str(run_directory), "--json", "--num-scenes", "20", "--num-samples", "2")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)
    assert metrics["scene"] == "rings"
    assert 0 <= metrics["count_accuracy"] <= 1


def test_its_comparison_is_trained(air_env, python):
    result = air_env("train", "brightness", "--output-dir", "comparison", *QUICK)
    assert result.returncode == 0, result.stderr
    code = (
        "from air_agents.comparisons import load_comparison as load; print(type(load('comparison/model.safetensors')))"
    )
    assert "air_env_example.comparison.Brightness" in python("-c", code).stdout


def test_its_study_is_reproduced(air_env, python):
    """The study trains the package's recipes, agent and comparison, and writes a page."""
    result = air_env("reproduce", "counting", "--scale", "smoke", "--seeds", "0", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    page = python("-c", "print(open('runs/paper/smoke/pages/counting.md').read())").stdout
    assert page.startswith("# Counting rings")
    assert "| AIR | 0 | 0." in page
    assert "| brightness | 0 | 0." in page


def test_without_the_package_its_runs_are_refused_by_name(air_env, run_directory):
    result = air_env("evaluate", str(run_directory), package=None)
    assert result.returncode == 1
    assert re.search(r"(rings|cauchy|glance|midpoint).* is unknown; choose one of", result.stderr)
    assert "Traceback" not in result.stderr


def test_contributing_shows_every_part_as_it_is():
    """Its table has a row for each, with its file and its line; its listing is that of pyproject.toml."""
    pyproject, contributing = (PLUGIN / "pyproject.toml").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    listing = contributing.partition("```toml\n")[2].partition("```")[0]
    assert listing in pyproject
    plugins = tomllib.loads(pyproject)["project"]["entry-points"]["air_env.plugins"]
    assert tomllib.loads(listing)["project"]["entry-points"]["air_env.plugins"] == plugins
    for name, plugin in plugins.items():
        module, _, attribute = plugin.partition(":")
        file = PLUGIN / (module.replace(".", "/") + ".py")
        assert attribute in file.read_text()
        (row,) = [line for line in contributing.splitlines() if line.startswith("|") and f'"{name}"' in line]
        assert f"`{file.name}`" in row


def test_a_broken_plugin_is_named_when_it_is_asked_for(tmp_path, monkeypatch):
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[air_env.plugins]\nmood.sad = no_such_module:x\nmood_x.y = os:sep\n")
    monkeypatch.syspath_prepend(tmp_path)
    moods = Registry("mood", {"glad": 1})
    assert moods.names() == ("glad", "sad")
    assert moods.find("glad") == 1
    with pytest.raises(ValueError, match=r"no_such_module:x of broken cannot be imported .* correct or uninstall it"):
        moods.find("sad")
    with pytest.raises(ValueError, match="mood 'angry' is unknown; choose one of glad, sad"):
        moods.find("angry")
    # What a registry of another noun has is not its own.
    assert Registry("mood x").find("y") == os.sep
