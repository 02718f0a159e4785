"""The page on properties: tables and figures of what estimators do on frozen problems."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from ..training.files import write_atomically, write_text_atomically
from .cost import Cost
from .properties import NUM_PARTICLES, PARTS, Properties
from .scaling import Point

_HOW_TO_READ = """\
Everything is given the path of continuous latents: what an estimator *adds* by sampling presences (and, for sprites,
categories). `bias` is the norm of the mean gradient's error over the norm of the exact gradient, in all parameters of
network and model, and `cosine` the mean gradient's with the exact one; enumerated, or (±) of so many samples.
`added variance` is that of an image's gradient over the squared norm of the exact one. `likelihoods` are evaluations of
log p(x | canvas) for an image, found out by hiding each from the estimator; `online` are those that need nothing beyond
the objects they tried. `cost` is (bias² + variance) · likelihoods at the last stage; less is better. Baselines that
learn were fitted to each frozen agent on other images, for as long as that helped. Multi-sample estimators stand on
boards of their own; where their latents are not reparameterised no exact gradient of a path exists, and variance is
relative to the square of the mean gradient. `ppo` is judged by the first of its two passes."""


def write_page(
    rows: Sequence[Properties],
    costs: dict[str, Cost],
    points: Sequence[Point],
    output_dir: Path,
    name: str,
    notes: Sequence[str],
) -> list[Path]:
    """Writes NAME.md, NAME.csv, NAME.png and, with points, NAME_scaling.png; returns their paths."""
    page, sheet, pareto, scaling = (output_dir / f"{name}{end}" for end in (".md", ".csv", ".png", "_scaling.png"))
    parts = [f"# {name}", *notes, _HOW_TO_READ]
    for scene in dict.fromkeys(row.scene for row in rows):
        for objective in dict.fromkeys(row.objective for row in rows if row.scene == scene):
            board = [row for row in rows if row.scene == scene and row.objective == objective]
            parts += [f"## {scene}, {_TITLES[objective]}", bias_table(board), variance_table(board)]
    if costs:
        parts += ["## Time and memory of a training step", cost_table(costs)]
    parts.append(f"![Error against cost]({pareto.name})")
    if points:
        parts.append(f"![Variance against N, saturation and likelihood]({scaling.name})")
    write_text_atomically(page, "\n\n".join(parts) + "\n")
    write_atomically(sheet, lambda path: _write_sheet(rows, path))
    write_atomically(pareto, lambda path: draw_pareto(rows, path))
    if points:
        write_atomically(scaling, lambda path: draw_scaling(points, path))
    return [page, sheet, pareto, *([scaling] if points else [])]


_TITLES = {
    "elbo": "against the gradient of the ELBO",
    "iwae": f"{NUM_PARTICLES} samples, against the gradient of the importance-weighted bound",
    "own": f"{NUM_PARTICLES} samples, objectives of their own",
    "elbo_over_categories": "identities and counts, against the gradient of the ELBO",
}


def bias_table(board: Sequence[Properties]) -> str:
    """Bias, cosine and likelihoods, in Markdown: the worst of all stages."""
    lines = [_line("", "online", "how", "bias (worst)", "cosine (worst)", "likelihoods", "cost"), "|---" * 7 + "|"]
    for name, rows in _by_estimator(board).items():
        worst = max(rows, key=lambda row: row.bias)
        if math.isnan(worst.bias):
            lines.append(_line(f"`{name}`", *_online_and_how(worst), "-", "-", _mean_likelihoods(rows), "-"))
            continue
        error = f" ± {worst.bias_error:.1g}" if worst.bias_error else ""
        cosine = min(row.cosine for row in rows)
        label = f"`{name}`{'' if worst.unbiased else ' (biased)'}"
        found = (f"{worst.bias:.2g}{error}", f"{cosine:.4f}", _mean_likelihoods(rows), f"{rows[-1].cost:.3g}")
        lines.append(_line(label, *_online_and_how(worst), *found))
    return "\n".join(lines)


def _online_and_how(row: Properties) -> tuple[str, str]:
    return "yes" if row.prefix_only else "", f"{row.num_draws} {'outcomes' if row.enumerated else 'samples'}"


def _mean_likelihoods(rows: Sequence[Properties]) -> str:
    return f"{sum(row.likelihoods for row in rows) / len(rows):.2f}"


def variance_table(board: Sequence[Properties]) -> str:
    """Added variance at every stage, and its parts at the last one, in Markdown."""
    stages = list(dict.fromkeys(row.stage for row in board))
    header = ["added variance", *stages, *(f"{part.replace('_', ' ')}, {stages[-1]}" for part in PARTS)]
    lines = [_line(*header), "|---" * len(header) + "|"]
    for name, rows in _by_estimator(board).items():
        # A renderer that is known learns nothing.
        values = [rows[-1].variance_of[part] for part in PARTS]
        of_part = ["-" if math.isnan(value) else f"{value:.3g}" for value in values]
        lines.append(_line(f"`{name}`", *(f"{row.variance:.3g}" for row in rows), *of_part))
    return "\n".join(lines)


def cost_table(costs: dict[str, Cost]) -> str:
    """Time and memory, in Markdown."""
    reference = costs.get("exact")
    lines = [_line("", "ms per step", "times `exact`", "graph, MB"), "|---" * 4 + "|"]
    for name, cost in costs.items():
        ratio = f"{cost.milliseconds / reference.milliseconds:.2f}" if reference else "-"
        lines.append(_line(f"`{name}`", f"{cost.milliseconds:.1f}", ratio, f"{cost.megabytes:.1f}"))
    return "\n".join(lines)


def draw_pareto(rows: Sequence[Properties], path: Path) -> None:
    """Relative squared error against likelihood evaluations, a panel for every stage of the first board."""
    scene, objective = rows[0].scene, rows[0].objective
    rows = [row for row in rows if row.scene == scene and row.objective == objective]
    stages, names = list(dict.fromkeys(row.stage for row in rows)), list(_by_estimator(rows))
    figure = Figure(figsize=(12, 9), layout="constrained")
    for place, stage in enumerate(stages, 1):
        axes = figure.add_subplot((len(stages) + 1) // 2, 2, place)
        mine = [row for row in rows if row.stage == stage]
        errors = _above_zero([row.bias**2 + row.variance for row in mine])
        for row, error in zip(mine, errors, strict=True):
            fill = "full" if row.unbiased else "none"
            style = _style(names, row.estimator)
            axes.plot(row.likelihoods, error, **style, ls="", fillstyle=fill, markersize=8, label=row.estimator)
        axes.set(title=f"{scene}, {stage}", yscale="log")
        axes.set(xlabel="likelihood evaluations for an image", ylabel="(bias² + variance) / squared gradient")
        axes.grid(alpha=0.3, which="both")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right center", fontsize=9, title="hollow: biased\nlowest: no error at all"
    )
    figure.savefig(path, dpi=80, format="png")


def draw_scaling(points: Sequence[Point], path: Path) -> None:
    """Added variance against N, against saturation, and for every likelihood."""
    names = list(dict.fromkeys(point.estimator for point in points))
    figure = Figure(figsize=(15, 5), layout="constrained")
    for axes, axis in zip(figure.subplots(1, 3), _AXES, strict=True):
        there = [point for point in points if point.axis == axis]
        heights = dict(zip(there, _above_zero([point.variance for point in there]), strict=True))
        for name in names:
            mine = [point for point in there if point.estimator == name]
            x = [str(point.value) if axis == "likelihood" else point.value for point in mine]
            line = "" if axis == "likelihood" else "-"
            y = [heights[point] for point in mine]
            axes.plot(x, y, **_style(names, name), ls=line, markersize=6, label=name)
        axes.set(yscale="log", xlabel=_AXES[axis])
        if axis == "saturation":
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("added variance / squared gradient, in the logits")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9, title="lowest: none at all")
    figure.savefig(path, dpi=80, format="png")


_AXES = {"num_steps": "N, number of steps", "saturation": "mean |logit|", "likelihood": "likelihood"}
_MARKERS = "os^vD<>P*Xh"


def _style(names: Sequence[str], name: str) -> dict[str, Any]:
    """A colour and marker of its own."""
    i = names.index(name)
    return {"color": matplotlib.colormaps["tab20"](i % 20), "marker": _MARKERS[i % len(_MARKERS)]}


def _above_zero(values: Sequence[float]) -> list[float]:
    """The values for a logarithmic axis: those of (rounded) 0 are drawn somewhat below all others."""
    floor = min((value for value in values if value > _ROUNDING), default=1.0) / 10
    return [max(value, floor) for value in values]


_ROUNDING = 1e-12


def _by_estimator(rows: Sequence[Properties]) -> dict[str, list[Properties]]:
    return {
        name: [row for row in rows if row.estimator == name] for name in dict.fromkeys(row.estimator for row in rows)
    }


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _write_sheet(rows: Sequence[Properties], path: Path) -> None:
    plain = [name for name in Properties.__dataclass_fields__ if name != "variance_of"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*plain, *(f"variance_{part}" for part in PARTS), "cost"])
        for row in rows:
            writer.writerow(
                [*(getattr(row, name) for name in plain), *(row.variance_of[part] for part in PARTS), row.cost]
            )
