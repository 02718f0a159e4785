"""Bounds of models that were trained without labels, comparable whatever standard deviation their pixels have.

    ELBO(sd) = -D / 2 log(2 pi sd^2) - S / (2 sd^2) - KL,     S = E_q |x - picture|^2,     best sd^2 = S / D

for images of D pixels: with the network as it is, the ELBO at any sd follows from the ELBO and the log-likelihood at
one. The best sd of a model is chosen on validation scenes, its bound there is measured on others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import pandas as pd
import torch
from matplotlib.figure import Figure

from air_env.scenes import SceneDataset

from ..comparisons.model import ImageModel
from ..evaluation.metrics import evaluate
from ..inference.agent import Agent
from ..jobs.job import Job
from ..pages import show
from .experiment import TEST_SEED, VALIDATION, Experiment
from .study import Case, Metrics

_COUNTS = (0, 1, 2)
"""Objects in the scenes of a bound."""
_TITLES = {
    "representation": "model",
    "seed": "seed",
    "iterations": "iterations",
    "sd": "pixel sd",
    "elbo": "ELBO",
    "best_sd": "best sd",
    "elbo_best_sd": "ELBO at best sd",
    "sampled_error": "squared error",
    "doubling": "gain of last doubling",
}
_DIGITS = {"sd": 3, "best_sd": 3} | dict.fromkeys(("elbo", "elbo_best_sd", "sampled_error", "doubling"), 1)


@dataclass(frozen=True)
class PixelBound:
    """The ELBO as a function of the pixels' standard deviation, means over scenes."""

    num_pixels: int
    """D, colours counted."""
    squared_error: float
    """S, summed over pixels."""
    divergence: float
    """KL in nats."""

    @classmethod
    def of(cls, elbo: float, log_likelihood: float, sd: float, num_pixels: int) -> Self:
        """From the ELBO and its log-likelihood at one standard deviation."""
        constant = num_pixels / 2 * math.log(2 * math.pi * sd**2)
        return cls(num_pixels, -2 * sd**2 * (log_likelihood + constant), log_likelihood - elbo)

    @property
    def best_sd(self) -> float:
        """At which the ELBO is largest."""
        return math.sqrt(self.squared_error / self.num_pixels)

    def at(self, sd: float) -> float:
        """The ELBO in nats."""
        log_likelihood = -self.num_pixels / 2 * math.log(2 * math.pi * sd**2) - self.squared_error / (2 * sd**2)
        return log_likelihood - self.divergence


def bound_of(model: Agent | ImageModel, scenes: SceneDataset) -> PixelBound:
    """The bound of a model whose pixels are Gaussian; the sampled latents are the same each time."""
    num_pixels = scenes.images[0].numel()
    if isinstance(model, Agent):
        generator = torch.Generator(model.model.log_p_count.device).manual_seed(TEST_SEED)
        metrics = evaluate(model, scenes, num_samples=1, generator=generator)
        return PixelBound.of(metrics["elbo"], metrics["log_likelihood"], sd_of(model), num_pixels)
    generator = torch.Generator(model.device).manual_seed(TEST_SEED)
    images = scenes.float_images(model.device)
    terms = model.in_batches(lambda part: torch.stack(model.terms(part, generator), 1), images).double().mean(0)
    log_likelihood, divergence = terms.tolist()
    return PixelBound.of(log_likelihood - divergence, log_likelihood, sd_of(model), num_pixels)


def sd_of(model: Agent | ImageModel) -> float:
    """The pixels' standard deviation, as set or as learned."""
    return (model.model if isinstance(model, Agent) else model).likelihood.scale


def compared(model: Agent | ImageModel, validation: SceneDataset, test: SceneDataset) -> dict[str, float]:
    """Columns: the bound as trained, the best standard deviation, the bound there, and the squared error.

    Args:
        model: The model.
        validation: Scenes on which the best standard deviation is chosen.
        test: Scenes on which all else is measured.
    """
    chosen, measured = bound_of(model, validation).best_sd, bound_of(model, test)
    # A code that is a point has no divergence, and there is no bound.
    nats = {"elbo": measured.at(sd_of(model)), "elbo_best_sd": measured.at(chosen)} if measured.divergence else {}
    return {"sd": sd_of(model), "best_sd": chosen, "sampled_error": measured.squared_error, **nats}


def measure(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Held-out bounds of a model that was trained without labels, and how they rose in training."""
    num_scenes, own = experiment.scale.num_bound, job.evaluation()
    scenes = {split: experiment.held_out(num_scenes, split, counts=_COUNTS) for split in (VALIDATION, "test")}
    course = course_of(job)
    return {
        **compared(job.load(), scenes[VALIDATION], scenes["test"]),
        "doubling": last_doubling(course),
        "iterations": own["iterations"],
        "course": [list(point) for point in course.items()],
    }


def course_of(job: Job) -> dict[int, float]:
    """Iteration -> the objective, on validation scenes where metrics have that, or on the batches since the last row.

    Earlier versions measured it on test scenes.
    """
    names = [name + suffix for suffix in ("_validation", "_test", "") for name in ("elbo", "log_likelihood")]
    return {int(row["iteration"]): next(row[name] for name in names if name in row) for row in job.rows()}


def last_doubling(course: Mapping[int, float]) -> float:
    """Nats that the objective rose in the second half of the iterations: 0 where it is flat on a log scale."""
    last = max(course)
    half = max((iteration for iteration in course if 2 * iteration <= last), default=last)
    return course[last] - course[half]


def table(own: pd.DataFrame) -> str:
    """The rows of `measure`, in Markdown."""
    return show(own.astype({"iterations": int}), _TITLES, _DIGITS)


def winner(own: pd.DataFrame) -> str:
    """Which model has the larger bound at its best standard deviation, and by how much."""
    mean = own[own.elbo_best_sd.notna()].groupby("representation").elbo_best_sd.mean().sort_values(ascending=False)
    first, second = mean.index[:2]
    return (
        f"At the best pixel standard deviation of each, the bound of {first} is {mean[first] - mean[second]:,.1f} nats "
        f"above that of {second}, on average over seeds."
    )


def courses(own: pd.DataFrame) -> Figure:
    """The objective of each model over the iterations, on a log scale, in a panel of its own."""
    models = list(own.representation.unique())
    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        for course in own[own.representation == model].course:
            axes.plot(*zip(*course, strict=True), lw=1)
        axes.set(xscale="log", xlabel="iteration", ylabel="nats")
        axes.set_title(model, fontsize=10)
        axes.grid(alpha=0.3)
    return figure
