"""Figure 4: scenes that training did not have, explained by AIR, DAIR and DRAW."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from air_env.scenes import SceneDataset

from ..jobs.job import Job
from .experiment import Experiment
from .generalisation import (
    CONDITIONS,
    FAR_COUNTS,
    FAR_STEPS,
    MORE_STEPS,
    TRAININGS,
    Condition,
    measure_agent,
    measure_draw,
    measure_far,
    small_digits,
)
from .measurements import Figures, Measurement, Results
from .page import Page, how_it_was_made, number, table
from .tiles import figure_of, stack, strip

_AGENTS, _MODELS = ("air", "dair"), ("air", "dair", "draw")
_COLOURS = {"air": "C0", "dair": "C1", "draw": "C2"}
_NUM_PICTURED = 8

_DIFFERENCES = """\
- What AIR and DAIR share, and where that deviates from the paper's, is in the README. Our DAIR reads a large glimpse of
  the error canvas, centred where most is unexplained, and its windows start from there; the paper does not say how its
  core reads the error. What part of the difference between AIR and DAIR is due to that was not measured.
- DAIR's settings were chosen by looking at one seed's accuracy on scenes of 2 and 3 digits, of held-out digits in other
  arrangements than those here.
- The likelihood, which the paper does not state, is the same for all three models (Gaussian), so that bounds can be
  compared with each other; they cannot be compared with the paper's.
- Our DRAW is small, with {draw_steps} iterations of training; it may not have converged.
- More digits than 3, more steps than in training, and larger images are ours: the paper has none of them."""


class GeneralisationFigure:
    """Figure 4."""

    title = "Figure 4: strong generalisation"

    def jobs(self, experiment: Experiment) -> list[Job]:
        """The three models, trained on 0, 1, 2 digits and on 0, 1, 3 digits."""
        return experiment.jobs(*(f"{model}_{training}" for training in TRAININGS for model in _MODELS))

    def measurements(self, experiment: Experiment) -> list[Measurement]:
        """Bounds and count accuracies in every condition, and count accuracies of agents far from training."""
        return list(_measurements(experiment))

    def write(self, experiment: Experiment, results: Results, page: Page) -> None:
        """Fills the page."""
        rows, scale = list(_rows(experiment, results)), experiment.scale
        page.add(
            f"# {self.title}",
            "AIR, DAIR and DRAW are trained on images of 0, 1, 2 digits and shown 3 (extrapolation), and trained on "
            "0, 1, 3 digits and shown 2 (interpolation). All scenes are of digits that were never trained on.",
            how_it_was_made("figure4", experiment, self.jobs(experiment)),
            "## Bounds and count accuracy",
            f"Bounds in nats per image, ELBO and importance-weighted (IWAE, {scale.num_samples} samples), with N = 3 "
            f"as in training, on the same {scale.num_bound:,} scenes for all; accuracy of the most "
            f"probable count on {scale.num_test:,} scenes, with N = 3 and with N = {MORE_STEPS}.",
            "Paper, whose figure has no numbers, as its readers report it: DAIR counts about "
            f"{_paper('extrapolation')} right in extrapolation "
            f"and about {_paper('interpolation')} in interpolation, AIR nearly none in extrapolation.",
            _table(rows),
        )
        page.add_numbers(rows)
        page.add_picture("accuracy", _dots(rows), "Every seed a dot, the mean a line")
        page.add("## Reconstructions")
        seed = experiment.seeds[0]
        for name, training, title, scenes in _pictured(experiment):
            models = {model: experiment.job(f"{model}_{training}", seed) for model in _MODELS}
            caption = f"{title}, seed {seed}; AIR and DAIR with N = {FAR_STEPS}"
            page.add_picture(name, _reconstructions(scenes, models), caption)
        far = list(_far_rows(experiment, results))
        low, high = scale.small_objects
        page.add(
            "## Further from training",
            f"Count accuracy with N = {FAR_STEPS}. First up to 5 digits of {low:g} to {high:g} pixels (five digits of "
            "the usual sizes do not fit without overlap). Then larger images, whose digits have the pixels of training "
            "and which the agents see shrunk to their own size, as explain_images.py shows them pictures: it is digits "
            "smaller than any in training that this tests. 4 digits where 5 do not fit.",
            _far_table([row for row in far if row["side"] is None], "digits"),
            _far_table([row for row in far if row["side"] is not None], "side, digits"),
        )
        page.add_numbers(far)
        page.add_picture("far", _curves(far), "Count accuracy over the number of small digits, every seed a line")
        draw_steps = experiment.job("draw_012", seed).recipe.max_steps
        differences = f"{_between_agents(experiment)}\n{_DIFFERENCES.format(draw_steps=f'{draw_steps:,}')}"
        page.add("## What differs from the paper", differences)


def _between_agents(experiment: Experiment) -> str:
    """What the recipes of the two agents differ in, as a point of a list."""
    air, dair = (_flat(asdict(experiment.job(f"{model}_012", experiment.seeds[0]).recipe)) for model in _AGENTS)
    changed = [f"{name} {dair[name]} (AIR: {air[name]})" for name in dair if dair[name] != air[name]]
    return f"- Our DAIR differs from our AIR in these settings: {'; '.join(changed)}."


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"`{prefix}{name}`": value}
    return flat


def _paper(name: str) -> str:
    return next(condition.paper for condition in CONDITIONS if condition.name == name)


def _key(job: Job, condition: Condition) -> str:
    return f"shown_{condition.key}-{job.name}"


def _measurements(experiment: Experiment) -> Iterator[Measurement]:
    scale = experiment.scale
    settings = {
        "num_test": scale.num_test,
        "num_bound": scale.num_bound,
        "num_samples": scale.num_samples,
        "more": MORE_STEPS,
    }
    far = {
        "num_far": scale.num_far,
        "steps": FAR_STEPS,
        "counts": FAR_COUNTS,
        "small": scale.small_objects,
        "canvases": list(scale.canvases.items()),
    }
    for seed in experiment.seeds:
        for condition in CONDITIONS:
            for model in _MODELS:
                job = experiment.job(f"{model}_{condition.training}", seed)

                def compute(job: Job = job, condition: Condition = condition, draw: bool = model == "draw") -> Figures:
                    return (measure_draw if draw else measure_agent)(job.load(), condition, experiment)

                yield Measurement(_key(job, condition), (job,), compute, settings)
        for training in TRAININGS:
            for model in _AGENTS:
                job = experiment.job(f"{model}_{training}", seed)

                def compute_far(job: Job = job) -> Figures:
                    return measure_far(job.agent(), experiment)

                yield Measurement(f"far-{job.name}", (job,), compute_far, far)


def _rows(experiment: Experiment, results: Results) -> Iterator[Figures]:
    for condition in CONDITIONS:
        for model in _MODELS:
            for seed in experiment.seeds:
                job = experiment.job(f"{model}_{condition.training}", seed)
                about = {
                    "condition": condition.name,
                    "trained_on": condition.training,
                    "shown": condition.key,
                    "model": model,
                    "seed": seed,
                }
                yield about | results[_key(job, condition)]


def _table(rows: Sequence[Figures]) -> str:
    header = ["trained on", "shown", "", "model", "seed", "ELBO", "IWAE", "accuracy, N = 3", f"N = {MORE_STEPS}"]
    lines = [
        [
            *(", ".join(row[name]) for name in ("trained_on", "shown")),
            row["condition"],
            row["model"].upper(),
            row["seed"],
            *(number(row[name], 1) for name in ("elbo", "iwae")),
            *(number(row.get(name)) for name in ("count_accuracy", "count_accuracy_more")),
        ]
        for row in rows
    ]
    return table(header, lines)


def _dots(rows: Sequence[Figures]) -> Figure:
    panels = {
        "count_accuracy": "count accuracy, N = 3",
        "count_accuracy_more": f"count accuracy, N = {MORE_STEPS}",
        "elbo": "ELBO, nats",
    }
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for place, condition in enumerate(CONDITIONS):
            for shift, model in zip((-0.22, 0, 0.22), _MODELS, strict=True):
                values = [
                    row[name]
                    for row in rows
                    if (row["model"], row["trained_on"], row["shown"]) == (model, condition.training, condition.key)
                    and row.get(name) is not None
                ]
                _dot(axes, place + shift, values, _COLOURS[model])
        labels = [f"{c.name}\ntrained {c.training}\nshown {c.key}" for c in CONDITIONS]
        axes.set_xticks(range(len(CONDITIONS)), labels, fontsize=8)
        axes.set_title(title, fontsize=10)
        if name != "elbo":
            axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3, axis="y")
    handles = [figure.axes[0].plot([], [], "o", color=_COLOURS[model], label=model.upper())[0] for model in _MODELS]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _dot(axes: Axes, x: float, values: Sequence[float], colour: str) -> None:
    if values:
        axes.plot([x] * len(values), values, "o", color=colour, markersize=4, alpha=0.7)
        axes.plot([x - 0.1, x + 0.1], [mean(values)] * 2, color=colour, lw=2)


def _pictured(experiment: Experiment) -> Iterator[tuple[str, str, str, SceneDataset]]:
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
        if model == "draw":
            rows.append(strip(job.load("cpu").reconstruct(images)))
        else:
            z = job.load("cpu").explain(images, FAR_STEPS)
            rows.append(strip(z.reconstruction.clamp(0, 1), z))
        labels.append(model.upper())
    return figure_of([stack(rows)], [""], labels)


def _far_rows(experiment: Experiment, results: Results) -> Iterator[Figures]:
    for training in TRAININGS:
        for model in _AGENTS:
            for seed in experiment.seeds:
                figures = results[f"far-{model}_{training}-{seed}"]
                about = {"condition": "far", "trained_on": training, "model": model, "seed": seed}
                for count, value in figures["small"].items():
                    yield about | {"side": None, "shown": count, "count_accuracy_far": value}
                for place, value in figures["canvases"].items():
                    side, count = place.split("-")
                    yield about | {"side": side, "shown": count, "count_accuracy_far": value}


def _far_table(rows: Sequence[Figures], what: str) -> str:
    def place(row: Figures) -> str:
        return row["shown"] if row["side"] is None else f"{row['side']} px, {row['shown']}"

    lines: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in rows:
        lines.setdefault((row["trained_on"], row["model"], row["seed"]), {})[place(row)] = row["count_accuracy_far"]
    columns = list(dict.fromkeys(map(place, rows)))
    header = ["trained on", "model", f"seed \\ {what}", *columns]
    return table(
        header,
        [
            [", ".join(training), model.upper(), seed, *(number(values[column]) for column in columns)]
            for (training, model, seed), values in lines.items()
        ],
    )


def _curves(rows: Sequence[Figures]) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, training in zip(figure.subplots(1, len(TRAININGS), sharey=True), TRAININGS, strict=True):
        for model in _AGENTS:
            own = [r for r in rows if r["side"] is None and (r["trained_on"], r["model"]) == (training, model)]
            for seed in dict.fromkeys(row["seed"] for row in own):
                line = [(int(row["shown"]), row["count_accuracy_far"]) for row in own if row["seed"] == seed]
                label = model.upper() if seed == own[0]["seed"] else None
                axes.plot(*zip(*line, strict=True), color=_COLOURS[model], marker="o", markersize=3, lw=1, label=label)
        axes.set_title(f"trained on {', '.join(training)} digits", fontsize=10)
        axes.set(xlabel="small digits in the image", xticks=FAR_COUNTS, ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel(f"count accuracy, N = {FAR_STEPS}")
    return figure
