"""What pip installs: every module, weight, shader and the entry point; metadata."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import air_env

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_said_once():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "air_env.__version__"}
    assert air_env.__version__ == version("air-env")


def test_every_package_is_listed():
    folders = {path.parent.relative_to(ROOT) for name in ("air_env", "agents") for path in (ROOT / name).rglob("*.py")}
    names = {re.sub("^agents", "air_agents", ".".join(folder.parts)) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == names


@pytest.mark.slow
def test_a_wheel_holds_every_file_and_the_entry_point(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    for name in tracked:
        # A copy: pip builds where the source is, and takes what an earlier build left.
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    command.append(tmp_path / "source")
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = (wheel.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    rooms = ("air_env/", "agents/")
    expected = {re.sub("^agents/", "air_agents/", name) for name in tracked if name.startswith(rooms)}
    assert {"air_agents/weights/digits.safetensors", "air_env/renderers/backends/shaders/mesh.frag"} <= expected
    assert expected == {name for name in names if ".dist-info/" not in name}
    assert "air-env = air_agents.commands.main:main" in entry_points
