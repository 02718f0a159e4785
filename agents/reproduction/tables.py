"""What Figure 7 measures: how crockery on a table is recovered, and in which order it is attended to."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation
from air_env.model import Images
from air_env.renderers import TabletopConfig
from air_env.renderers.backends import KINDS, Kind
from air_env.scenes import SceneDataset

from ..evaluation.photographs import cut_out, fit, look_at, window_of_table
from ..jobs.job import Job
from ..training.recipes import Recipe
from .experiment import Experiment
from .measurements import Figures
from .objects import AS_TRAINED, held_out, judge, prepared, timed
from .policy import predictability

RUNS = {
    "elbo": "AIR, by the ELBO alone",
    "sleep": "AIR, asleep first",
    "canonical": "supervised, canonical order",
    "arbitrary": "supervised, arbitrary order",
}
"""Run -> what a table calls it."""
AGENTS = ("elbo", "sleep")
NUM_SEEDS_SUPERVISED = 2
"""Seeds, of those that agents are trained with, of networks to compare with."""
SCENARIOS = {"repeated": "kinds repeat", "distinct": "every kind at most once"}
"""Scenario -> what a table calls it."""
KINDS_ON_TABLE = TabletopConfig().kinds
NUM_THREADS = 2
REACH = 1.6
MARGINS = (0.25, 0.0, -0.05, -0.1)
"""What is added to a picture at each side, black, or cut off there, as shares of its side."""
_BINS = 16
_DETAIL, _NUM_PHOTOGRAPHS = 4, 50
"""Pixels of a large picture for one of an agent's image, in both directions; and how many there are."""


def job_name(scenario: str, run: str) -> str:
    """What `Scale.recipe` calls it."""
    return f"tabletop3d_{scenario}_{run}"


def scenes_of(
    experiment: Experiment,
    scenario: str,
    condition: str = AS_TRAINED,
    num_scenes: int | None = None,
    **options: Any,
) -> SceneDataset:
    """Held-out scenes of a scenario, by default as many as runs are judged on."""
    options["repetitions"] = scenario == "repeated"
    return held_out(experiment, num_scenes or experiment.scale.num_test, condition, "tabletop3d", **options)


def seeds_of(run: str, experiment: Experiment) -> tuple[int, ...]:
    """The seeds that a run is trained with."""
    return experiment.seeds if run in AGENTS else experiment.seeds[:NUM_SEEDS_SUPERVISED]


def explain(job: Job) -> Callable[[Images], Explanation]:
    """How a trained network explains images; all of them draw with one ray for each pixel."""
    trained = prepared(job)
    trained.model.renderer.drawer = replace(trained.model.renderer.drawer, samples=1)
    return trained.explain


def measure_tables(job: Job, experiment: Experiment, scenario: str) -> Figures:
    """Accuracies and errors, also of counts one by one; and images per second."""
    scenes = scenes_of(experiment, scenario)
    z, seconds = timed(explain(job), scenes.float_images(), num_threads=NUM_THREADS)
    figures = judge(z, scenes, _kinds(job))
    # Nothing is compiled for the others, so that their speed says nothing.
    speed = {"images_per_second": len(scenes) / seconds} if isinstance(job.recipe, Recipe) else {}
    for n in scenes.count.unique().tolist():
        figures[f"count_accuracy_{n}"] = (z.count == n)[scenes.count == n].double().mean().item()
    return figures | speed


def measure_transfer(job: Job, experiment: Experiment, scenario: str, condition: str) -> Figures:
    """Accuracies and errors on images that are made in another way."""
    scenes = scenes_of(experiment, scenario, condition, experiment.scale.num_far)
    return judge(explain(job)(scenes.float_images()), scenes, _kinds(job))


def measure_photographs(job: Job, experiment: Experiment, scenario: str) -> Figures:
    """Count accuracies on large pictures in which the table has to be found, by their margin beside the usual one."""
    agent, method = prepared(job), explain(job)
    side = agent.model.config.image_size
    large = _DETAIL * side
    scenes = scenes_of(experiment, scenario, num_scenes=_NUM_PHOTOGRAPHS, image_size=large)
    accuracies = {}
    for margin in MARGINS:
        window = (round(-margin * large), round(-margin * large), round((1 + 2 * margin) * large))
        views = []
        for image in scenes.float_images().permute(0, 2, 3, 1).numpy():
            picture = look_at(image, window)
            picture = cut_out(picture, np.ones_like(picture[..., :1]))
            views.append(fit(look_at(picture, window_of_table(agent, picture)), side))
        count = method(torch.from_numpy(np.stack(views))).count
        accuracies[f"{100 * margin:+.0f} %"] = (count == scenes.count).double().mean().item()
    return accuracies


def measure_policy(job: Job, experiment: Experiment, scenario: str) -> Figures:
    """Where on the table, and what, is explained at each step of scenes with three items; and which cue tells more."""
    method = explain(job)
    num_scenes = experiment.scale.num_far
    three = scenes_of(experiment, scenario, num_scenes=num_scenes, counts=(3,))
    z = method(three.float_images())
    two = scenes_of(experiment, scenario, num_scenes=num_scenes, counts=(2,))
    return {
        "maps": place_maps(z).tolist(),
        "shares": kind_shares(z).tolist(),
        **predictability(method(two.float_images()), two),
    }


def _kinds(job: Job) -> tuple[Kind, ...]:
    trained: Any = job.load("cpu")
    return tuple(KINDS[name] for name in trained.model.renderer.config.kinds)


def place_maps(z: Explanation) -> Float[np.ndarray, "step row column"]:
    """Where on the table items are inferred at each step, as shares; rows from the far end of the table."""
    edges = np.linspace(-REACH, REACH, _BINS + 1)
    maps = []
    for step in range(z.z_pres.shape[1]):
        # Doubles: in single precision the border lies beyond itself.
        x, y = z.z_where[z.z_pres[:, step] > 0, step].double().clamp(-REACH, REACH).numpy().T
        counts, _, _ = np.histogram2d(-y, x, bins=(edges, edges))
        maps.append(counts / max(1, counts.sum()))
    return np.stack(maps)


def kind_shares(z: Explanation) -> Float[Tensor, "step kind"]:
    """The share of each kind among the items of each step."""
    there = z.z_pres.bool()
    shares = []
    for step in range(z.z_pres.shape[1]):
        kinds = z.z_what[there[:, step], step]
        counts = torch.bincount(kinds, minlength=len(KINDS_ON_TABLE)).double()
        shares.append(counts / counts.sum().clamp_min(1))
    return torch.stack(shares)


def phases(job: Job) -> Iterator[tuple[str, Figures]]:
    """The phases of a training: of the first, the last row of metrics that it wrote; the finished agent."""
    recipe: Any = job.recipe
    annealed = max(recipe.camera_steps + recipe.exploration_steps, recipe.model.likelihood_anneal_steps)
    ends = {"asleep": recipe.sleep_steps} if recipe.sleep_steps else {"exploring and annealed": annealed}
    for phase, end in ends.items():
        rows = [row for row in job.rows() if row["iteration"] <= end]
        yield phase, rows[-1] if rows else {}
    yield "then, nothing but the ELBO", job.evaluation() | {"iteration": recipe.max_steps}
