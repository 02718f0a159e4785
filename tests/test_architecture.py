"""The rules of the house that no linter checks; import arrows are contracts of import-linter (pyproject.toml)."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"air_env": "air_env", "air_agents": "agents"}
"""Installed package -> its folder."""
MODULES = sorted(path for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 320


def absolute_imports(path: Path) -> set[str]:
    """The top-level packages that a module imports by their full names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_modules_are_short_and_named_for_what_they_hold():
    assert len(MODULES) > 100
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := path.read_text().count("\n")) > MAX_LINES}
    assert not long
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "misc", "common"}


def test_nothing_imports_what_is_not_installed():
    """The folder agents/ is installed as air_agents; inside it imports are relative, so that either name works."""
    files = [path for folder in ("air_env", "agents", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in files if "agents" in absolute_imports(path)]
    assert not [path for path in (ROOT / "agents").rglob("*.py") if "air_agents" in absolute_imports(path)]
    assert not [path for path in MODULES if absolute_imports(path) & {"scripts", "tests"}]


def test_the_packages_that_are_installed_are_the_folders_there_are():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = set()
    for name, folder in FOLDERS.items():
        for path in {module.parent.relative_to(ROOT / folder) for module in (ROOT / folder).rglob("*.py")}:
            there.add(".".join([name, *path.parts]))
            assert (ROOT / folder / path / "__init__.py").is_file(), f"{path} is no package without it"
        assert (ROOT / folder / "py.typed").is_file()
    assert sorted(listed) == sorted(there)


def test_tests_are_no_packages():
    """A tests/agents/__init__.py, say, would hide what it tests."""
    assert not (ROOT / "tests" / "__init__.py").exists()
    assert not list((ROOT / "tests").glob("*/__init__.py"))


IMPORT = """
import random, sys
import numpy, torch

def state():
    settings = torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    generators = torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate()
    return *settings, *generators, numpy.geterr(), torch.get_num_threads()

before = state()
import air_env
assert "air_agents" not in sys.modules, "the world knows the agent"
for heavy in ("sklearn", "matplotlib", "tensorboard", "torchvision", "pyrender"):
    assert heavy not in sys.modules, f"import air_env loads {heavy}"
import air_agents
assert "scripts" not in sys.modules
assert state() == before, "the import changed global state"
"""


def test_importing_changes_no_global_state_and_loads_nothing_heavy():
    result = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert not result.stdout
