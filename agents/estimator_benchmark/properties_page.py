"""The page on properties: tables and figures of what estimators do on frozen problems."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from ..pages import Page, number, table
from .cost import Cost
from .cut import Cut
from .properties import NUM_PARTICLES, PARTS, Properties
from .scaling import Point
from .submission import BENCHMARK

_HOW_TO_READ = """\
Everything is given the path of continuous latents: what an estimator *adds* by sampling presences (and, for sprites,
categories). `bias` is the norm of the mean gradient's error over the norm of the exact gradient, in all parameters of
network and model, and `cosine` the mean gradient's with the exact one; enumerated, or (±) of so many samples.
`added variance` is that of an image's gradient over the squared norm of the exact one. `likelihoods` are evaluations of
log p(x | canvas) for an image, found out by hiding each from the estimator; `online` are those that need nothing beyond
the objects they tried. `cost` is (bias² + variance) · likelihoods at the last stage; less is better. Baselines that
learn were fitted to each frozen agent on other images, for as long as that helped. Multi-sample estimators stand on
boards of their own; where their latents are not reparameterised no exact gradient of a path exists, and variance is
relative to the square of the mean gradient. `ppo` is judged by the first of its two passes,
and pays for that one alone."""
_HOW_TO_READ_CUTS = """\
Agents that read the canvas are trained without the gradient that leads through it (README, Deviations). The gradient
that all of the above is measured against is cut there, too. Here it is beside the true gradient of the ELBO, both with
counts and categories summed out, averaged over images, in all parameters. Where nothing is read off the canvas
(`digits`, `multi_mnist`) nothing is cut."""
_TITLES = {
    "elbo": "against the gradient of the ELBO",
    "iwae": f"{NUM_PARTICLES} samples, against the gradient of the importance-weighted bound",
    "own": f"{NUM_PARTICLES} samples, objectives of their own",
    "elbo_over_categories": "identities and counts, against the gradient of the ELBO (cut at the canvas)",
}
_AXES = {"num_steps": "N, number of steps", "saturation": "mean |logit|", "likelihood": "likelihood"}
_MARKERS = "os^vD<>P*Xh"
_ROUNDING = 1e-12


def write_page(
    rows: Sequence[Properties],
    costs: dict[str, Cost],
    points: Sequence[Point],
    cuts: Sequence[Cut],
    output_dir: Path,
    name: str,
    notes: Sequence[str],
) -> list[Path]:
    """Writes NAME.md, NAME.csv, NAME.png and, with points, NAME_scaling.png; returns their paths."""
    page, frame = Page(output_dir, name), as_frame(rows)
    page.add(f"# {name}", *notes, _HOW_TO_READ)
    boards = [board for _, board in frame.groupby(["scene", "objective"], sort=False)]
    for board in boards:
        scene, objective = board[["scene", "objective"]].iloc[0]
        page.add(f"## {scene}, {_TITLES[objective]}", bias_table(board), variance_table(board))
    if cuts:
        page.add("## The cut through the canvas", _HOW_TO_READ_CUTS, cut_table(cuts))
    if costs:
        page.add("## Time and memory of a training step", cost_table(costs))
    page.add_table(frame)
    page.add_picture("", draw_pareto(boards[0]), "Error against cost")
    if points:
        page.add_picture("scaling", draw_scaling(points), "Variance against N, saturation and likelihood")
    return page.write()


def as_frame(rows: Sequence[Properties]) -> pd.DataFrame:
    """The rows with the benchmark's name, a column for the variance of each of `PARTS`, and the cost."""
    frame = pd.DataFrame([vars(row) for row in rows]).drop(columns="variance_of")
    of_parts = pd.DataFrame([row.variance_of for row in rows])[list(PARTS)].add_prefix("variance_")
    frame = frame.join(of_parts).assign(cost=[row.cost for row in rows])
    frame.insert(0, "benchmark", BENCHMARK)
    return frame


def bias_table(board: pd.DataFrame) -> str:
    """Bias, cosine and likelihoods, in Markdown: the worst of all stages."""
    rows = []
    for name, own in board.groupby("estimator", sort=False):
        # Where an estimator has no exact gradient of a path, all of its biases are NaN.
        worst = own.sort_values("bias", ascending=False, kind="stable").iloc[0]
        error = f" ± {worst.bias_error:.1g}" if worst.bias_error else ""
        known = pd.notna(worst.bias)
        rows.append(
            [
                f"`{name}`{'' if worst.unbiased or not known else ' (biased)'}",
                "yes" if worst.prefix_only else "",
                f"{worst.num_draws} {'outcomes' if worst.enumerated else 'samples'}",
                f"{worst.bias:.2g}{error}" if known else "-",
                number(own.cosine.min(), 4),
                f"{own.likelihoods.mean():.2f}",
                f"{own.cost.iloc[-1]:.3g}" if known else "-",
            ]
        )
    return table(["", "online", "how", "bias (worst)", "cosine (worst)", "likelihoods", "cost"], rows)


def variance_table(board: pd.DataFrame) -> str:
    """Added variance at every stage, and its parts at the last one, in Markdown."""
    stages = list(board.stage.unique())
    rows = []
    for name, own in board.groupby("estimator", sort=False):
        of_part = own.iloc[-1][[f"variance_{part}" for part in PARTS]]
        # A renderer that is known learns nothing.
        rows.append(
            [f"`{name}`", *(f"{v:.3g}" for v in own.variance), *("-" if v != v else f"{v:.3g}" for v in of_part)]
        )
    return table(["added variance", *stages, *(f"{part.replace('_', ' ')}, {stages[-1]}" for part in PARTS)], rows)


def cut_table(cuts: Sequence[Cut]) -> str:
    """Bias and cosine of the gradient with the cut, in Markdown."""
    rows = [
        [cut.scene, f"`{cut.core}`", cut.stage, number(cut.count_accuracy, 2), f"{cut.bias:.2f}", f"{cut.cosine:.2f}"]
        for cut in cuts
    ]
    return table(["scene", "core", "stage", "count accuracy", "bias", "cosine"], rows)


def cost_table(costs: dict[str, Cost]) -> str:
    """Time and memory, in Markdown."""
    frame = pd.DataFrame([vars(cost) for cost in costs.values()], index=list(costs))
    times = frame.milliseconds / frame.milliseconds.get("exact", np.nan)
    rows = [
        [f"`{name}`", number(cost.milliseconds, 1), number(times[name], 2), number(cost.megabytes, 1)]
        for name, cost in costs.items()
    ]
    return table(["", "ms per step", "times `exact`", "graph, MB"], rows)


def draw_pareto(board: pd.DataFrame) -> Figure:
    """Relative squared error against likelihood evaluations, a panel for every stage."""
    names, stages = list(board.estimator.unique()), board.groupby("stage", sort=False)
    figure = Figure(figsize=(12, 9), layout="constrained")
    for place, (stage, there) in enumerate(stages, 1):
        axes = figure.add_subplot((len(stages) + 1) // 2, 2, place)
        errors = _above_zero(there.bias**2 + there.variance)
        for row, error in zip(there.itertuples(), errors, strict=True):
            fill = "full" if row.unbiased else "none"
            _plot(axes, names, str(row.estimator), [row.likelihoods], [error], ls="", fillstyle=fill, markersize=8)
        axes.set(title=f"{board.scene.iloc[0]}, {stage}", yscale="log")
        axes.set(xlabel="likelihood evaluations for an image", ylabel="(bias² + variance) / squared gradient")
        axes.grid(alpha=0.3, which="both")
    return _with_legend(figure, "hollow: biased\nlowest: no error at all")


def draw_scaling(points: Sequence[Point]) -> Figure:
    """Added variance against N, against saturation, and for every likelihood."""
    frame = pd.DataFrame(points)
    names = list(frame.estimator.unique())
    figure = Figure(figsize=(15, 5), layout="constrained")
    for axes, (axis, label) in zip(figure.subplots(1, 3), _AXES.items(), strict=True):
        there = frame[frame.axis == axis]
        there = there.assign(height=_above_zero(there.variance))
        for name, own in there.groupby("estimator", sort=False):
            line = "" if axis == "likelihood" else "-"
            _plot(axes, names, str(name), own.value.tolist(), own.height.tolist(), ls=line, markersize=6)
        axes.set(yscale="log", xlabel=label)
        if axis == "saturation":
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("added variance / squared gradient, in the logits")
    return _with_legend(figure, "lowest: none at all")


def _plot(
    axes: Axes, names: Sequence[str], name: str, x: Sequence[object], y: Sequence[float], **style: object
) -> None:
    """Plots an estimator with a colour and a marker of its own."""
    i = names.index(name)
    colour, marker = matplotlib.colormaps["tab20"](i % 20), _MARKERS[i % len(_MARKERS)]
    (line,) = axes.plot(x, y, color=colour, marker=marker, label=name)  # type: ignore[arg-type]
    line.set(**style)


def _with_legend(figure: Figure, title: str) -> Figure:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9, title=title)
    return figure


def _above_zero(values: pd.Series) -> pd.Series:
    """The values for a logarithmic axis: those of (rounded) 0 are drawn somewhat below all others."""
    above = values[values > _ROUNDING]
    return values.clip(lower=(1.0 if above.empty else above.min()) / 10)
