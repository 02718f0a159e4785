"""Figure 5: data efficiency of representations."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from ..pages import Page, number, table
from .experiment import Experiment
from .provenance import how_it_was_made
from .representation import PIXELS, REPRESENTATIONS, TASKS, guessing, measure_head, measure_pixels
from .study import Case, Measurement, Study

_COLOURS = {"AIR": "C0", "DRAW": "C2", "autoencoder": "C3", PIXELS: "C7"}
_SHOWN_LABELS = 1_000

_DEVIATIONS = """\
- The paper draws curves and prints no numbers; what it says of them is above.
- Heads on AIR are shared over the objects, sorted from left to right; those on DRAW and the autoencoder read the whole
  code. The paper does not describe its own here.
- AIR's codes are inferred anew for the heads, from eight windows around what each object draws and with the others
  taken away: windows of the explanation are not centred, since nothing in the ELBO asks for that. A head is trained on
  all of the codes and its answers are averages. Nothing of this sees a label.
- AIR is that of recipe `multi_mnist_sharp`: its pixels have a standard deviation of 0.2, not 0.3 as those of the other
  figures, of DRAW and of the autoencoder, and its count prior is steeper.
- The models' sizes and the heads are ours. How much noise a head is trained with is chosen on labels that are held
  back; nothing else was searched for each number of labels, and nothing for the network of pixels."""


def _heads(experiment: Experiment) -> Iterator[Case]:
    for seed in experiment.seeds:
        for family, model in REPRESENTATIONS.items():
            # Both tasks one after the other: the features are computed once for both.
            for labels in experiment.scale.labels:
                for task in TASKS:
                    yield Case(f"{family}_012", seed, task=task, labels=labels, model=model)


def _pixels(experiment: Experiment) -> Iterator[Case]:
    for seed in experiment.seeds:
        for labels in experiment.scale.labels:
            for task in TASKS:
                yield Case(f"cnn_{task}_{labels}", seed, task=task, labels=labels, model=PIXELS)


def tables(rows: pd.DataFrame) -> dict[str, str]:
    """Accuracies with few and with all labels, by the number of labels."""
    most = rows.labels.max()
    few = max((n for n in rows.labels.unique() if n <= _SHOWN_LABELS), default=most)
    return {f"{count:,}": _accuracies(rows[rows.labels == count]) for count in dict.fromkeys((few, most))}


def _accuracies(rows: pd.DataFrame) -> str:
    wide = rows.pivot(index=["task", "model"], columns="seed", values="accuracy")
    wide = wide.reindex(pd.MultiIndex.from_product([TASKS, _COLOURS]))
    seeds = [f"seed {seed}" for seed in wide]
    wide["mean"] = wide.mean(axis=1)
    lines = [[*line, *map(number, values)] for line, values in zip(wide.index, wide.to_numpy(), strict=True)]
    return table(["task", "model", *seeds, "mean"], lines)


def write(page: Page, rows: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    page.add(
        "AIR, DRAW and a convolutional autoencoder are trained on images of 0, 1 or 2 digits, without labels. "
        "Heads are then trained on their features of scenes with two digits: the sum of the digits, and whether the "
        "left one is smaller than the right one. A convolutional network learns the same from the pixels of the "
        f"same scenes. Accuracy is on {experiment.scale.num_test:,} held-out scenes of other digits.",
        how_it_was_made("figure5", experiment, STUDY.jobs(experiment)),
        "Paper: AIR achieves high accuracy even where labels are scarce; the autoencoder and DRAW reconstruct as "
        "well, and their inferences lead to poorer performance.",
    )
    guesses = {task: guessing(task, experiment) for task in TASKS}
    page.add_picture("accuracy", curves(rows, guesses), "Every seed a thin line, the mean bold; dotted: guessing")
    for count, text in tables(rows).items():
        page.add(f"## {count} labels", text)
    page.add("## Deviations from the paper", _DEVIATIONS)


def curves(rows: pd.DataFrame, guesses: dict[str, float]) -> Figure:
    """Accuracy over the number of labels: every seed a thin line, the mean bold, guessing dotted."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (task, title) in zip(figure.subplots(1, len(TASKS)), TASKS.items(), strict=True):
        for model, colour in _COLOURS.items():
            own = rows[(rows.task == task) & (rows.model == model)]
            wide = own.pivot(index="labels", columns="seed", values="accuracy")
            axes.plot(wide.index, wide.to_numpy(), color=colour, lw=0.7, alpha=0.6)
            axes.plot(wide.index, wide.mean(axis=1), color=colour, lw=2.4, marker="o", markersize=4, label=model)
        axes.axhline(guesses[task], color="0.5", lw=1, ls=":")
        axes.set(xscale="log", xlabel="labelled scenes", ylabel="held-out accuracy", ylim=(0, 1.02))
        labels = sorted(rows.labels.unique())
        axes.set_xticks(labels, [f"{n:,}" for n in labels], fontsize=8)
        axes.minorticks_off()
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure


STUDY = Study(
    "Figure 5: representational power",
    (Measurement(_heads, measure_head), Measurement(_pixels, measure_pixels)),
    tables,
    write,
)
