"""Makes a results page of finished runs: a table of numbers of test scenes, every seed shown, and the curves.

    air-env summarise runs/multi_mnist-* --output-dir docs/results --name multi_mnist

Runs are directories of finished ones, of `air-env train` and of `air-env train-sb3`.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from . import terminal

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ..training.results import Finished

COLUMNS = {
    "images": 0,
    "minutes": 1,
    "count_accuracy": 4,
    "count_accuracy_nonempty": 4,
    "count_accuracy_sampled": 4,
    "identity_accuracy": 4,
    "identity_agreement": 4,
    "box_iou_tight": 4,
    "box_iou_tight_median": 4,
    "box_iou": 4,
    "return": 1,
    "elbo": 2,
    "iwae": 2,
}
"""Metrics of the table, of those that a run has -> decimals."""
_COSTS = ("images", "minutes")
"""Columns without a median and a worst value."""
_PANELS = {
    "count_accuracy": (("count_accuracy",), "held-out count accuracy"),
    "return": (("return_validation", "return_test"), "held-out return, nats"),
}
"""Final metric -> its column in the course of training, today's and the former one, and the label of its panel."""


@dataclass(frozen=True)
class Arguments:
    """Makes a results page of finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run directories."""
    output_dir: Path = Path("summary")
    """Folder for NAME.md, NAME.csv and NAME.png."""
    name: str = "runs"
    """Name of the files, and title of the page."""
    note: str = ""
    """A sentence for the page: under what conditions the runs were made."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return terminal.run("summarise", Arguments, summarise, __doc__, argv)


def summarise(arguments: Arguments) -> None:
    """Reads the runs, prints the table and writes the page with its curves."""
    import pandas as pd
    import torch

    from ..pages import Page
    from ..training.results import read_run

    if not arguments.runs:
        raise ValueError("no runs are named; name one or more run directories")
    runs = sorted((read_run(path) for path in arguments.runs), key=lambda run: (run.label, run.config["seed"]))
    rows = pd.DataFrame([{"run": run.label, "seed": run.config["seed"]} | run.metrics for run in runs])
    text = table(rows)
    page = Page(arguments.output_dir, arguments.name)
    machine = f"Machine of this summary: {platform.machine()}, torch {torch.__version__}."
    page.add(f"# {arguments.name}", arguments.note, machine, text)
    page.add_table(rows)
    page.add_picture(
        "", curves(runs), "Metrics of validation scenes over training; a cross is a final one, of test scenes"
    )
    print(text)
    print("\n" + "\n".join(f"wrote {path}" for path in page.write()))


def table(rows: "pd.DataFrame") -> str:
    """A line for every run, and for every kind of run the median and the worst."""
    from ..pages import markdown

    columns = [name for name in COLUMNS if name in rows and rows[name].notna().any()]
    lines = []
    for label, own in rows.groupby("run", sort=False):
        numbers = own[columns].astype(float)
        for seed, values in zip(own.seed, numbers.to_dict("records"), strict=True):
            lines.append([label, seed, *(markdown.number(values[name], COLUMNS[name]) for name in columns)])
        for title, values in (("median", numbers.median()), ("worst", numbers.min())):
            texts = ("" if name in _COSTS else markdown.number(values[name], COLUMNS[name]) for name in columns)
            lines.append([f"**{label}**", f"**{title}**", *texts])
    return markdown.table(["", "seed", *columns], lines)


def curves(runs: "Sequence[Finished]") -> "Figure":
    """Metrics of validation scenes over the training images seen, a line for every run.

    A run that did not follow a metric in the course of training has a cross at its end, of test scenes.
    """
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(run.label for run in runs))
    # Returns are followed by agents of reinforcement learning only.
    panels = {
        name: panel for name, panel in _PANELS.items() if any(row.keys() & panel[0] for run in runs for row in run.rows)
    }
    figure = Figure(figsize=(6 * max(1, len(panels)), 4), layout="constrained")
    grid = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axes, (name, (columns, title)) in zip(grid, panels.items(), strict=False):
        shown = set()
        for run in runs:
            label = None if run.label in shown else run.label
            colour = f"C{labels.index(run.label)}"
            shown.add(run.label)
            course = [row[column] for row in run.rows for column in columns if column in row]
            if len(course) == len(run.rows):
                axes.plot(run.images, course, color=colour, alpha=0.7, label=label)
            elif run.metrics.get(name) is not None:
                axes.plot(
                    run.metrics["images"], run.metrics[name], "x", color=colour, label=label and f"{label}, final"
                )
        axes.set(xlabel="training images seen", ylabel=title)
        axes.legend()
        axes.grid(alpha=0.3)
    return figure
