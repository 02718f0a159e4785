"""Figure 5: data efficiency of representations (Section 3.1.2).

A model that was trained without labels computes features of labelled scenes; a small classifier, the head, is trained
on some of them. Its accuracy is measured on held-out scenes.
"""

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from air_env.scenes import SceneDataset

from ..comparisons import DRAW, TASKS, Autoencoder
from ..comparisons.heads import fit_head, objects
from ..comparisons.tasks import accuracy
from ..inference.air import AIR
from ..jobs.job import Job
from ..pages import Page, pivot
from .experiment import Experiment
from .study import Case, Measurement, Metrics, Study

QUESTIONS = {"sum": "sum of the two digits", "order": "left digit smaller than the right one"}
"""Name of a task -> what is asked."""
REPRESENTATIONS = {"air_sharp": "AIR", "draw": "DRAW", "autoencoder": "autoencoder"}
"""Family of runs -> name."""
PIXELS = "CNN on pixels"
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


def describe(
    model: AIR | DRAW | Autoencoder, scenes: SceneDataset
) -> Float[torch.Tensor, "scene look step feature"] | Float[torch.Tensor, "scene feature"]:
    """A model's features of scenes: of each object, where it is an agent; else one code."""
    if isinstance(model, AIR):
        return objects(model, scenes).cpu()
    return model.features(scenes.float_images(model.device)).cpu()


def measure_heads(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Held-out accuracies of heads that are trained on a model's features of labelled scenes, as many as for pixels."""
    scale, seed, model, test = experiment.scale, job.recipe.seed, job.load(), _held_out(experiment)
    rows, described = [], describe(model, test)
    for num_labels in scale.labels:
        train = scale.make_scene(experiment.data_dir, counts=(2,)).dataset("train", num_labels, seed)
        features = describe(model, train)
        for task in QUESTIONS:
            num_classes, targets = TASKS.find(task)
            head = fit_head(features, targets(train), num_classes, seed, scale.fitting)
            rows.append({"task": task, "labels": num_labels, "accuracy": accuracy(head(described), targets(test))})
    return rows


def measure_pixels(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Held-out accuracy of a classifier of pixels."""
    return job.load().measure(_held_out(experiment))


def guessing(task: str, experiment: Experiment) -> float:
    """Accuracy of the constant most frequent answer."""
    targets = TASKS.find(task)[1](_held_out(experiment))
    return targets.bincount().max().item() / len(targets)


def _held_out(experiment: Experiment) -> SceneDataset:
    return experiment.held_out(experiment.scale.num_test, counts=(2,))


def tables(rows: pd.DataFrame) -> dict[str, str]:
    """Accuracies with few and with all labels, by the number of labels."""
    most = rows.labels.max()
    few = max((n for n in rows.labels.unique() if n <= _SHOWN_LABELS), default=most)
    order = [*QUESTIONS, *_COLOURS]
    both = pd.concat([rows.assign(column="seed " + rows.seed.astype(str)), rows.assign(column="mean")])
    both = both.sort_values(["task", "model"], key=lambda names: names.map(order.index), kind="stable")
    titles = {"task": "task", "model": "model"}
    return {
        f"{count:,}": pivot(both[both.labels == count], titles, "column", "accuracy")
        for count in dict.fromkeys((few, most))
    }


def write(page: Page, rows: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    page.add(
        "AIR, DRAW and a convolutional autoencoder are trained on images of 0, 1 or 2 digits, without labels. "
        "Heads are then trained on their features of scenes with two digits: the sum of the digits, and whether the "
        "left one is smaller than the right one. A convolutional network learns the same from the pixels of the "
        f"same scenes. Accuracy is on {experiment.scale.num_test:,} held-out scenes of other digits.",
        STUDY.how_it_was_made(page.name, experiment),
        "Paper: AIR achieves high accuracy even where labels are scarce; the autoencoder and DRAW reconstruct as "
        "well, and their inferences lead to poorer performance.",
    )
    guesses = {task: guessing(task, experiment) for task in QUESTIONS}
    page.add_picture("accuracy", curves(rows, guesses), "Every seed a thin line, the mean bold; dotted: guessing")
    for count, text in tables(rows).items():
        page.add(f"## {count} labels", text)
    page.add("## Deviations from the paper", _DEVIATIONS)


def curves(rows: pd.DataFrame, guesses: dict[str, float]) -> Figure:
    """Accuracy over the number of labels: every seed a thin line, the mean bold, guessing dotted."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (task, title) in zip(figure.subplots(1, len(QUESTIONS)), QUESTIONS.items(), strict=True):
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
    lambda scale: (
        Measurement([Case(f"{family}_012", model=model) for family, model in REPRESENTATIONS.items()], measure_heads),
        Measurement(
            [
                Case(f"cnn_{task}_{labels}", task=task, labels=labels, model=PIXELS)
                for labels in scale.labels
                for task in QUESTIONS
            ],
            measure_pixels,
        ),
    ),
    tables,
    write,
)
