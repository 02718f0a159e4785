"""Makes a results page of finished runs: a table of held-out numbers, every seed shown, and the curves.

python scripts/summarise_runs.py runs/multi_mnist-* --output-dir docs/results --name multi_mnist
"""

import csv
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

from ..pages.results import Finished, read_run
from ..training.files import write_atomically, write_text_atomically

COLUMNS = (
    "images",
    "minutes",
    "count_accuracy",
    "count_accuracy_sampled",
    "identity_accuracy",
    "box_iou",
    "box_iou_tight",
    "return",
    "elbo",
    "iwae",
)
"""Metrics of the table, of those that a run has; their digits are in `_DIGITS`."""

_DIGITS = {"images": 0, "minutes": 1, "return": 1, "elbo": 2, "iwae": 2}


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


def table(runs: Sequence[Finished]) -> str:
    """A Markdown table with a line for every run, and one with the median and the worst for every kind."""
    columns = [name for name in COLUMNS if any(run.metrics.get(name) is not None for run in runs)]
    lines = ["| | seed | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for label in dict.fromkeys(run.label for run in runs):
        kind = [run for run in runs if run.label == label]
        for run in kind:
            values = " | ".join(number(name, [run.metrics.get(name)], np.min) for name in columns)
            lines.append(f"| {label} | {run.config['seed']} | {values} |")
        for title, statistic in (("median", np.median), ("worst", np.min)):
            values = " | ".join(
                ""
                if name in ("images", "minutes")
                else number(name, [run.metrics.get(name) for run in kind], statistic)
                for name in columns
            )
            lines.append(f"| **{label}** | **{title}** | {values} |")
    return "\n".join(lines)


def number(name: str, values: Sequence[float | None], statistic: Callable[[Sequence[float]], float]) -> str:
    """A statistic of those values that are defined."""
    defined = [value for value in values if value is not None]
    return f"{statistic(defined):,.{_DIGITS.get(name, 4)}f}" if defined else "-"


def curves(runs: Sequence[Finished], path: Path) -> None:
    """Held-out figures over the training images seen, a line for every run."""
    labels = list(dict.fromkeys(run.label for run in runs))
    # Returns are followed by agents of reinforcement learning only.
    panels = {"count_accuracy": "held-out count accuracy", "return_test": "held-out return, nats"}
    panels = {name: title for name, title in panels.items() if any(name in row for run in runs for row in run.rows)}
    figure = Figure(figsize=(6 * max(1, len(panels)), 4), layout="constrained")
    for axes, (name, title) in zip(
        figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels.items(), strict=False
    ):
        for run in runs:
            if not all(name in row for row in run.rows):
                continue
            first = run is next(other for other in runs if other.label == run.label)
            values, colour = [row[name] for row in run.rows], f"C{labels.index(run.label)}"
            axes.plot(run.images, values, color=colour, alpha=0.7, label=run.label if first else None)
        axes.set(xlabel="training images seen", ylabel=title)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, format="png")


def write_csv(runs: Sequence[Finished], path: Path) -> None:
    """All metrics, a line for every run; those that a run does not have, or that are undefined, stay empty."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["run", "seed", *names])
        writer.writeheader()
        for run in runs:
            writer.writerow({"run": run.label, "seed": run.config["seed"]} | run.metrics)


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        summarise(arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def summarise(arguments: Arguments) -> None:
    """Reads the runs, prints the table and writes the page with its figures."""
    if not arguments.runs:
        raise ValueError("no runs are named; name one or more run directories")
    runs = sorted((read_run(path) for path in arguments.runs), key=lambda run: (run.label, run.config["seed"]))
    page, sheet, picture = (arguments.output_dir / f"{arguments.name}.{kind}" for kind in ("md", "csv", "png"))
    machine = f"Machine of this summary: {platform.machine()}, torch {torch.__version__}."
    parts = [f"# {arguments.name}", arguments.note, machine, table(runs), f"![Held-out count accuracy]({picture.name})"]
    write_text_atomically(page, "\n\n".join(part for part in parts if part) + "\n")
    write_atomically(sheet, lambda path: write_csv(runs, path))
    write_atomically(picture, lambda path: curves(runs, path))
    print(table(runs))
    print(f"\nwrote {page}, {sheet} and {picture}")
