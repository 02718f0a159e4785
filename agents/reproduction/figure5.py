"""Figure 5: data efficiency of representations (Section 3.1.2).

Models that were trained without labels describe labelled scenes; small classifiers, the heads, are trained on these
representations. Every representation gets every head that it can have, so that the accuracy of one may be traced to
the representation or to the head. Beside them stand networks of pixels, and the bounds that the models reach.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from air_env.scenes import SceneDataset

from ..comparisons import TASKS
from ..comparisons.heads import Fitting, fit_head, heads_of
from ..comparisons.representations import REPRESENTATIONS
from ..comparisons.tasks import accuracy
from ..jobs.job import Job
from ..pages import Page, pivot, show
from . import bounds
from .experiment import Experiment
from .merits import AGAIN, CNN, GAINS, ONCE, PIXELS, gains, merits
from .study import Case, Measurement, Metrics, Study

QUESTIONS = {"sum": "sum of the two digits", "order": "left digit smaller than the right one"}
"""Name of a task -> what is asked."""
MODELS = {"AIR": "air", "DRAW": "draw", "autoencoder": "autoencoder"}
"""Name -> family of the runs of a model that is trained without labels."""
_COLOURS = {ONCE: "C9", AGAIN: "C0", "DRAW": "C2", "autoencoder": "C3", PIXELS: "C7"}
_PANELS = {"plain": "plain head", "shared": "shared head"}
_SHOWN_LABELS, _APART = 1_000, 0.055

_DEVIATIONS = """\
- The paper draws curves and prints no numbers; what it says of them is above. It does not describe its heads.
- The plain head reads a code as one vector: of AIR, every step's P(n >= step), `z_where` and `z_what`, in the order of
  steps. The shared head, which only objects can have, reads each object with the same layers, from left to right, and
  weights it with P(n >= step).
- AIR's codes are inferred again from eight windows around what each object draws and with the others taken away:
  windows of the explanation are not centred, since nothing in the ELBO asks for that. A head is trained on
  all of the codes and its answers are averages. Nothing of this sees a label.
- Hidden layers of the plain head are the same for all; its first layer has as many inputs as the representation.
- AIR is that of recipe `multi_mnist_air`. Every model has a pixel standard deviation of its own, so that bounds are
  compared at the best one of each, which is chosen on validation scenes.
- The scale on which a head reads, and how much noise it is trained with, are chosen on labels that are held back, from
  the same choices for all; nothing else was searched for each number of labels. The search for the models' settings is
  `air-env reproduce figure5_search`."""


def measure_heads(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Held-out accuracies of all heads on a model's representation of labelled scenes, as many as for pixels."""
    scale, model = experiment.scale, job.load()
    describe = partial(REPRESENTATIONS.find(case["representation"]).describe, model)
    test, rows = _held_out(experiment), []
    described = describe(test)
    for num_labels in scale.labels:
        train = _labelled(experiment, num_labels, job.recipe.seed)
        features = describe(train)
        for task in QUESTIONS:
            for head in heads_of(features):
                judged = judge_head(head, task, (features, train), (described, test), job.recipe.seed, scale.fitting)
                rows.append({"head": head, "task": task, "labels": num_labels, **judged})
    return rows


def measure_pixels(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Held-out accuracies of networks of pixels: of the job, which is convolutional, and of the plain head."""
    model, test, describe = job.load(), _held_out(experiment), REPRESENTATIONS.find(PIXELS).describe
    train = _labelled(experiment, int(case["labels"]), job.recipe.seed)
    known, asked = (describe(model, train), train), (describe(model, test), test)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return [
        {"head": CNN, "accuracy": model.measure(test)["accuracy"], "parameters": num_parameters},
        {
            "head": "plain",
            **judge_head("plain", case["task"], known, asked, job.recipe.seed, experiment.scale.fitting),
        },
    ]


def judge_head(
    head: str,
    task: str,
    train: tuple[Tensor, SceneDataset],
    asked: tuple[Tensor, SceneDataset],
    seed: int,
    fitting: Fitting,
) -> Metrics:
    """Accuracy of a head that is trained for a task, its size, and what was chosen for it.

    Args:
        head: Its name.
        task: Its name.
        train: Features, and the scenes that they are of.
        asked: The same of other scenes, on which it is judged.
        seed: Of the head.
        fitting: How long it is trained.
    """
    num_classes, targets = TASKS.find(task)
    fitted = fit_head(head, train[0], targets(train[1]), num_classes, seed, fitting)
    return {
        "accuracy": accuracy(fitted(asked[0]), targets(asked[1])),
        "parameters": fitted.num_parameters,
        "noise": fitted.noise,
        "scale": fitted.scale,
    }


def guessing(task: str, experiment: Experiment) -> float:
    """Accuracy of the constant most frequent answer."""
    targets = TASKS.find(task)[1](_held_out(experiment))
    return targets.bincount().max().item() / len(targets)


def _held_out(experiment: Experiment) -> SceneDataset:
    return experiment.held_out(experiment.scale.num_test, counts=(2,))


def _labelled(experiment: Experiment, num_labels: int, seed: int) -> SceneDataset:
    return experiment.scale.make_scene(experiment.data_dir, counts=(2,)).dataset("train", num_labels, seed)


def shown_labels(rows: pd.DataFrame) -> tuple[int, ...]:
    """The numbers of labels that tables show: few, and all."""
    most = rows.labels.max()
    few = max((n for n in rows.labels.unique() if n <= _SHOWN_LABELS), default=most)
    return tuple(int(n) for n in dict.fromkeys((few, most)))


def tables(table: pd.DataFrame) -> dict[str, str]:
    """Accuracies and gains with few and with all labels, every seed; the sizes of heads; bounds."""
    rows = table[table.accuracy.notna()]
    order = [*QUESTIONS, *_COLOURS, *_PANELS, CNN, *GAINS]
    keys = {"task": "task", "representation": "representation", "head": "head"}
    rows = _in_order(rows, keys, order)
    differences = _in_order(gains(rows), ["task", "what"], order)
    found = {}
    for count in shown_labels(rows):
        found[f"{count:,} labels"] = _by_seed(rows[rows.labels == count], keys, "accuracy")
        if len(some := differences[differences.labels == count]):
            found[f"gains with {count:,} labels"] = _by_seed(some, {"task": "task", "what": "what differs"}, "gain")
    if "parameters" in rows:
        sizes = rows[(rows.task == "sum") & (rows.labels == rows.labels.max())]
        sizes = sizes.drop_duplicates(["representation", "head"]).astype({"parameters": int})
        titles = {"representation": "representation", "head": "head", "parameters": "parameters, sum"}
        found["parameters"] = show(sizes, titles)
    if "best_sd" in table:
        found["bounds"] = bounds.table(table[table.best_sd.notna()])
    return found


def _in_order(rows: pd.DataFrame, keys: Iterable[str], order: Sequence[str]) -> pd.DataFrame:
    return rows.sort_values(list(keys), key=lambda names: names.map(order.index), kind="stable")


def _by_seed(rows: pd.DataFrame, titles: dict[str, str], values: str) -> str:
    both = [rows.assign(column="seed " + rows.seed.astype(str)), rows.assign(column="mean")]
    return pivot(pd.concat(both), titles, "column", values)


def write(page: Page, table: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    rows, own = table[table.accuracy.notna()], table[table.best_sd.notna()]
    text = tables(table)
    page.add(
        "AIR, DRAW and a convolutional autoencoder are trained on images of 0, 1 or 2 digits, without labels. "
        "Heads are then trained on their representations of scenes with two digits: the sum of the digits, and whether "
        "the left one is smaller than the right one. Every representation gets every head that it can have; pixels get "
        "the plain head, too, and a convolutional network. Accuracy is on "
        f"{experiment.scale.num_test:,} held-out scenes of other digits.",
        STUDY.how_it_was_made(page.name, experiment),
        "Paper: AIR achieves high accuracy even where labels are scarce; the autoencoder and DRAW reconstruct as "
        "well, and their inferences lead to poorer performance.",
    )
    guesses = {task: guessing(task, experiment) for task in QUESTIONS}
    page.add_picture("accuracy", curves(rows, guesses), "Every seed a thin line, the mean bold; dotted: guessing")
    for count in shown_labels(rows):
        page.add(f"## {count:,} labels", merits(rows, count, QUESTIONS), text[f"{count:,} labels"])
        page.add("Differences of two accuracies, of which one thing differs:", text[f"gains with {count:,} labels"])
    page.add("## Sizes", "Numbers that are trained with labels.", text["parameters"])
    page.add(
        "## Bounds",
        "Held-out, in nats per image. Models are trained with pixel standard deviations of their own; a bound is "
        "comparable at the best one of each model, chosen on validation scenes, with the network as it is. The code "
        "of the autoencoder is a point and gives no bound. The last column is the gain of the objective over the "
        "second half of the iterations: near 0 where training has converged.",
        bounds.winner(own),
        text["bounds"],
    )
    page.add_picture("bounds", bounds.courses(own), "Objective over training, every seed; iterations on a log scale")
    page.add("## Deviations from the paper", _DEVIATIONS)


def curves(rows: pd.DataFrame, guesses: Mapping[str, float]) -> Figure:
    """Accuracy over the number of labels: a row of panels for each task, one for each head; names at the lines."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    labels, reference = sorted(rows.labels.unique()), rows[rows["head"] == CNN]
    for line, (task, title) in zip(figure.subplots(2, 2, sharex=True, sharey=True), QUESTIONS.items(), strict=True):
        for axes, (head, name) in zip(line, _PANELS.items(), strict=True):
            ends: dict[str, tuple[float, str]] = {}
            for representation, colour in _COLOURS.items():
                own = rows[(rows.task == task) & (rows["head"] == head) & (rows.representation == representation)]
                _lines(axes, own, representation, colour, ends)
            _lines(axes, reference[reference.task == task], "pixels, convolutional", "k", ends)
            _name(axes, ends)
            axes.axhline(guesses[task], color="0.5", lw=1, ls=":")
            axes.set(xscale="log", ylim=(0, 1.02), xlim=(labels[0] / 1.2, labels[-1] * 1.2))
            axes.set_xticks(labels, [f"{n:,.0f}" for n in labels], fontsize=8)
            axes.minorticks_off()
            axes.set_title(f"{title}: {name}", fontsize=10)
            axes.grid(alpha=0.3)
        line[0].set_ylabel("held-out accuracy")
    figure.supxlabel("labelled scenes", fontsize=10)
    return figure


def _lines(axes: Axes, own: pd.DataFrame, name: str, colour: str, ends: dict[str, tuple[float, str]]) -> None:
    """Draws every seed and the mean, and notes where the mean ends."""
    if own.empty:
        return
    wide = own.pivot(index="labels", columns="seed", values="accuracy")
    mean = wide.mean(axis=1)
    axes.plot(wide.index, wide.to_numpy(), color=colour, lw=0.7, alpha=0.6)
    axes.plot(wide.index, mean, color=colour, lw=2.2, marker="o", markersize=4)
    ends[name] = (mean.iloc[-1], colour)


def _name(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Names lines beside their right ends, from the lowest to the highest, far enough apart to be read."""
    names = sorted(ends, key=lambda name: ends[name][0])
    heights = [ends[name][0] for name in names]
    places = list(accumulate(heights, lambda below, height: max(height, below + _APART)))
    lower = sum(places) / len(places) - sum(heights) / len(heights)
    for name, place in zip(names, places, strict=True):
        where = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "va": "center"}
        axes.annotate(name, (1.01, place - lower), color=ends[name][1], annotation_clip=False, **where)


STUDY = Study(
    "Figure 5: representational power",
    lambda scale: (
        Measurement(
            [
                Case(f"{representation.model}_012", representation=name)
                for name, representation in REPRESENTATIONS.items()
                if representation.model
            ],
            measure_heads,
        ),
        Measurement(
            [
                Case(f"cnn_{task}_{labels}", representation=PIXELS, task=task, labels=labels)
                for labels in scale.labels
                for task in QUESTIONS
            ],
            measure_pixels,
        ),
        Measurement([Case(f"{family}_012", representation=name) for name, family in MODELS.items()], bounds.measure),
    ),
    tables,
    write,
)
