"""The figures of the report: how estimators learn, how surely, with how much noise, and at what price."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .outcomes import SUCCESS, SweepResults, rate_interval

_STYLES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_NUM_COLOURS = 10

Looks = dict[str, dict[str, str]]
"""Estimator -> colour, line style and marker; there are more estimators than colours that can be told apart."""


def draw_figures(sweeps: Sequence[SweepResults]) -> Figure:
    """Four panels for each sweep, in all of which an estimator looks alike."""
    names = sorted({name for sweep in sweeps for name in sweep.estimators})
    looks: Looks = {}
    for i, name in enumerate(names):
        turn = i // _NUM_COLOURS % len(_STYLES)
        looks[name] = {"color": f"C{i % _NUM_COLOURS}", "linestyle": _STYLES[turn], "marker": _MARKERS[turn]}
    height = 7 + 0.12 * len(names)
    figure = Figure(figsize=(13, height * len(sweeps)), layout="constrained")
    for place, sweep in zip(figure.subfigures(len(sweeps), 1, squeeze=False)[:, 0], sweeps, strict=True):
        place.suptitle(sweep.directory.resolve().name)
        draws = (_draw_accuracy, _draw_success, _draw_noise, _draw_price)
        for draw, axes in zip(draws, place.subplots(2, 2).flat, strict=True):
            draw(axes, sweep, looks)
            axes.grid(alpha=0.3, axis="x" if draw is _draw_success else "both")
        handles = {name: Line2D([], [], markersize=5) for name in sweep.estimators}
        for name, handle in handles.items():
            handle.set(**looks[name])
        place.legend(list(handles.values()), list(handles), loc="outside right upper", frameon=False)
    return figure


def _draw_accuracy(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    for name in sweep.estimators:
        runs = sweep.of(name)
        iterations = sorted({row["iteration"] for run in runs for row in run.rows})
        if not iterations:
            continue
        values = np.array([[run.accuracy_at("iteration", at) for at in iterations] for run in runs])
        axes.plot(iterations, np.median(values, 0), lw=1.6)[0].set(**{**looks[name], "marker": ""})
        # The worst seeds of many estimators would cover everything; they are in the tables.
        low, high = np.quantile(values, (0.25, 0.75), axis=0)
        axes.fill_between(iterations, low, high, color=looks[name]["color"], alpha=0.08, lw=0)
    axes.axhline(SUCCESS, color="0.6", lw=0.8, zorder=0)
    axes.set(
        xlabel="iteration", ylabel="validation accuracy", ylim=(0, 1.02), title="median and quartiles of the seeds"
    )


def _draw_success(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    names = sweep.estimators[::-1]
    for place, name in enumerate(names):
        runs = sweep.of(name)
        successes = sum(run.succeeded for run in runs)
        rate, (low, high) = successes / len(runs), rate_interval(successes, len(runs))
        axes.barh(place, rate, color=looks[name]["color"], alpha=0.75)
        axes.errorbar(rate, place, xerr=[[rate - low], [high - rate]], color="0.2", lw=1, capsize=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel=f"share of seeds with accuracy {SUCCESS} or more, 95 % interval", xlim=(0, 1.02))
    axes.set_title("success")


def _draw_noise(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    for name in sweep.estimators:
        rows = pd.DataFrame([row for run in sweep.of(name) for row in run.rows])
        # Zero, the exact gradient's, has no place on a logarithmic axis.
        if "added_variance" in rows and not (noisy := rows[rows.added_variance > 0]).empty:
            medians = noisy.groupby("iteration").added_variance.median()
            axes.plot(medians.index, medians, lw=1.4)[0].set(**{**looks[name], "marker": ""})
            axes.set_yscale("log")
    axes.set(xlabel="iteration", ylabel="added variance, nats²", title="noise in the presence logits, given the path")


def _draw_price(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    found = sweep.runs.groupby("estimator")[["likelihoods_to_success", "success"]]
    prices, rates = found.median().likelihoods_to_success.dropna(), found.mean().success
    never = 2 * prices[np.isfinite(prices)].max() if np.isfinite(prices).any() else 2.0
    for name, price, rate in zip(prices.index, prices, rates[prices.index], strict=True):
        axes.plot(min(price, never), rate, looks[name]["marker"], markersize=8, alpha=0.8, color=looks[name]["color"])
    axes.axvline(never, color="0.6", lw=0.8, linestyle=":", zorder=0)
    axes.annotate("never", (never, 0.85), rotation=90, ha="right", va="center", color="0.4")
    axes.set(xlabel=f"likelihoods to {SUCCESS:.0%}, median of the seeds", ylabel="share of seeds that succeed")
    axes.set(ylim=(-0.05, 1.05), xscale="log", title="price")
