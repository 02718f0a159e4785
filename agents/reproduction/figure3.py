"""Figure 3: counting and scanning policy, learned without labels."""

import matplotlib.patches
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from air_env.pictured import GAP, SCALE

from ..evaluation.metrics import count_accuracy
from ..jobs.job import Job
from ..pages import Page, number, show
from ..pages.tiles import figure_of, read_picture
from .experiment import Experiment
from .policy import CUES, blend, heat_maps, predictability
from .study import Case, Measurement, Metrics, Study

CHANCE = 0.25
"""Accuracy of a random guess of counts from 0 to 3 (paper: 25 %)."""
_NUM_STAGES, _NUM_PICTURED, _NUM_MAPS = 4, 7, 3

_TITLES = {
    "seed": "seed",
    "count_accuracy": "count accuracy",
    "box_iou": "box IoU",
    "elbo": "ELBO",
    "iwae": "IWAE",
    "minutes": "minutes",
} | dict(zip(CUES, CUES, strict=True))
_DIGITS = {"count_accuracy": 4, "elbo": 1, "iwae": 1, "minutes": 1}

_DEVIATIONS = """\
- The paper does not state the likelihood, the count prior and the sizes of the digits; ours are in the README.
- The stop action's gradient, the optimiser, the first phase of exploration and the embedding of the image are ours
  (README, Deviations).
- Accuracies are on held-out digits; the paper does not say which digits it used.
- The classifier is ours: it is trained with labels and estimates the best accuracy these images allow.
- The paper shows heat maps and concludes that the policy is spatial; the accuracies of the three cues are ours."""


def measure_agent(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """The run's own metrics, held-out count accuracy, and the scanning policy."""
    own, agent = job.evaluation(), job.agent()
    two = experiment.held_out(experiment.scale.num_test, counts=(2,))
    z = agent.explain(two.images)
    counted = experiment.held_out(experiment.scale.num_test, counts=(0, 1, 2))
    return {
        **{name: own[name] for name in ("box_iou", "elbo", "iwae", "minutes")},
        "count_accuracy": count_accuracy(agent, counted),
        **predictability(z, two),
        "maps": heat_maps(z).tolist(),
    }


def measure_classifier(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Held-out count accuracy of a classifier trained with the true counts."""
    scenes = experiment.held_out(experiment.scale.num_test, counts=(0, 1, 2))
    return {"cnn_count_accuracy": job.load().measure(scenes)["accuracy"]}


def measure_course(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Metrics of validation scenes in the course of training."""
    return [
        {"iteration": row["iteration"], "count_accuracy_then": row["count_accuracy"], "elbo_then": row["elbo"]}
        for row in job.rows()
    ]


def tables(table: pd.DataFrame) -> dict[str, str]:
    """The table of all seeds."""
    return {"seeds": show(table[table.elbo.notna()], _TITLES, _DIGITS)}


def write(page: Page, table: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    agents, ceilings = table[table.elbo.notna()], table.cnn_count_accuracy.dropna()
    page.add(
        "AIR is trained on images of 0, 1 or 2 digits, without a label. Shown are held-out scenes with its windows "
        "and its reconstructions at stages of training, how well it counts held-out scenes, and where its first "
        "and second window lie. Count accuracy is of the most probable n.",
        STUDY.how_it_was_made(page.name, experiment),
        "## Count accuracy",
        f"Paper: a curve without numbers, and the sentence that counts are identified correctly; chance "
        f"{CHANCE:.0%}. Here: {', '.join(map(number, agents.count_accuracy))} by seed, on "
        f"{experiment.scale.num_test:,} scenes of held-out digits; a classifier trained with the true counts reaches "
        f"{', '.join(map(number, ceilings))} on the same scenes.",
        tables(table)["seeds"],
        "The box IoU compares windows, which are square, with the smallest squares around the digits; the bounds "
        "are in nats per image.",
    )
    page.add_picture("accuracy", curves(table), "Count accuracy over training, on validation scenes")
    page.add("## Stages of training")
    caption = f"Validation scenes with windows, and reconstructions, of seed {experiment.seeds[0]}: first window red, "
    stages = _stages(experiment.job("air_012", experiment.seeds[0]))
    page.add_picture("stages", stages, caption + "second green, third blue")
    page.add(
        "## Scanning policy",
        "Which of two digits the first window is on, predicted by logistic regression (5-fold cross-validation, "
        "chance 0.5) from where the two digits lie, from their classes, and from their "
        "sizes, in the columns position, identity and size above. A spatial policy is predicted by position alone.",
    )
    caption = "Centres of the first (red) and second (green) window on held-out scenes of two digits"
    page.add_picture("policy", _heat_maps(agents[:_NUM_MAPS]), caption)
    page.add("## Deviations from the paper", _DEVIATIONS)


def curves(table: pd.DataFrame) -> Figure:
    """Count accuracy of validation scenes over training, a line for every seed."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for seed, rows in table[table.iteration.notna()].groupby("seed", sort=False):
        axes.plot(rows.iteration, rows.count_accuracy_then, lw=1.4, label=f"AIR, seed {seed}")
    top = table.cnn_count_accuracy.mean()
    axes.axhline(top, color="0.2", lw=1, ls="--", label="classifier trained with the counts")
    axes.axhline(CHANCE, color="0.5", lw=1, ls=":", label="chance")
    axes.set(xlabel="iteration", ylabel="validation count accuracy", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def _stages(agent: Job) -> Figure:
    pictures = sorted((agent.directory / "pictures").glob("scenes_*.png"))
    chosen = sorted({round(i) for i in np.linspace(0, len(pictures) - 1, _NUM_STAGES)})
    stages = [pictures[i] for i in chosen]
    side = agent.agent().model.config.image_size
    width = _NUM_PICTURED * (side * SCALE + GAP)
    iterations = [int(path.stem.rpartition("_")[2]) for path in stages]
    titles = [f"after {iteration:,} iterations" if iteration else "before training" for iteration in iterations]
    return figure_of([read_picture(path, width) for path in stages], titles, ("scenes", "reconstructions"))


def _heat_maps(agents: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(2.6 * len(agents) + 0.6, 3.4), layout="constrained")
    grid = figure.subplots(1, len(agents), squeeze=False, sharey=True)[0]
    for axes, (seed, maps) in zip(grid, agents[["seed", "maps"]].itertuples(index=False), strict=True):
        axes.imshow(blend(np.array(maps)), extent=(-1, 1, 1, -1), interpolation="bilinear")
        axes.set(title=f"seed {seed}", xlabel="x of the centre", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    grid[0].set_ylabel("y of the centre")
    colours = {"first window": "red", "second window": "lime", "both": "yellow"}
    patches = [matplotlib.patches.Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=patches, ncols=len(patches), loc="outside lower center", fontsize=8)
    return figure


STUDY = Study(
    "Figure 3: learning to count multi-MNIST digits",
    lambda scale: (
        Measurement([Case("air_012")], measure_agent),
        Measurement([Case("cnn_count_012")], measure_classifier),
        Measurement([Case("air_012")], measure_course),
    ),
    tables,
    write,
)
