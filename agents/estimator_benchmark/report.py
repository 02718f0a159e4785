"""The report on sweeps: a page with tables, a sheet with a line for every run, and figures.

What the numbers mean is in `agents/estimator_benchmark/outcomes.py`.
"""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ..training.files import write_atomically, write_text_atomically
from .figures import draw_figures
from .outcomes import (
    COLLAPSE,
    PARTS,
    SUCCESS,
    Outcome,
    SweepResults,
    mean_interval,
    median,
    rate_interval,
    read_sweep,
)

_HOW_TO_READ = (
    f"Every seed counts. A run succeeds with a held-out accuracy of {SUCCESS} or more (of counts; where kinds are told "
    "apart, of counts times kinds), and has collapsed below "
    f"{COLLAPSE} or when it failed, that is diverged or crashed; a failed run has accuracy 0. Intervals are at 95 %: "
    "exact ones of rates, bootstrapped ones of means. Medians are over all seeds, so that *never* says that at least "
    "half of them did not reach it."
)


def write_report(directories: Sequence[Path], output_dir: Path, name: str, note: str = "") -> list[Path]:
    """Writes NAME.md, NAME.csv and NAME.png.

    Args:
        directories: Of sweeps, each of which becomes a section.
        output_dir: Folder of the files.
        name: Of the files, and the title of the page.
        note: A sentence for the page.

    Returns:
        The paths of the files.

    Raises:
        FileNotFoundError: A directory is no sweep's.
        ValueError: None is given, or one holds nothing that is over, or is damaged.
        OSError: The files cannot be written.
    """
    if not directories:
        raise ValueError("no sweeps are named; name one or more directories that benchmark_estimators.py train made")
    sweeps = [read_sweep(directory) for directory in directories]
    page, sheet, picture = (output_dir / f"{name}.{kind}" for kind in ("md", "csv", "png"))
    parts = [f"# {name}", note, _HOW_TO_READ, *map(_section, sweeps), f"![Learning to count]({picture.name})"]
    write_text_atomically(page, "\n\n".join(part for part in parts if part) + "\n")
    write_atomically(sheet, lambda path: _write_sheet(sweeps, path))
    write_atomically(picture, lambda path: draw_figures(sweeps, path))
    return [page, sheet, picture]


def _section(sweep: SweepResults) -> str:
    parts = [f"## {sweep.directory.resolve().name}", _settings(sweep)]
    if sweep.missing:
        parts.append(f"**Not over yet, and not counted: {', '.join(sweep.missing)}.**")
    parts += [outcome_table(sweep), cost_table(sweep)]
    if any(math.isfinite(run.last("added_variance")) for run in sweep.outcomes):
        parts.append(noise_table(sweep))
    if failed := [run for run in sweep.outcomes if run.error]:
        reasons = (f"- {run.estimator}, seed {run.seed}, {run.status}: {run.error.splitlines()[0]}" for run in failed)
        parts.append("\n".join(("Failed:", "", *reasons)))
    return "\n\n".join(parts)


def _settings(sweep: SweepResults) -> str:
    record, recipe = sweep.record, sweep.record.full_recipe()
    minutes = f"at most {record.max_minutes:g} minutes" if record.max_minutes else "no limit of minutes"
    exploration = (
        f"exploration over {recipe.exploration_steps:,} of them" if recipe.exploration_steps else "none explores"
    )
    return (
        f"Scenes `{recipe.scene}`, {recipe.max_steps:,} iterations of {recipe.batch_size} images, {exploration}, "
        f"{minutes}, evaluated every {recipe.evaluate_every} iterations, {record.threads} thread(s) for each run. "
        f"Trained on: {'; '.join(sweep.machines) or 'unknown'}."
    )


def outcome_table(sweep: SweepResults) -> str:
    """What the estimators' runs came to, in Markdown."""
    rows = []
    for name in sweep.estimators:
        runs = sweep.of(name)
        accuracies = [run.accuracy for run in runs]
        successes, failed = sum(run.succeeded for run in runs), sum(run.status != "finished" for run in runs)
        low, high = rate_interval(successes, len(runs))
        rows.append(
            [
                f"`{name}`",
                f"{successes}/{len(runs)}",
                f"{low:.2f} to {high:.2f}",
                f"{sum(run.collapsed for run in runs)} ({failed} failed)"
                if failed
                else sum(run.collapsed for run in runs),
                f"{median(runs, lambda run: run.accuracy):.3f}",
                f"{min(accuracies):.3f}",
                f"{sum(accuracies) / len(runs):.3f}",
                _interval(*mean_interval(accuracies)),
                _number(median(runs, lambda run: run.elbo), 1),
                _number(median(runs, lambda run: run.iwae), 1),
            ]
        )
    header = ["", "success", "rate", "collapsed", "median accuracy", "worst", "mean", "of the mean", "ELBO", "IWAE"]
    return _table(header, rows)


def cost_table(sweep: SweepResults) -> str:
    """What it took, in Markdown; and what came of equal costs."""
    budgets = {column: sweep.common_budget(column) for column in ("minutes", "likelihoods")}
    rows = []
    for name in sweep.estimators:
        runs = sweep.of(name)
        reached = sum(math.isfinite(run.until_success("iteration")) for run in runs)
        rows.append(
            [
                f"`{name}`",
                _number(median(runs, lambda run: 60_000 * run.last("minutes") / run.last("iteration")), 1),
                _number(median(runs, lambda run: run.last("likelihoods") / run.last("iteration")), 0),
                f"{reached}/{len(runs)}",
                _number(median(runs, lambda run: run.until_success("minutes")), 2),
                _number(median(runs, lambda run: run.until_success("likelihoods")), 0),
                *(_at_budget(runs, column, budget) for column, budget in budgets.items()),
            ]
        )
    header = [
        "",
        "ms per iteration",
        "likelihoods per iteration",
        f"reached {SUCCESS:.0%}",
        f"minutes to {SUCCESS:.0%}",
        f"likelihoods to {SUCCESS:.0%}",
        f"accuracy after {_number(budgets['minutes'], 2)} minutes",
        f"accuracy after {_number(budgets['likelihoods'], 0)} likelihoods",
    ]
    what = (
        "Costs, medians over seeds. Time includes evaluations and leaves out probes; likelihoods are counted by image. "
        "The last columns are at what every finished run has spent, where the learning rate of some has not fallen yet."
    )
    return f"{what}\n\n{_table(header, rows)}"


def noise_table(sweep: SweepResults) -> str:
    """The variance that estimators add along their own trainings, in Markdown."""
    rows = []
    for name in sweep.estimators:
        runs = sweep.of(name)
        parts = (median(runs, lambda run, part=part: run.noise(part)) for part in PARTS)
        rows.append([f"`{name}`", *(_scientific(part) for part in parts), _number(_saturation(runs), 1)])
    what = (
        "Variance that the estimator adds to the gradient in the presence logits, given the path, over the square of "
        "the exact gradient; medians over the evaluations in each third of a run, then over seeds. Saturation is the "
        "mean |logit| at the end."
    )
    return f"{what}\n\n{_table(['', *PARTS, 'saturation'], rows)}"


def _saturation(runs: Sequence[Outcome]) -> float:
    return median(runs, lambda run: run.last("saturation"))


def _at_budget(runs: Sequence[Outcome], column: str, budget: float) -> str:
    return "-" if math.isnan(budget) else f"{median(runs, lambda run: run.accuracy_at(column, budget)):.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _number(value: float, digits: int) -> str:
    if math.isinf(value):
        return "never" if value > 0 else "failed"
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def _scientific(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


_SHEET: dict[str, Callable[[Outcome], float | int | str]] = {
    "estimator": lambda run: run.estimator,
    "seed": lambda run: run.seed,
    "status": lambda run: run.status,
    "accuracy": lambda run: run.accuracy,
    "success": lambda run: int(run.succeeded),
    "collapsed": lambda run: int(run.collapsed),
    "elbo": lambda run: run.elbo,
    "iwae": lambda run: run.iwae,
    "iterations": lambda run: run.last("iteration"),
    "minutes": lambda run: run.last("minutes"),
    "likelihoods": lambda run: run.last("likelihoods"),
    "iterations_to_success": lambda run: run.until_success("iteration"),
    "minutes_to_success": lambda run: run.until_success("minutes"),
    "likelihoods_to_success": lambda run: run.until_success("likelihoods"),
    **{f"noise_{part}": lambda run, part=part: run.noise(part) for part in PARTS},
    "saturation": lambda run: run.last("saturation"),
    "error": lambda run: run.error,
}


def _write_sheet(sweeps: Sequence[SweepResults], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sweep", *_SHEET])
        for sweep in sweeps:
            for name in sorted(sweep.estimators):
                for run in sweep.of(name):
                    values = (value(run) for value in _SHEET.values())
                    # As everywhere here, what is not defined stays empty; what was never reached is inf.
                    texts = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
                    writer.writerow([sweep.directory.resolve().name, *texts])
            for name in sweep.missing:
                estimator, _, seed = name.rpartition("-")
                writer.writerow([sweep.directory.resolve().name, estimator, seed, "missing"])
