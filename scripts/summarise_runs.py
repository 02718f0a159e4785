"""Makes a results page of finished runs: a table of held-out numbers, every seed shown, and the curves.

python scripts/summarise_runs.py runs/multi_mnist-* --output docs/results/multi_mnist
"""

import csv
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from agents.checkpoints import load_recipe
from agents.recipes import Recipe
from agents.run import EVALUATION_FILE, METRICS_FILE

COLUMNS = ("count_accuracy", "count_accuracy_sampled", "box_iou", "box_iou_tight", "elbo", "iwae")


@dataclass(frozen=True)
class Arguments:
    """Makes a results page of finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    output: Path = Path("summary")
    """The files to write, without ending: .md, .csv and .png."""
    note: str = ""
    """A sentence for the page: under what conditions the runs were made."""


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    recipe: Recipe
    metrics: dict[str, float]
    rows: list[dict[str, float]]

    @property
    def minutes(self) -> float:
        """Minutes of training."""
        return self.rows[-1]["minutes"]

    @property
    def label(self) -> str:
        """What was trained, without the seed."""
        return f"{self.recipe.scene}, {self.recipe.estimator}"


def read_run(directory: Path) -> Finished:
    """Reads what a finished run left.

    Raises:
        FileNotFoundError: The directory holds no finished run.
    """
    metrics = json.loads((directory / EVALUATION_FILE).read_text())
    with (directory / METRICS_FILE).open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return Finished(load_recipe(directory), metrics, rows)


def table(runs: Sequence[Finished]) -> str:
    """A Markdown table with a line for every run, and one with the median and the worst for every kind."""
    lines = [
        "| scene, estimator | seed | iterations | minutes | " + " | ".join(COLUMNS) + " |",
        "|---" * (4 + len(COLUMNS)) + "|",
    ]
    for label in dict.fromkeys(run.label for run in runs):
        kind = [run for run in runs if run.label == label]
        for run in kind:
            values = " | ".join(f"{run.metrics[name]:.4f}" for name in COLUMNS)
            iterations = int(run.rows[-1]["iteration"])
            lines.append(f"| {label} | {run.recipe.seed} | {iterations} | {run.minutes:.1f} | {values} |")
        for name, statistic in (("median", np.median), ("worst", np.min)):
            values = " | ".join(f"{statistic([run.metrics[column] for run in kind]):.4f}" for column in COLUMNS)
            lines.append(f"| **{label}** | **{name}** | | | {values} |")
    return "\n".join(lines)


def curves(runs: Sequence[Finished], path: Path) -> None:
    """Held-out count accuracy over the iterations, a line for every run."""
    labels = list(dict.fromkeys(run.label for run in runs))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for run in runs:
        x, y = ([row[name] for row in run.rows] for name in ("iteration", "count_accuracy"))
        first = run is next(other for other in runs if other.label == run.label)
        axes.plot(x, y, color=f"C{labels.index(run.label)}", alpha=0.7, label=run.label if first else None)
    axes.set(xlabel="iteration", ylabel="held-out count accuracy", ylim=(0, 1.01))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        runs = sorted((read_run(path) for path in arguments.runs), key=lambda run: (run.label, run.recipe.seed))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    hardware = f"{platform.machine()}, torch {torch.__version__}"
    page = f"# {arguments.output.name}\n\n{arguments.note}\n\nMachine of this summary: {hardware}.\n\n{table(runs)}\n\n"
    page += f"![Held-out count accuracy]({arguments.output.name}.png)\n"
    arguments.output.with_suffix(".md").write_text(page)
    with arguments.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scene", "estimator", "seed", "minutes", *runs[0].metrics])
        for run in runs:
            recipe = run.recipe
            writer.writerow([recipe.scene, recipe.estimator, recipe.seed, run.minutes, *run.metrics.values()])
    curves(runs, arguments.output.with_suffix(".png"))
    print(table(runs))


if __name__ == "__main__":
    main()
