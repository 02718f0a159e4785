"""Figure 3: an agent learns to count digits and to go from one to the other, without being told."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.metrics import count_accuracy
from ..jobs.job import Job
from .experiment import Experiment
from .measurements import Figures, Measurement, Results
from .page import Page, how_it_was_made, number, table
from .policy import CUES, blend, heat_maps, predictability
from .tiles import figure_of, read_picture

CHANCE = 0.25
"""Of counts from 0 to 3 (paper: 25 %)."""
_NUM_STAGES, _NUM_PICTURED, _NUM_MAPS = 4, 7, 3
_PICTURE_SCALE, _PICTURE_GAP = 3, 4
"""Of what `air_agents.evaluation.pictures` draws."""

_DIFFERENCES = """\
- The paper does not state the likelihood, the count prior and the sizes of the digits; ours are in the README.
- The stop action's gradient, the optimiser, the first phase of exploration and the embedding of the image are ours
  (README, Deviations).
- Accuracies are of digits that were never trained on; the paper does not say of which its are.
- The classifier is ours: it is told the counts, and says what can be reached in these images.
- The paper shows heat maps and concludes that the policy is spatial; the accuracies of the three cues are ours."""


class CountingFigure:
    """Figure 3."""

    title = "Figure 3: learning to count multi-MNIST digits"

    def jobs(self, experiment: Experiment) -> list[Job]:
        """AIR, and a classifier that is told the counts."""
        return experiment.jobs("air_012", "cnn_count_012")

    def measurements(self, experiment: Experiment) -> list[Measurement]:
        """The scanning policy of each agent, and the count accuracy of each classifier."""
        num_test = experiment.scale.num_test
        found = []
        for seed in experiment.seeds:
            agent, classifier = experiment.job("air_012", seed), experiment.job("cnn_count_012", seed)

            def policy(agent: Job = agent) -> Figures:
                scenes = experiment.held_out(num_test, counts=(2,))
                z = agent.agent().explain(scenes.images)
                found = predictability(z, scenes) | {"maps": heat_maps(z).tolist()}
                counted = experiment.held_out(num_test, counts=(0, 1, 2))
                return found | {"count_accuracy": count_accuracy(agent.agent(), counted)}

            @torch.no_grad()
            def ceiling(classifier: Job = classifier) -> Figures:
                scenes = experiment.held_out(num_test, counts=(0, 1, 2))
                return classifier.load().measure(scenes)

            settings = {"num_test": num_test}
            found.append(Measurement(f"policy-{agent.name}", (agent,), policy, settings))
            found.append(Measurement(f"accuracy-{classifier.name}", (classifier,), ceiling, settings))
        return found

    def write(self, experiment: Experiment, results: Results, page: Page) -> None:
        """Fills the page."""
        agents = [experiment.job("air_012", seed) for seed in experiment.seeds]
        policies = [results[f"policy-{agent.name}"] for agent in agents]
        ceilings = [results[f"accuracy-cnn_count_012-{seed}"]["accuracy"] for seed in experiment.seeds]
        rows = [_row(agent, policy, top) for agent, policy, top in zip(agents, policies, ceilings, strict=True)]
        accuracies = [row["count_accuracy"] for row in rows]
        page.add(
            f"# {self.title}",
            "AIR is trained on images of 0, 1 or 2 digits, without a label. Shown are held-out scenes with its windows "
            "and its reconstructions at stages of training, how well it counts held-out scenes, and where its first "
            "and second window lie. Count accuracy is of the most probable n.",
            how_it_was_made("figure3", experiment, self.jobs(experiment)),
            "## Count accuracy",
            f"Paper: a curve without numbers, and the sentence that counts are identified correctly; chance "
            f"{CHANCE:.0%}. Here: {', '.join(number(value) for value in accuracies)} by seed, on "
            f"{experiment.scale.num_test:,} scenes of digits that were never trained on; a classifier that is told the "
            f"counts reaches {', '.join(map(number, ceilings))} on the same scenes.",
            _table(rows),
            "The box IoU compares windows, which are square, with the smallest squares around the digits; the bounds "
            "are in nats per image.",
        )
        page.add_numbers(rows)
        page.add_numbers([{"seed": job.recipe.seed} | _course(row) for job in agents for row in job.rows()])
        page.add_picture("accuracy", _curves(agents, ceilings), "Held-out count accuracy over training")
        page.add("## Stages of training")
        caption = (
            f"Held-out scenes with windows, and reconstructions, of seed {experiment.seeds[0]}: first window red, "
        )
        page.add_picture("stages", _stages(agents[0]), caption + "second green, third blue")
        page.add(
            "## Scanning policy",
            "Which of two digits the first window is on, predicted by logistic regression (5-fold cross-validation, "
            "chance 0.5) from where the two digits lie, from their classes, and from their "
            "sizes, in the columns position, identity and size above. A spatial policy is predicted by position alone.",
        )
        maps = [np.array(policy["maps"]) for policy in policies[:_NUM_MAPS]]
        titles = [f"seed {seed}" for seed in experiment.seeds[:_NUM_MAPS]]
        caption = "Centres of the first (red) and second (green) window on held-out scenes of two digits"
        page.add_picture("policy", _heat_maps(maps, titles), caption)
        page.add("## What differs from the paper", _DIFFERENCES)


def _row(agent: Job, policy: Figures, ceiling: float) -> Figures:
    own = agent.evaluation()
    names = ("box_iou", "elbo", "iwae", "minutes")
    row: Figures = {"run": agent.name, "seed": agent.recipe.seed} | {name: own[name] for name in names}
    return row | {name: policy[name] for name in ("count_accuracy", *CUES, "scenes")} | {"cnn_count_accuracy": ceiling}


def _course(row: Figures) -> Figures:
    return {"iteration": row["iteration"], "count_accuracy_then": row["count_accuracy"], "elbo_then": row["elbo"]}


def _table(rows: Sequence[Figures]) -> str:
    digits = {"count_accuracy": 4, "box_iou": 3, "elbo": 1, "iwae": 1, "minutes": 1, **dict.fromkeys(CUES, 3)}
    header = ["seed", "count accuracy", "box IoU", "ELBO", "IWAE", "minutes", *CUES]
    lines = [[row["seed"], *(number(row[name], places) for name, places in digits.items())] for row in rows]
    return table(header, lines)


def _curves(agents: Sequence[Job], ceilings: Sequence[float]) -> Figure:
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for agent in agents:
        rows = agent.rows()
        label = f"AIR, seed {agent.recipe.seed}"
        axes.plot([row["iteration"] for row in rows], [row["count_accuracy"] for row in rows], lw=1.4, label=label)
    top = float(np.mean(ceilings))
    axes.axhline(top, color="0.2", lw=1, ls="--", label="classifier that is told the counts")
    axes.axhline(CHANCE, color="0.5", lw=1, ls=":", label="chance")
    axes.set(xlabel="iteration", ylabel="held-out count accuracy", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def _stages(agent: Job) -> Figure:
    pictures = sorted((agent.directory / "pictures").glob("scenes_*.png"))
    chosen = sorted({round(i) for i in np.linspace(0, len(pictures) - 1, _NUM_STAGES)})
    stages = [pictures[i] for i in chosen]
    side = agent.agent().model.config.image_size
    width = _NUM_PICTURED * (side * _PICTURE_SCALE + _PICTURE_GAP)
    iterations = [int(path.stem.rpartition("_")[2]) for path in stages]
    titles = [f"after {iteration:,} iterations" if iteration else "before training" for iteration in iterations]
    return figure_of([read_picture(path, width) for path in stages], titles, ("scenes", "reconstructions"))


def _heat_maps(maps: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    figure = Figure(figsize=(2.6 * len(maps), 2.8), layout="constrained")
    for axes, shares, title in zip(_row_of(figure, len(maps)), maps, titles, strict=True):
        axes.imshow(blend(shares), extent=(-1, 1, 1, -1), interpolation="bilinear")
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[])
    return figure


def _row_of(figure: Figure, columns: int) -> list[Axes]:
    return list(figure.subplots(1, columns, squeeze=False)[0])
