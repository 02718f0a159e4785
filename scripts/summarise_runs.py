"""Makes a results page of finished runs: a table of held-out numbers, every seed shown, and the curves.

python scripts/summarise_runs.py runs/multi_mnist-* --output-dir docs/results --name multi_mnist
"""

import csv
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from agents.checkpoints import load_recipe, write_atomically, write_text_atomically
from agents.recipes import Recipe
from agents.run import EVALUATION_FILE, METRICS_FILE

COLUMNS = ("count_accuracy", "count_accuracy_sampled", "box_iou", "box_iou_tight", "elbo", "iwae")


@dataclass(frozen=True)
class Arguments:
    """Makes a results page of finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run directories."""
    output_dir: Path = Path("summary")
    """Folder for NAME.md, NAME.csv and NAME.png."""
    name: str = "runs"
    """Of the files, and the title of the page."""
    note: str = ""
    """A sentence for the page: under what conditions the runs were made."""


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        recipe: What was computed.
        metrics: Of the finished agent, then the run's iterations and minutes; None where undefined.
        rows: Of the course of training; a short run has none.
    """

    recipe: Recipe
    metrics: dict[str, float | None]
    rows: list[dict[str, float]]

    @property
    def label(self) -> str:
        """What was trained, without the seed."""
        categories = ", exact categories" if self.recipe.categories == "exact" else ""
        return f"{self.recipe.scene}, {self.recipe.estimator}{categories}"


def read_run(directory: Path) -> Finished:
    """Reads what a finished run left.

    Raises:
        FileNotFoundError: The directory holds no finished run.
        ValueError: Its files are damaged.
    """
    rows = []
    try:
        metrics = json.loads((directory / EVALUATION_FILE).read_text())
        if missing := [name for name in (*COLUMNS, "iterations", "minutes") if name not in metrics]:
            raise ValueError(f"{', '.join(missing)} not in {EVALUATION_FILE}")
        if (directory / METRICS_FILE).exists():
            with (directory / METRICS_FILE).open(newline="") as file:
                rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{directory} holds no finished run ({EVALUATION_FILE} is missing); finish it with train_agent.py --resume"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"the results in {directory} are damaged or not a run's ({error})") from error
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
            values = " | ".join(number([run.metrics[name]], np.min) for name in COLUMNS)
            lines.append(
                f"| {label} | {run.recipe.seed} | {run.metrics['iterations']:.0f} | {run.metrics['minutes']:.1f} "
                f"| {values} |"
            )
        for name, statistic in (("median", np.median), ("worst", np.min)):
            values = " | ".join(number([run.metrics[column] for run in kind], statistic) for column in COLUMNS)
            lines.append(f"| **{label}** | **{name}** | | | {values} |")
    return "\n".join(lines)


def number(values: Sequence[float | None], statistic: Callable[[Sequence[float]], float]) -> str:
    """A statistic of those values that are defined."""
    defined = [value for value in values if value is not None]
    return f"{statistic(defined):.4f}" if defined else "-"


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
    figure.savefig(path, dpi=110, format="png")


def write_csv(runs: Sequence[Finished], path: Path) -> None:
    """All metrics, a line for every run; those that a run does not have, or that are undefined, stay empty."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["scene", "estimator", "seed", *names])
        writer.writeheader()
        for run in runs:
            recipe = run.recipe
            setting = {"scene": recipe.scene, "estimator": recipe.estimator, "seed": recipe.seed}
            writer.writerow(setting | run.metrics)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        summarise(arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def summarise(arguments: Arguments) -> None:
    """Reads the runs, prints the table and writes the page with its figures."""
    if not arguments.runs:
        raise ValueError("no runs are named; name one or more run directories")
    runs = sorted((read_run(path) for path in arguments.runs), key=lambda run: (run.label, run.recipe.seed))
    page, sheet, picture = (arguments.output_dir / f"{arguments.name}.{kind}" for kind in ("md", "csv", "png"))
    machine = f"Machine of this summary: {platform.machine()}, torch {torch.__version__}."
    parts = [f"# {arguments.name}", arguments.note, machine, table(runs), f"![Held-out count accuracy]({picture.name})"]
    write_text_atomically(page, "\n\n".join(part for part in parts if part) + "\n")
    write_atomically(sheet, lambda path: write_csv(runs, path))
    write_atomically(picture, lambda path: curves(runs, path))
    print(table(runs))
    print(f"\nwrote {page}, {sheet} and {picture}")


if __name__ == "__main__":
    main()
