"""The figures of the report: how estimators learn, how surely, with how much noise, and at what price."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from PIL import Image

from .outcomes import SUCCESS, Outcome, SweepResults, median, rate_interval

Style = Literal["-", "--", ":", "-."]
_STYLES: tuple[Style, ...] = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_NUM_COLOURS = 10
_DPI = 100
_PALETTE = 128


@dataclass(frozen=True)
class Look:
    """Of an estimator; there are more of them than colours that can be told apart."""

    colour: str
    style: Style
    marker: str

    @classmethod
    def of(cls, index: int) -> "Look":
        """The look of the estimator with an index."""
        turn = index // _NUM_COLOURS
        return cls(f"C{index % _NUM_COLOURS}", _STYLES[turn % len(_STYLES)], _MARKERS[turn % len(_MARKERS)])

    def handle(self, label: str) -> Line2D:
        """A line of the legend."""
        return Line2D([], [], label=label, color=self.colour, linestyle=self.style, marker=self.marker, markersize=5)


Looks = dict[str, Look]


def draw_figures(sweeps: Sequence[SweepResults], path: Path) -> None:
    """Writes a PNG with four panels for each sweep."""
    names = sorted({name for sweep in sweeps for name in sweep.estimators})
    height = 7 + 0.12 * len(names)
    figure = Figure(figsize=(13, height * len(sweeps)), layout="constrained")
    for place, sweep in zip(figure.subfigures(len(sweeps), 1, squeeze=False)[:, 0], sweeps, strict=True):
        _draw_sweep(place, sweep, names)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=_DPI, format="png")
    # A palette, a third of the size: these pages live in the repository.
    Image.open(buffer).convert("RGB").quantize(_PALETTE).save(path, "PNG", optimize=True)


def _draw_sweep(figure: SubFigure, sweep: SweepResults, names: Sequence[str]) -> None:
    """Names are those of all sweeps, so that an estimator looks alike in all of them."""
    figure.suptitle(sweep.directory.resolve().name)
    looks = {name: Look.of(i) for i, name in enumerate(names)}
    (accuracy, success), (noise, price) = figure.subplots(2, 2)
    _draw_accuracy(accuracy, sweep, looks)
    _draw_success(success, sweep, looks)
    _draw_noise(noise, sweep, looks)
    _draw_price(price, sweep, looks)
    handles = [looks[name].handle(name) for name in sweep.estimators]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)


def _draw_accuracy(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    for name in sweep.estimators:
        runs = sweep.of(name)
        iterations = sorted({row["iteration"] for run in runs for row in run.rows})
        if not iterations:
            continue
        values = np.array([[run.accuracy_at("iteration", at) for at in iterations] for run in runs])
        look = looks[name]
        axes.plot(iterations, np.median(values, 0), lw=1.6, color=look.colour, linestyle=look.style)
        # The worst seeds of many estimators would cover everything; they are in the tables.
        low, high = np.quantile(values, (0.25, 0.75), axis=0)
        axes.fill_between(iterations, low, high, color=look.colour, alpha=0.08, lw=0)
    axes.axhline(SUCCESS, color="0.6", lw=0.8, zorder=0)
    axes.set(xlabel="iteration", ylabel="held-out accuracy", ylim=(0, 1.02), title="median and quartiles of the seeds")
    axes.grid(alpha=0.3)


def _draw_success(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    names = sweep.estimators[::-1]
    for place, name in enumerate(names):
        runs = sweep.of(name)
        successes = sum(run.succeeded for run in runs)
        rate, (low, high) = successes / len(runs), rate_interval(successes, len(runs))
        axes.barh(place, rate, color=looks[name].colour, alpha=0.75)
        axes.errorbar(rate, place, xerr=[[rate - low], [high - rate]], color="0.2", lw=1, capsize=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel=f"share of seeds with accuracy {SUCCESS} or more, 95 % interval", xlim=(0, 1.02))
    axes.set_title("success")
    axes.grid(alpha=0.3, axis="x")


def _draw_noise(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    shown = False
    for name in sweep.estimators:
        points: dict[float, list[float]] = {}
        for run in sweep.of(name):
            for row in run.rows:
                # Zero, the exact gradient's, has no place on a logarithmic axis.
                if row.get("added_variance", 0.0) > 0:
                    points.setdefault(row["iteration"], []).append(row["added_variance"])
        if points:
            look, iterations = looks[name], sorted(points)
            medians = [float(np.median(points[at])) for at in iterations]
            axes.plot(iterations, medians, lw=1.4, color=look.colour, linestyle=look.style)
            shown = True
    axes.set(xlabel="iteration", ylabel="added variance, nats²", title="noise in the presence logits, given the path")
    if shown:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _draw_price(axes: Axes, sweep: SweepResults, looks: Looks) -> None:
    prices = {name: median(sweep.of(name), _likelihoods) for name in sweep.estimators}
    reached = [price for price in prices.values() if math.isfinite(price)]
    never = 2 * max(reached, default=1.0)
    for name, price in prices.items():
        if math.isnan(price):
            continue
        runs = sweep.of(name)
        rate = sum(run.succeeded for run in runs) / len(runs)
        look = looks[name]
        axes.plot(min(price, never), rate, color=look.colour, marker=look.marker, markersize=8, alpha=0.8)
    axes.axvline(never, color="0.6", lw=0.8, linestyle=":", zorder=0)
    axes.annotate("never", (never, 0.85), rotation=90, ha="right", va="center", color="0.4")
    axes.set(xlabel=f"likelihoods to {SUCCESS:.0%}, median of the seeds", ylabel="share of seeds that succeed")
    axes.set(ylim=(-0.05, 1.05), xscale="log", title="price")
    axes.grid(alpha=0.3)


def _likelihoods(run: Outcome) -> float:
    return run.until_success("likelihoods")
