"""Figure 5: how many labels a representation saves."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import mean

from matplotlib.figure import Figure

from ..jobs.job import Job
from .experiment import Experiment
from .measurements import Figures, Measurement, Results
from .page import Page, how_it_was_made, number, table
from .representation import REPRESENTATIONS, TASKS, guessing, measure_head, measure_pixels

_PIXELS = "CNN on pixels"
_COLOURS = {"AIR": "C0", "DRAW": "C2", "autoencoder": "C3", _PIXELS: "C7"}
_SHOWN_LABELS = 1_000

_DIFFERENCES = """\
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


class RepresentationFigure:
    """Figure 5."""

    title = "Figure 5: representational power"

    def jobs(self, experiment: Experiment) -> list[Job]:
        """Three models without labels, and a classifier of pixels for each task and number of labels."""
        models = [f"{family}_012" for family in REPRESENTATIONS]
        return experiment.jobs(*models, *(_pixels(task, n) for n in experiment.scale.labels for task in TASKS))

    def measurements(self, experiment: Experiment) -> list[Measurement]:
        """Held-out accuracies of all heads and classifiers."""
        return list(_measurements(experiment))

    def write(self, experiment: Experiment, results: Results, page: Page) -> None:
        """Fills the page."""
        rows = list(_rows(experiment, results))
        most = max(experiment.scale.labels)
        few = max((n for n in experiment.scale.labels if n <= _SHOWN_LABELS), default=most)
        page.add(
            f"# {self.title}",
            "AIR, DRAW and a convolutional autoencoder are trained on images of 0, 1 or 2 digits, without labels. "
            "Heads then learn from what they say of scenes with two digits: the sum of the digits, and whether the "
            "left one is smaller than the right one. A convolutional network learns the same from the pixels of the "
            f"same scenes. Accuracy is on {experiment.scale.num_test:,} held-out scenes of other digits.",
            how_it_was_made("figure5", experiment, self.jobs(experiment)),
            "Paper: AIR achieves high accuracy even where labels are scarce; the autoencoder and DRAW reconstruct as "
            "well, and their inferences lead to poorer performance.",
        )
        page.add_picture(
            "accuracy", _curves(rows, experiment), "Every seed a thin line, the mean bold; dotted: guessing"
        )
        for count in dict.fromkeys((few, most)):
            page.add(f"## {count:,} labels", _table(rows, count, experiment))
        page.add_numbers(rows)
        page.add("## What differs from the paper", _DIFFERENCES)


def _pixels(task: str, num_labels: int) -> str:
    return f"cnn_{task}_{num_labels}"


def _head(family: str, task: str, num_labels: int, seed: int) -> str:
    return f"{task}_{num_labels}-{family}_012-{seed}"


def _measurements(experiment: Experiment) -> Iterator[Measurement]:
    settings: Figures = {"num_test": experiment.scale.num_test}
    of_heads = settings | {"fitting": asdict(experiment.scale.fitting)}
    labels = experiment.scale.labels
    for seed in experiment.seeds:
        for family in REPRESENTATIONS:
            job = experiment.job(f"{family}_012", seed)
            # Both tasks one after the other: the descriptions are made once for both.
            for num_labels, task in ((n, task) for n in labels for task in TASKS):

                def compute(job: Job = job, task: str = task, num_labels: int = num_labels) -> Figures:
                    return measure_head(job, task, num_labels, experiment)

                yield Measurement(_head(family, task, num_labels, seed), (job,), compute, of_heads)
        for num_labels, task in ((n, task) for n in labels for task in TASKS):
            job = experiment.job(_pixels(task, num_labels), seed)

            def compute_pixels(job: Job = job) -> Figures:
                return measure_pixels(job, experiment)

            yield Measurement(f"accuracy-{job.name}", (job,), compute_pixels, settings)


def _rows(experiment: Experiment, results: Results) -> Iterator[Figures]:
    for task in TASKS:
        for num_labels in experiment.scale.labels:
            for seed in experiment.seeds:
                about = {"task": task, "labels": num_labels, "seed": seed}
                for family, name in REPRESENTATIONS.items():
                    yield about | {"model": name} | results[_head(family, task, num_labels, seed)]
                yield about | {"model": _PIXELS} | results[f"accuracy-{_pixels(task, num_labels)}-{seed}"]


def _table(rows: Sequence[Figures], num_labels: int, experiment: Experiment) -> str:
    lines = []
    for task in TASKS:
        for model in _COLOURS:
            own = [row for row in rows if (row["task"], row["model"], row["labels"]) == (task, model, num_labels)]
            values = [row["accuracy"] for row in own]
            lines.append([task, model, *map(number, values), number(mean(values))])
    return table(["task", "model", *(f"seed {seed}" for seed in experiment.seeds), "mean"], lines)


def _curves(rows: Sequence[Figures], experiment: Experiment) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    labels = experiment.scale.labels
    for axes, (task, title) in zip(figure.subplots(1, len(TASKS)), TASKS.items(), strict=True):
        for model, colour in _COLOURS.items():
            own = [row for row in rows if (row["task"], row["model"]) == (task, model)]
            lines = [[row["accuracy"] for row in own if row["seed"] == seed] for seed in experiment.seeds]
            for line in lines:
                axes.plot(labels, line, color=colour, lw=0.7, alpha=0.6)
            means = [mean(values) for values in zip(*lines, strict=True)]
            axes.plot(labels, means, color=colour, lw=2.4, marker="o", markersize=4, label=model)
        axes.axhline(guessing(task, experiment), color="0.5", lw=1, ls=":")
        axes.set(xscale="log", xlabel="labelled scenes", ylabel="held-out accuracy", ylim=(0, 1.02))
        axes.set_xticks(labels, [f"{n:,}" for n in labels], fontsize=8)
        axes.minorticks_off()
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure
