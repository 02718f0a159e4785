"""What became of the cells of a sweep, and the statistics of an estimator's seeds.

Every seed counts. A run that failed has a count accuracy of 0 and bounds of minus infinity, and what was not reached
took infinitely long; so medians are over all seeds, and no failure makes an average better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ..jobs.job import TO_BE_TRAINED, Job, Status
from ..training.results import read_run
from .record import Record, read_record

SUCCESS = 0.95
"""Count accuracy from which a run has learned to count (our choice)."""
COLLAPSE = 0.6
"""Below it, a run has collapsed (our choice): of three equally frequent counts, a constant guess gets 1/3 right, and
who tells but one of them from the others, 2/3."""
PARTS = ("early", "middle", "late")
"""Thirds of the iterations of a run."""
_CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """A cell that is over."""

    estimator: str
    """Its name."""
    seed: int
    """Seed of the recipe."""
    status: Status
    """What became of it."""
    rows: list[dict[str, float]]
    """Rows of its metrics of validation scenes, with the cumulative ``likelihoods``, where there was a probe."""
    accuracy: float = 0.0
    """Accuracy of the finished agent on test scenes; see `accuracy_of`."""
    elbo: float = -math.inf
    """Bound of the finished agent, in nats."""
    iwae: float = -math.inf
    """Bound of the finished agent, in nats."""
    error: str = ""
    """Why it failed."""

    @property
    def succeeded(self) -> bool:
        """Whether the finished agent counts."""
        return self.accuracy >= SUCCESS

    @property
    def collapsed(self) -> bool:
        """Whether it failed, or counts no better than a guess."""
        return self.accuracy < COLLAPSE

    def last(self, column: str) -> float:
        """The column's value at the end; NaN where there is none."""
        return self.rows[-1].get(column, math.nan) if self.rows else math.nan

    def until_success(self, column: str) -> float:
        """The column's value at the first evaluation that reaches `SUCCESS`; infinite where none does."""
        reached = (row.get(column, math.nan) for row in self.rows if accuracy_of(row) >= SUCCESS)
        return next(reached, math.inf)

    def accuracy_at(self, column: str, budget: float) -> float:
        """Accuracy of the last evaluation within a budget.

        It is 0 before the first one, and from when the run failed.
        """
        if self.status != "finished" and (not self.rows or budget > self.last(column)):
            return 0.0
        return next((accuracy_of(row) for row in reversed(self.rows) if row.get(column, math.inf) <= budget), 0.0)

    def noise(self, part: str) -> float:
        """Median of ``added_variance / gradient_square`` over the evaluations of a part; NaN without a probe."""
        rows = [row for row in self.rows if "added_variance" in row and row.get("gradient_square", 0.0) > 0]
        third = self.last("iteration") / 3
        within = [row for row in rows if PARTS[min(2, math.ceil(row["iteration"] / third) - 1)] == part]
        return float(np.median([row["added_variance"] / row["gradient_square"] for row in within] or math.nan))

    def facts(self) -> dict[str, object]:
        """Its row of the report's sheet; what is not defined is NaN, what was never reached infinite."""
        end = {"iterations": "iteration", "minutes": "minutes", "likelihoods": "likelihoods"}
        return {
            "estimator": self.estimator,
            "seed": self.seed,
            "status": self.status,
            "accuracy": self.accuracy,
            "success": int(self.succeeded),
            "collapsed": int(self.collapsed),
            "elbo": self.elbo,
            "iwae": self.iwae,
            **{name: self.last(column) for name, column in end.items()},
            **{f"{name}_to_success": self.until_success(column) for name, column in end.items()},
            **{f"noise_{part}": self.noise(part) for part in PARTS},
            "saturation": self.last("saturation"),
            "error": self.error,
        }


@dataclass(frozen=True)
class SweepResults:
    """What a sweep has come to."""

    directory: Path
    """The sweep's."""
    record: Record
    """What it is about."""
    outcomes: list[Outcome]
    """Outcomes of the cells that are over."""
    missing: list[str]
    """The names of the others."""
    machines: list[str]
    """That its cells were trained on."""

    @property
    def estimators(self) -> list[str]:
        """Names, those with the most successes first, then those with the highest median."""
        found = self.runs.groupby("estimator").agg(success=("success", "mean"), accuracy=("accuracy", "median"))
        # Stable, so that equals stay in the order of their names.
        return list(found.sort_values(["success", "accuracy"], ascending=False, kind="stable").index)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """`Outcome.facts` of all outcomes, by estimator and seed."""
        return pd.DataFrame([run.facts() for run in self.outcomes]).sort_values(["estimator", "seed"])

    def of(self, estimator: str) -> list[Outcome]:
        """An estimator's outcomes, by seed."""
        return sorted((run for run in self.outcomes if run.estimator == estimator), key=lambda run: run.seed)

    def common_budget(self, column: str) -> float:
        """The largest value of a column that all finished runs reached; NaN where there is none."""
        reached = [run.last(column) for run in self.outcomes if run.status == "finished"]
        return min(reached, default=math.nan) if not any(map(math.isnan, reached)) else math.nan


def read_sweep(directory: Path) -> SweepResults:
    """Reads the cells of a sweep.

    Raises:
        FileNotFoundError: The directory is no sweep's.
        ValueError: Its files are damaged, or nothing in it is over yet.
    """
    record = read_record(directory)
    recipe = record.full_recipe()
    outcomes, missing, machines = [], [], {}
    for name in record.cells:
        job = Job(directory / name, recipe)
        if job.status in TO_BE_TRAINED:
            missing.append(name)
            continue
        final = read_run(job.directory).metrics if job.finished else {}
        final = {name: -math.inf if value is None else value for name, value in final.items()}
        outcomes.append(
            Outcome(
                estimator=job.kind,
                seed=int(name.removeprefix(f"{job.kind}-")),
                status=job.status,
                rows=_accumulated(job.rows(), recipe.batch_size),
                accuracy=accuracy_of(final) if final else 0.0,
                elbo=final.get("elbo", -math.inf),
                iwae=final.get("iwae", -math.inf),
                error=job.failure or "",
            )
        )
        if machine := job.machine():
            machines[f"{machine['cpu']}, torch {machine['torch']}, commit {machine['commit'] or 'unknown'}"] = None
    if not outcomes:
        raise ValueError(f"no cell in {directory} is over yet; train some with benchmark_estimators.py train")
    return SweepResults(directory, record, outcomes, missing, list(machines))


def accuracy_of(figures: Mapping[str, float]) -> float:
    """Share of the scenes whose count is right; where kinds are told apart, times the share of right kinds in them."""
    return figures["count_accuracy"] * figures.get("identity_accuracy", 1.0)


def _accumulated(rows: list[dict[str, float]], batch_size: int) -> list[dict[str, float]]:
    """The rows with the likelihoods of all training so far, in place of those of an image and iteration."""
    total, before, new = 0.0, 0.0, []
    for row in rows:
        if "likelihoods" in row:
            total += row["likelihoods"] * batch_size * (row["iteration"] - before)
            before = row["iteration"]
            row = row | {"likelihoods": total}
        new.append(row)
    return new


def rate_interval(successes: int, trials: int) -> Interval:
    """The exact interval of a rate (Clopper and Pearson, 1934), at 95 %."""
    interval = stats.binomtest(successes, trials).proportion_ci(_CONFIDENCE, method="exact")
    return interval.low, interval.high


def mean_interval(values: Sequence[float]) -> Interval:
    """An interval of the mean of numbers in [0, 1], at 95 % or more however few they are (Anderson, 1969).

    With 95 % the distribution lies within ``d = sqrt(log(2 / 0.05) / (2 n))`` of the sample's (Massart, 1990); its mean
    is least where the largest values, of share d, are 0, and greatest where the least are 1.
    """
    ordered = np.sort(values)
    shift = math.sqrt(math.log(2 / (1 - _CONFIDENCE)) / (2 * len(ordered)))
    taken = np.clip(shift - np.arange(len(ordered)) / len(ordered), 0, 1 / len(ordered))
    mean = float(ordered.mean())
    return mean - float(taken @ ordered[::-1]), mean + float(taken @ (1 - ordered))
