"""The report on sweeps: a page with tables, a sheet with a line for every run, and figures.

What the numbers mean is in `agents/estimator_benchmark/outcomes.py`.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import pandas as pd

from ..pages import Page, number, table
from .figures import draw_figures
from .outcomes import COLLAPSE, PARTS, SUCCESS, SweepResults, mean_interval, rate_interval, read_sweep

_HOW_TO_READ = (
    f"Every seed counts. A run succeeds with an accuracy of {SUCCESS} or more on test scenes (of counts; where kinds "
    "are told apart, of counts times kinds); what happens until then is measured on validation scenes. It has "
    f"collapsed below {COLLAPSE} or when it failed, that is diverged or crashed; a failed run has accuracy 0. "
    "Intervals are at 95 % however few the seeds: of rates the exact ones (Clopper and Pearson), of means those that "
    "hold for every distribution of accuracies (Anderson). Medians are over all seeds, so that "
    "*never* says that at least half of them did not reach it."
)
_COSTS = (
    "Costs, medians over seeds. Time includes evaluations and leaves out probes; likelihoods are counted by image. "
    "The last columns are at what every finished run has spent, where the learning rate of some has not fallen yet."
)
_NOISE = (
    "Variance that the estimator adds to the gradient in the presence logits, given the path, over the square of "
    "the exact gradient; medians over the evaluations in each third of a run, then over seeds. Saturation is the "
    "mean |logit| at the end."
)


def write_report(directories: Sequence[Path], output_dir: Path, name: str, note: str = "") -> list[Path]:
    """Writes NAME.md, NAME.csv and NAME.png.

    Args:
        directories: Folders of sweeps, each of which becomes a section.
        output_dir: Folder of the files.
        name: Name of the files, and the title of the page.
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
    page = Page(output_dir, name)
    page.add(f"# {name}", note, _HOW_TO_READ, *(part for sweep in sweeps for part in _section(sweep)))
    page.add_table(pd.concat([_sheet(sweep) for sweep in sweeps]))
    page.add_picture("", draw_figures(sweeps), "Learning to count")
    return page.write()


def _sheet(sweep: SweepResults) -> pd.DataFrame:
    cells = (name.rpartition("-") for name in sweep.missing)
    missing = pd.DataFrame([{"estimator": name, "seed": int(seed), "status": "missing"} for name, _, seed in cells])
    sheet = pd.concat([sweep.runs, missing]).astype({"success": "Int64", "collapsed": "Int64"})
    sheet.insert(0, "sweep", sweep.directory.resolve().name)
    return sheet


def _section(sweep: SweepResults) -> Iterator[str]:
    yield f"## {sweep.directory.resolve().name}"
    yield _settings(sweep)
    if sweep.missing:
        yield f"**Not over yet, and not counted: {', '.join(sweep.missing)}.**"
    yield from (outcome_table(sweep), _COSTS, cost_table(sweep))
    if any(math.isfinite(run.last("added_variance")) for run in sweep.outcomes):
        yield from (_NOISE, noise_table(sweep))
    if failed := [run for run in sweep.outcomes if run.error]:
        reasons = (f"- {run.estimator}, seed {run.seed}, {run.status}: {run.error.splitlines()[0]}" for run in failed)
        yield "\n".join(("Failed:", "", *reasons))


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
    for name, own, middle in _by_estimator(sweep):
        successes, failed = int(own.success.sum()), (own.status != "finished").sum()
        rate, mean = rate_interval(successes, len(own)), mean_interval(own.accuracy.tolist())
        rows.append(
            {
                "": f"`{name}`",
                "success": f"{successes}/{len(own)}",
                "rate": f"{rate[0]:.2f} to {rate[1]:.2f}",
                "collapsed": f"{own.collapsed.sum()} ({failed} failed)" if failed else own.collapsed.sum(),
                "median accuracy": number(middle.accuracy),
                "worst": number(own.accuracy.min()),
                "mean": number(sum(own.accuracy) / len(own)),
                "of the mean": f"{mean[0]:.3f} to {mean[1]:.3f}",
                "ELBO": _number(middle.elbo, 1),
                "IWAE": _number(middle.iwae, 1),
            }
        )
    return _table(rows)


def cost_table(sweep: SweepResults) -> str:
    """What it took, and what came of equal costs, in Markdown."""
    budgets = {column: sweep.common_budget(column) for column in ("minutes", "likelihoods")}
    rows = []
    for name, own, middle in _by_estimator(sweep):
        at_budget = {
            column: number(median(run.accuracy_at(column, budget) for run in sweep.of(name)))
            if math.isfinite(budget)
            else "-"
            for column, budget in budgets.items()
        }
        rows.append(
            {
                "": f"`{name}`",
                "ms per iteration": _number((60_000 * own.minutes / own.iterations).median(), 1),
                "likelihoods per iteration": _number((own.likelihoods / own.iterations).median(), 0),
                f"reached {SUCCESS:.0%}": f"{own.iterations_to_success.map(math.isfinite).sum()}/{len(own)}",
                f"minutes to {SUCCESS:.0%}": _number(middle.minutes_to_success, 2),
                f"likelihoods to {SUCCESS:.0%}": _number(middle.likelihoods_to_success, 0),
                f"accuracy after {_number(budgets['minutes'], 2)} minutes": at_budget["minutes"],
                f"accuracy after {_number(budgets['likelihoods'], 0)} likelihoods": at_budget["likelihoods"],
            }
        )
    return _table(rows)


def noise_table(sweep: SweepResults) -> str:
    """The variance that estimators add along their own trainings, in Markdown."""
    return _table(
        [
            {
                "": f"`{name}`",
                **{part: _number(middle[f"noise_{part}"], 2, "g") for part in PARTS},
                "saturation": _number(middle.saturation, 1),
            }
            for name, _, middle in _by_estimator(sweep)
        ]
    )


def _by_estimator(sweep: SweepResults) -> Iterator[tuple[str, pd.DataFrame, pd.Series]]:
    """Estimators with their runs, and the medians of what is defined; infinite where the middle seed is."""
    for name in sweep.estimators:
        own = sweep.runs[sweep.runs.estimator == name]
        yield name, own, own.median(numeric_only=True)


def _table(rows: Sequence[dict[str, object]]) -> str:
    return table(list(rows[0]), [list(row.values()) for row in rows])


def _number(value: float, digits: int, kind: str = "f") -> str:
    if math.isinf(value):
        return "never" if value > 0 else "failed"
    return "-" if math.isnan(value) else f"{value:,.{digits}{kind}}"
