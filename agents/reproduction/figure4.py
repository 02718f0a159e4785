"""Figure 4, strong generalisation: AIR, DAIR and DRAW on counts that were not trained."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

import pandas as pd
from matplotlib.figure import Figure

from air_env.scenes import SceneDataset

from ..evaluation.pictures import stack, strip
from ..jobs.job import Job
from ..pages import Page, pivot, show
from ..pages.tiles import figure_of
from .experiment import Experiment
from .generalisation import (
    CONDITIONS,
    FAR_COUNTS,
    FAR_STEPS,
    MORE_STEPS,
    TRAININGS,
    measure_bounds,
    measure_far,
    small_digits,
)
from .provenance import how_it_was_made
from .study import Case, Measurement, Study

_AGENTS, _MODELS = ("air", "dair"), ("air", "dair", "draw")
_COLOURS = {"air": "C0", "dair": "C1", "draw": "C2"}
_NUM_PICTURED = 8

_DEVIATIONS = """\
- What AIR and DAIR share, and where that deviates from the paper's, is in the README. Our DAIR reads a large glimpse of
  the error canvas, centred where most is unexplained, and its windows start from there; the paper does not say how its
  core reads the error. What part of the difference between AIR and DAIR is due to that was not measured.
- DAIR's settings were chosen by looking at one seed's accuracy on scenes of 2 and 3 digits, of held-out digits in other
  arrangements than those here.
- The likelihood, which the paper does not state, is the same for all three models (Gaussian), so that bounds can be
  compared with each other; they cannot be compared with the paper's.
- Our DRAW is small, with {draw_steps} iterations of training; it may not have converged.
- More digits than 3, more steps than in training, and larger images are ours: the paper has none of them."""


def _conditions(experiment: Experiment) -> Iterator[Case]:
    for c in CONDITIONS:
        for model in _MODELS:
            for seed in experiment.seeds:
                about = {"condition": c.name, "trained_on": c.training, "shown": c.key, "model": model}
                yield Case(f"{model}_{c.training}", seed, **about)


def _far(experiment: Experiment) -> Iterator[Case]:
    for training in TRAININGS:
        for model in _AGENTS:
            for seed in experiment.seeds:
                yield Case(f"{model}_{training}", seed, condition="far", trained_on=training, model=model)


def tables(table: pd.DataFrame) -> dict[str, str]:
    """Every seed in the paper's conditions, then count accuracies far from training."""
    table = table.assign(name=table.model.str.upper(), trained=table.trained_on.map(", ".join))
    titles = {"trained": "trained on", "shown": "shown", "condition": "", "name": "model", "seed": "seed"}
    titles |= {"elbo": "ELBO", "iwae": "IWAE"}
    titles |= {"count_accuracy": "accuracy, N = 3", "count_accuracy_more": f"N = {MORE_STEPS}"}
    near, far = table[table.condition != "far"], table[table.condition == "far"]
    small, large = far[far.side.isna()], far[far.side.notna()]
    large = large.assign(shown=[f"{side:.0f} px, {shown}" for side, shown in zip(large.side, large.shown, strict=True)])
    keys = {"trained": "trained on", "name": "model"}
    return {
        "conditions": show(near.assign(shown=near.shown.map(", ".join)), titles, {"elbo": 1, "iwae": 1}),
        "small": pivot(small, keys | {"seed": "seed \\ digits"}, "shown", "count_accuracy_far"),
        "large": pivot(large, keys | {"seed": "seed \\ side, digits"}, "shown", "count_accuracy_far"),
    }


def write(page: Page, table: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    scale, seed, texts = experiment.scale, experiment.seeds[0], tables(table)
    papers = {condition.name: condition.paper for condition in CONDITIONS}
    low, high = scale.small_objects
    draw_steps = experiment.job("draw_012", seed).recipe.max_steps
    page.add(
        "AIR, DAIR and DRAW are trained on images of 0, 1, 2 digits and shown 3 (extrapolation), and trained on "
        "0, 1, 3 digits and shown 2 (interpolation). All scenes are of held-out digits.",
        how_it_was_made("figure4", experiment, STUDY.jobs(experiment)),
        "## Bounds and count accuracy",
        f"Bounds in nats per image, ELBO and importance-weighted (IWAE, {scale.num_samples} samples), with N = 3 "
        f"as in training, on the same {scale.num_bound:,} scenes for all; accuracy of the most "
        f"probable count on {scale.num_test:,} scenes, with N = 3 and with N = {MORE_STEPS}.",
        "Paper, whose figure has no numbers, as its readers report it: DAIR counts about "
        f"{papers['extrapolation']} right in extrapolation and about {papers['interpolation']} in interpolation, "
        "AIR nearly none in extrapolation.",
        texts["conditions"],
    )
    page.add_picture("accuracy", dots(table), "Every seed a dot, the mean a line")
    page.add("## Reconstructions")
    for name, training, title, scenes in _pictured(experiment):
        models = {model: experiment.job(f"{model}_{training}", seed) for model in _MODELS}
        caption = f"{title}, seed {seed}; AIR and DAIR with N = {FAR_STEPS}"
        page.add_picture(name, _reconstructions(scenes, models), caption)
    page.add(
        "## Further from training",
        f"Count accuracy with N = {FAR_STEPS}. First up to 5 digits of {low:g} to {high:g} pixels (five digits of "
        "the usual sizes do not fit without overlap). Then larger images, whose digits have the pixels of training "
        "and which the agents see shrunk to their own size, as `air-env explain` shows them pictures: this tests "
        "digits smaller than any in training. 4 digits where 5 do not fit.",
        texts["small"],
        texts["large"],
    )
    page.add_picture("far", far_curves(table), "Count accuracy over the number of small digits, every seed a line")
    deviations = f"{_between_agents(experiment)}\n{_DEVIATIONS.format(draw_steps=f'{draw_steps:,}')}"
    page.add("## Deviations from the paper", deviations)


def _between_agents(experiment: Experiment) -> str:
    """Settings in which the recipes of the two agents differ, as a point of a list."""
    air, dair = (dict(_flat(asdict(experiment.job(f"{m}_012", experiment.seeds[0]).recipe))) for m in _AGENTS)
    changed = [f"`{name}` {dair[name]} (AIR: {air[name]})" for name in dair if dair[name] != air[name]]
    return f"- Our DAIR differs from our AIR in these settings: {'; '.join(changed)}."


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Settings with their dotted names."""
    for name, value in settings.items():
        yield from _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]


def dots(table: pd.DataFrame) -> Figure:
    """Every seed a dot, the mean a line, in each of the conditions."""
    panels = {
        "count_accuracy": "count accuracy, N = 3",
        "count_accuracy_more": f"count accuracy, N = {MORE_STEPS}",
        "elbo": "ELBO, nats",
    }
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    near = table[table.condition != "far"]
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for place, c in enumerate(CONDITIONS):
            for shift, model in zip((-0.22, 0, 0.22), _MODELS, strict=True):
                own = near[(near.model == model) & (near.trained_on == c.training) & (near.shown == c.key)]
                values, x = own[name].dropna(), place + shift
                if len(values):
                    axes.plot([x] * len(values), values, "o", color=_COLOURS[model], markersize=4, alpha=0.7)
                    axes.plot([x - 0.1, x + 0.1], [values.mean()] * 2, color=_COLOURS[model], lw=2)
        labels = [f"{c.name}\ntrained {c.training}\nshown {c.key}" for c in CONDITIONS]
        axes.set_xticks(range(len(CONDITIONS)), labels, fontsize=8)
        axes.set_title(title, fontsize=10)
        if name != "elbo":
            axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3, axis="y")
    handles = [figure.axes[0].plot([], [], "o", color=_COLOURS[model], label=model.upper())[0] for model in _MODELS]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def far_curves(table: pd.DataFrame) -> Figure:
    """Count accuracy over the number of small digits, every seed a line."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    small = table[(table.condition == "far") & table.side.isna()]
    for axes, training in zip(figure.subplots(1, len(TRAININGS), sharey=True), TRAININGS, strict=True):
        for model in _AGENTS:
            own = small[(small.trained_on == training) & (small.model == model)]
            wide = own.assign(shown=own.shown.astype(int)).pivot(
                index="shown", columns="seed", values="count_accuracy_far"
            )
            drawn = axes.plot(wide.index, wide.to_numpy(), color=_COLOURS[model], marker="o", markersize=3, lw=1)
            drawn[0].set_label(model.upper())
        axes.set_title(f"trained on {', '.join(training)} digits", fontsize=10)
        axes.set(xlabel="small digits in the image", xticks=FAR_COUNTS, ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel(f"count accuracy, N = {FAR_STEPS}")
    return figure


def _pictured(experiment: Experiment) -> Iterable[tuple[str, str, str, SceneDataset]]:
    """Name, training, title and scenes of each picture."""
    num_test, most = experiment.scale.num_test, max(FAR_COUNTS)
    for name, training, count in (("extrapolation", "012", 3), ("interpolation", "013", 2)):
        title = f"{count} digits after training on {', '.join(training)}"
        yield name, training, title, experiment.held_out(num_test, counts=(count,))
    yield "five", "012", f"{most} digits after training on 0, 1, 2", small_digits(experiment, most)


def _reconstructions(scenes: SceneDataset, models: dict[str, Job]) -> Figure:
    scenes = scenes[:_NUM_PICTURED]
    images = scenes.float_images()
    rows, labels = [strip(images)], ["scenes"]
    for model, job in models.items():
        trained = job.load("cpu")
        if model == "draw":
            rows.append(strip(trained.reconstruct(images)))
        else:
            z = trained.explain(images, FAR_STEPS)
            rows.append(strip(z.reconstruction.clamp(0, 1), z))
        labels.append(model.upper())
    return figure_of([stack(rows)], [""], labels)


STUDY = Study(
    "Figure 4: strong generalisation",
    (
        Measurement(_conditions, measure_bounds, {"more": MORE_STEPS}),
        Measurement(_far, measure_far, {"steps": FAR_STEPS, "counts": FAR_COUNTS}),
    ),
    tables,
    write,
    text_columns=("trained_on", "shown"),
)
