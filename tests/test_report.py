"""The report on sweeps, against figures computed by hand; and its refusal of what is no sweep."""

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from tiny import RECIPE as TINY

from air_agents.estimator_benchmark import report
from air_agents.estimator_benchmark.outcomes import Outcome, mean_interval, rate_interval, read_sweep
from air_agents.estimator_benchmark.record import Record, keep_record
from air_agents.estimator_benchmark.report import write_report

RECIPE = replace(TINY, max_steps=300, evaluate_every=100)
COLUMNS = ("iteration", "minutes", "elbo", "count_accuracy", "learning_rate", "likelihoods", "added_variance",
           "gradient_square", "saturation")  # fmt: skip
DIVERGED = {"error": "FloatingPointError: not finite\nat all", "diverged": True, "traceback": ""}


def make_sweep(directory: Path, cells: list[str]) -> Path:
    directory.mkdir()
    recipe = {name: value for name, value in asdict(RECIPE).items() if name not in ("estimator", "seed")}
    estimators = {cell.split("-")[0]: {"spec": cell.split("-")[0], "fingerprint": ""} for cell in cells}
    keep_record(Record(recipe, None, 1, estimators, cells, {}), directory)
    return directory


def make_cell(directory: Path, rows: list[tuple[float, ...]], final: dict | None, failure: dict | None = None) -> None:
    """Rows have the columns from minutes on, without ELBO and learning rate."""
    directory.mkdir()
    estimator, _, seed = directory.name.partition("-")
    (directory / "config.json").write_text(json.dumps(asdict(replace(RECIPE, estimator=estimator, seed=int(seed)))))
    lines = [
        (100 * i, minutes, 600, accuracy, 0.001, likelihoods, added, square, i)
        for i, (minutes, accuracy, likelihoods, added, square) in enumerate(rows, 1)
    ]
    (directory / "metrics.csv").write_text("\n".join(",".join(map(str, line)) for line in (COLUMNS, *lines)))
    (directory / "machine.json").write_text('{"cpu": "Abacus 2", "torch": "9.9", "commit": "abc123"}')
    if final is not None:
        (directory / "evaluation.json").write_text(json.dumps({"iterations": 300, "minutes": 3.0} | final))
    if failure is not None:
        (directory / "failed.json").write_text(json.dumps(failure))


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Drawing takes seconds."""
    monkeypatch.setattr(report, "draw_figures", lambda sweeps: Figure((1, 1)))


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two estimators with three seeds: one always learns; of the other, a run diverges and one does not learn."""
    directory = make_sweep(tmp_path / "sweep", [f"{name}-{seed}" for seed in range(3) for name in ("nvil", "exact")])
    for seed in range(3):
        rows = [(1, 0.5, 4, 0, 10), (2, 0.96, 4, 0, 10), (3, 0.94, 4, 0, 10)]
        make_cell(directory / f"exact-{seed}", rows, {"count_accuracy": 0.99, "elbo": 650.0, "iwae": 655.0 + seed})
    rows = [(0.5, 0.4, 2, 10, 10), (1, 0.5, 1, 20, 10), (1.5, 0.97, 1, 30, 10)]
    make_cell(directory / "nvil-0", rows, {"count_accuracy": 0.98, "elbo": 600.0, "iwae": 610.0})
    make_cell(directory / "nvil-1", [(0.5, 0.3, 2, 50, 10)], None, DIVERGED)
    rows = [(0.5, 0.4, 2, 30, 10), (1, 0.5, 1, 20, 10), (1.5, 0.5, 1, 10, 10)]
    make_cell(directory / "nvil-2", rows, {"count_accuracy": 0.5, "elbo": 500.0, "iwae": None})
    return directory


@pytest.mark.usefixtures("no_figures")
def test_the_page_shows_what_is_computed_by_hand(sweep, tmp_path):
    write_report([sweep], tmp_path / "out", "page", "A note.")
    page = (tmp_path / "out" / "page.md").read_text()
    for line in (
        "# page\n\nA note.",
        "## sweep",
        "300 iterations of 8 images, exploration over 2,000 of them, no limit of minutes",
        "Trained on: Abacus 2, torch 9.9, commit abc123.",
        # Clopper and Pearson for 3 of 3: from 0.025 ** (1 / 3).
        "| `exact` | 3/3 | 0.29 to 1.00 | 0 | 0.990 | 0.990 | 0.990 | 0.214 to 0.998 | 650.0 | 656.0 |",
        # For 1 of 3: from 1 - 0.975 ** (1 / 3). The failed seed has accuracy 0; two of three have no IWAE.
        "| `nvil` | 1/3 | 0.01 to 0.91 | 2 (1 failed) | 0.500 | 0.000 | 0.493 | 0.000 to 0.996 | 500.0 | failed |",
        "accuracy after 1.50 minutes | accuracy after 3,200 likelihoods |",
        # 8 images times 4 likelihoods; 95 % are reached at iteration 200, and that it is lost again does not count.
        "| `exact` | 600.0 | 32 | 3/3 | 2.00 | 6,400 | 0.500 | 0.500 |",
        "| `nvil` | 300.0 | 11 | 1/3 | never | never | 0.500 | 0.500 |",
        "| `exact` | 0 | 0 | 0 | 3.0 |",
        # The run that diverged has but one row, which is the last of its thirds: 5, beside 3 and 1.
        "| `nvil` | 2 | 2 | 3 | 3.0 |",
        "- nvil, seed 1, diverged: FloatingPointError: not finite\n",
        "![Learning to count](page.png)",
    ):
        assert line in page
    assert page.index("| `exact`") < page.index("| `nvil`"), "the best is the first"


@pytest.mark.usefixtures("no_figures")
def test_the_sheet_has_a_line_for_every_run(sweep, tmp_path):
    write_report([sweep], tmp_path / "out", "page")
    with (tmp_path / "out" / "page.csv").open() as file:
        rows = {(row["estimator"], row["seed"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == [(name, str(seed)) for name in ("exact", "nvil") for seed in range(3)]
    learned, failed = rows["nvil", "0"], rows["nvil", "1"]
    assert (learned["status"], learned["success"], learned["collapsed"]) == ("finished", "1", "0")
    # 8 * 100 * (2 + 1 + 1)
    assert (learned["likelihoods"], learned["likelihoods_to_success"]) == ("3200.0", "3200.0")
    assert (learned["noise_early"], learned["noise_middle"], learned["noise_late"]) == ("1.0", "2.0", "3.0")
    assert (failed["status"], failed["accuracy"], failed["collapsed"]) == ("diverged", "0.0", "1")
    assert (failed["minutes_to_success"], failed["noise_early"]) == ("inf", "")
    assert failed["error"].startswith("FloatingPointError")


def test_the_figures_are_small_and_of_every_sweep(sweep, tmp_path):
    heights = []
    for sweeps in ([sweep], [sweep, sweep]):
        write_report(sweeps, tmp_path, "page")
        assert (tmp_path / "page.png").stat().st_size < 300_000
        with Image.open(tmp_path / "page.png") as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]
    assert (tmp_path / "page.md").read_text().count("## sweep\n") == 2


@pytest.mark.usefixtures("no_figures")
def test_cells_that_are_not_over_are_named_and_not_counted(sweep, tmp_path):
    (sweep / "nvil-2" / "evaluation.json").unlink()
    write_report([sweep], tmp_path / "out", "page")
    page = (tmp_path / "out" / "page.md").read_text()
    assert "**Not over yet, and not counted: nvil-2.**" in page
    assert "| `nvil` | 1/2 |" in page
    assert "sweep,nvil,2,missing" in (tmp_path / "out" / "page.csv").read_text()


def test_a_sweep_of_nothing_but_failures_is_reported(tmp_path):
    directory = make_sweep(tmp_path / "sweep", ["nvil-0", "nvil-1"])
    make_cell(directory / "nvil-0", [], None, DIVERGED)
    make_cell(directory / "nvil-1", [(0.5, 0.99, 2, 50, 10)], None, DIVERGED | {"diverged": False})
    write_report([directory], tmp_path / "out", "page")
    page = (tmp_path / "out" / "page.md").read_text()
    assert "| `nvil` | 0/2 | 0.00 to 0.84 | 2 (2 failed) | 0.000 | 0.000 | 0.000 | 0.000 to 0.960 | failed |" in page
    # One reached it before it crashed, and is no success all the same.
    assert "| `nvil` | 300.0 | 16 | 1/2 | never | never | - | - |" in page
    assert "- nvil, seed 1, crashed" in page


def test_runs_without_a_probe_are_reported_without_noise(tmp_path):
    directory = make_sweep(tmp_path / "sweep", ["nvil-0"])
    make_cell(directory / "nvil-0", [], {"count_accuracy": 0.7, "elbo": 1.0, "iwae": 2.0})
    (directory / "nvil-0" / "metrics.csv").write_text("iteration,minutes,count_accuracy\n100,1,0.7\n200,2,0.96\n")
    write_report([directory], tmp_path / "out", "page")
    page = (tmp_path / "out" / "page.md").read_text()
    assert "| `nvil` | 600.0 | - | 1/1 | 2.00 | - | 0.960 | - |" in page
    assert "added" not in page.split("## sweep")[1]


def outcome(status: str, accuracies: list[float]) -> Outcome:
    rows = [{"iteration": i, "count_accuracy": accuracy} for i, accuracy in enumerate(accuracies, 1)]
    return Outcome("nvil", 0, status, rows, accuracies[-1])  # type: ignore[arg-type]


def test_accuracy_within_a_budget_is_the_last_evaluations_and_none_after_a_failure():
    finished, failed = outcome("finished", [0.2, 0.4, 0.6]), outcome("diverged", [0.2, 0.4, 0.6])
    assert [finished.accuracy_at("iteration", budget) for budget in (0.5, 1, 2.9, 3, 9)] == [0, 0.2, 0.4, 0.6, 0.6]
    assert [failed.accuracy_at("iteration", budget) for budget in (0.5, 1, 2.9, 3, 9)] == [0, 0.2, 0.4, 0.6, 0]


def test_intervals_are_the_textbooks():
    # Of 10 without and with a success; the rule of three's exact version.
    assert rate_interval(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert rate_interval(10, 10) == pytest.approx((0.025**0.1, 1))


@pytest.mark.parametrize("num_seeds", [1, 3, 5, 10, 20])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9, 0.97])
def test_intervals_of_rates_and_means_hold_with_few_seeds(num_seeds, rate):
    """Seeds succeed with 1 or collapse to 1/3, as those of the benchmark do: the coverage is a sum of binomials."""
    covered = {"rate": 0.0, "mean": 0.0}
    for successes in range(num_seeds + 1):
        probability = math.comb(num_seeds, successes) * rate**successes * (1 - rate) ** (num_seeds - successes)
        accuracies = [1.0] * successes + [1 / 3] * (num_seeds - successes)
        low, high = rate_interval(successes, num_seeds)
        covered["rate"] += probability * (low <= rate <= high)
        low, high = mean_interval(accuracies)
        covered["mean"] += probability * (low <= rate + (1 - rate) / 3 <= high)
    assert min(covered.values()) >= 0.95


def test_the_interval_of_a_mean_is_the_mean_of_the_extreme_distributions():
    # Of four values, a share d of the distribution takes two whole, and a part of the next.
    d = math.sqrt(math.log(40) / 8)
    share = d - 0.5
    low, high = mean_interval([0.9, 0.2, 0.8, 0.4])
    assert low == pytest.approx(0.2 / 4 + (0.25 - share) * 0.4)
    assert high == pytest.approx(0.9 / 4 + (0.25 - share) * 0.8 + d)
    assert mean_interval([0.5]) == (0, 1)


@pytest.mark.usefixtures("no_figures")
def test_the_command_writes_three_files(sweep, tmp_path, air_env_command):
    options = (sweep, "--output-dir", tmp_path / "out", "--name", "page")
    status, out, _ = air_env_command("benchmark-estimators", "report", *options)
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["page.csv", "page.md", "page.png"]
    assert str(tmp_path / "out" / "page.md") in out


def damage_sweep(directory: Path) -> None:
    (directory / "sweep.json").write_text("{}")


def damage_rows(directory: Path) -> None:
    (directory / "exact-0" / "metrics.csv").write_text("iteration\nten\n")


def remove_cells(directory: Path) -> None:
    for path in directory.glob("*-*"):
        path.rename(directory / f".{path.name}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda directory: (directory / "sweep.json").unlink(), r"holds no sweep \(sweep.json is missing\)"),
        (damage_sweep, "sweep.json is damaged or of another version"),
        (damage_rows, "metrics.csv is damaged"),
        (remove_cells, "is over yet; train some"),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_what_is_no_sweep_is_refused_and_nothing_is_written(sweep, tmp_path, change, message):
    change(sweep)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        write_report([sweep], tmp_path / "out", "page")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="no sweeps are named"):
        write_report([], tmp_path / "out", "page")


def test_machines_are_those_of_the_cells(sweep):
    (sweep / "exact-1" / "machine.json").write_text('{"cpu": "Abacus 3", "torch": "9.9", "commit": null}')
    assert sorted(read_sweep(sweep).machines) == [
        "Abacus 2, torch 9.9, commit abc123",
        "Abacus 3, torch 9.9, commit unknown",
    ]
