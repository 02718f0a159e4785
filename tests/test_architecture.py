"""The rules of the house that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"air_env": {"agents", "air_agents", "scripts", "tests"}, "agents": {"scripts", "tests"}}
MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 320


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(tree: ast.Module) -> set[str]:
    """The packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def calls(tree: ast.Module) -> set[str]:
    """The functions that a module calls, as they are written."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_there_are_modules_to_check():
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    assert not imports(parse(path)) & FORBIDDEN[package]


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "scripts").glob("*.py"))], ids=name_of)
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(parse(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_packages_do_not_print_seed_or_execute(path):
    tree = parse(path)
    forbidden = {"print", "exec", "eval", "np.random.seed", "random.seed", "pickle.load", "pickle.loads"}
    assert path.parent.name == "commands" or not calls(tree) & forbidden
    seeds = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and "manual_seed" in ast.unparse(node.func)]
    for call in seeds:
        # A generator of one's own, or a fork of the global one.
        assert ast.unparse(call.func) != "torch.manual_seed" or "fork_rng" in ast.unparse(tree)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_checkpoints_are_loaded_without_executing_them(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in [ast.unparse(keyword) for keyword in node.keywords]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_named_for_nothing(path):
    assert path.stem not in ("utils", "helpers", "misc", "common")


def test_packages_are_typed_and_nothing_else_is_installed():
    for package in FORBIDDEN:
        assert (ROOT / package / "py.typed").is_file()
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
