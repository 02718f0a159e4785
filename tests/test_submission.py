"""`air-bench-1`: what is not as the schema says is refused, and what is comes into the ranking."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from air_agents.estimator_benchmark import submission
from air_agents.estimator_benchmark.frozen import STAGES
from air_agents.estimator_benchmark.properties import Properties
from air_agents.estimator_benchmark.properties_page import as_frame
from air_agents.estimator_benchmark.submission import BENCHMARK, COLUMNS, check_problems, ranking, read_results, submit

ONE = Properties("digits", "init", "nvil", "elbo", True, True, True, 4, 0.0, 0.0, 1.0, 2.0, 1.5,
                 {"stop_head": 3.0, "trunk": 2.0, "decoder": math.nan})  # fmt: skip


def sheet(path: Path, **variances: float) -> Path:
    """A sheet of estimators with a variance each, ten times as much at the first stage."""
    rows = [
        replace(ONE, estimator=name, stage=stage, variance=variance * (10 if stage == "init" else 1))
        for name, variance in variances.items()
        for stage in STAGES
    ]
    as_frame(rows).to_csv(path, index=False)
    return path


def test_the_frozen_problems_are_those_of_the_benchmark(monkeypatch):
    check_problems()
    monkeypatch.setitem(submission.CHECKSUMS, "digits.png", "0" * 64)
    with pytest.raises(ValueError, match=f"digits.png is not the file of {BENCHMARK}"):
        check_problems()


def test_the_schema_is_that_of_the_sheet_that_properties_writes(tmp_path):
    found = read_results(sheet(tmp_path / "own.csv", nvil=1.0))
    assert list(found) == list(COLUMNS)
    assert set(found.benchmark) == {BENCHMARK}


def test_ranks_are_means_of_places_over_stages():
    rows = [
        replace(ONE, estimator=name, stage=stage, variance=variance)
        for name, variances in {"first": (1, 2, 2, 2), "second": (3, 1, 3, 3), "third": (3, 3, 1, 4)}.items()
        for stage, variance in zip(STAGES, variances, strict=True)
    ]
    found = ranking(as_frame(rows))
    assert found.estimator.tolist() == ["first", "second", "third"]
    # Places 1 2 2 1, 2 1 3 2 and 2 3 1 3: equals share the better place.
    assert found["rank"].tolist() == [1.5, 2.0, 2.25]
    assert found.converged.tolist() == pytest.approx([3.0, 4.5, 6.0])


def test_ones_own_estimator_stands_in_the_ranking_where_it_belongs(tmp_path, air_env_command):
    published = sheet(tmp_path / "published.csv", exact=0.0, nvil=3.0, reinforce=9.0)
    own = sheet(tmp_path / "own.csv", nvil=3.0, mine=1.0)
    options = ("--published", published, "--output-dir", tmp_path / "out")
    status, out, err = air_env_command("benchmark-estimators", "submit", own, *options)
    assert status == 0, err
    page = (tmp_path / "out" / "ranking.md").read_text()
    assert str(tmp_path / "out" / "ranking.md") in out
    assert "| **`mine`** | 2.0 | yes | yes | 15 | 1.5 | 1.5 | 1.5 |" in page
    order = [page.index(f"`{name}`") for name in ("exact", "mine", "nvil", "reinforce")]
    assert order == sorted(order)
    assert len(pd.read_csv(tmp_path / "out" / "ranking.csv")) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="bias"), "lacks the columns bias; make it with"),
        (lambda frame: frame.assign(benchmark="air-bench-0"), "results of air-bench-0, and wanted are those of air-be"),
        (lambda frame: frame.assign(variance="low"), "column variance .* must be of type float"),
        (lambda frame: frame.assign(variance=math.nan), "column variance .* must lie between 0 and inf"),
        (lambda frame: frame.assign(variance=-1.0), "column variance .* must lie between 0 and inf"),
        (lambda frame: frame.assign(cost=0.1), r"must be \(bias \*\* 2 \+ variance\) \* likelihoods"),
        (lambda frame: frame[1:], "must have mine on digits once at each of the stages init, early, stuck, converged"),
        (lambda frame: frame.assign(scene="tables"), "scenes being some of digits, multi_mnist, sprites"),
        (lambda frame: frame.assign(estimator="exact"), "is published already; give yours a name of its own"),
    ],
)
def test_what_is_not_as_the_schema_says_is_refused_and_nothing_is_written(tmp_path, change, said):
    published = sheet(tmp_path / "published.csv", exact=0.0)
    own = sheet(tmp_path / "own.csv", mine=1.0)
    change(pd.read_csv(own)).to_csv(own, index=False)
    with pytest.raises(ValueError, match=said):
        submit([own], published, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sheets_that_are_no_tables_or_not_there_are_refused(tmp_path):
    published = sheet(tmp_path / "published.csv", exact=0.0)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="is no table of comma-separated values"):
        submit([tmp_path / "empty.csv"], published, tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        submit([tmp_path / "missing.csv"], published, tmp_path / "out")
