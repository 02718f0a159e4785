"""What the documentation shows runs, and what it points to exists."""

import ast
import csv
import doctest
import importlib
import re
from pathlib import Path

import pytest

from air_agents.estimators import ESTIMATORS
from air_agents.training.recipes import RECIPES
from air_env.scenes import SCENES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[doctest.DocTest]:
    """The examples in all docstrings, found in the source: decorated functions keep theirs."""
    parser, found = doctest.DocTestParser(), []
    for path in sorted(path for package in ("air_env", "agents") for path in (ROOT / package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        module = f"air_{module}" if module.startswith("agents") else module
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                name = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
                test = parser.get_doctest(text, {"__module__": module}, name, str(path), getattr(node, "lineno", 1))
                if test.examples:
                    found.append(test)
    return found


def code_blocks(page: Path) -> list[str]:
    """The Python code of a page, with blank lines before it so that errors name its line."""
    text = page.read_text()
    blocks = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return ["\n" * (text[: block.start()].count("\n") + 1) + block[1] for block in blocks]


@pytest.fixture
def registries():
    """What examples register is forgotten."""
    before = [(registry, dict(registry)) for registry in (ESTIMATORS, RECIPES, SCENES)]
    yield
    for registry, known in before:
        registry.clear()
        registry.update(known)


def test_there_are_examples():
    assert len(examples()) >= 5
    assert len(code_blocks(ROOT / "README.md")) >= 2


def needs(example: doctest.DocTest) -> tuple[pytest.MarkDecorator, ...]:
    """What an example needs that not every machine has."""
    return (pytest.mark.opengl,) if example.name.endswith("PyrenderRenderer") else ()


@pytest.mark.parametrize("example", [pytest.param(e, id=e.name, marks=needs(e)) for e in examples()])
def test_the_example_of_a_docstring_runs(example):
    module = importlib.import_module(example.globs["__module__"])
    example.globs = vars(module) | {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    output: list[str] = []
    runner.run(example, out=output.append)
    assert runner.failures == 0, "".join(output)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page)], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in code_blocks(page):
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    for name in re.findall(r"\b((?:air_env|agents|scripts|tests)/[\w/]+\.py)\b", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_the_page_on_reliability_shows_every_campaign_and_none_failed():
    page = (ROOT / "docs" / "reliability.md").read_text()
    with (ROOT / "docs" / "results" / "reliability.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["tried"]) for row in rows) > 30_000
    for row in rows:
        shown = [row[name] for name in ("campaign", "tried", "failed", "lost", "minutes", "commit")]
        assert f"| {' | '.join(shown)} |" in page
        assert row["failed"] == row["lost"] == "0"
