"""Measurements of Figure 7: how crockery on a table is recovered, and in which order it is explained."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation
from air_env.renderers import TabletopConfig
from air_env.scenes import SceneDataset

from ..evaluation.photographs import cut_out, look_at, window_of_table
from ..jobs.job import Job
from ..training.recipes import Recipe
from .experiment import Experiment
from .objects import AS_TRAINED, errors, images_of, prepared, timed
from .policy import histograms, predictability
from .study import Case, Metrics

RUNS = {
    "elbo": "AIR, ELBO only",
    "sleep": "AIR, sleep phase first",
    "canonical": "supervised, canonical order",
    "arbitrary": "supervised, arbitrary order",
}
"""Run -> its name on the page."""
AGENTS = ("elbo", "sleep")
NUM_SEEDS_SUPERVISED = 2
"""Seeds, of those that agents are trained with, of the supervised networks."""
SCENARIOS = {"repeated": "kinds repeat", "distinct": "every kind at most once"}
"""Scenario -> its name on the page."""
KINDS_ON_TABLE = TabletopConfig().kinds
NUM_THREADS = 2
REACH = 1.6
"""Half the side of the maps of places, in the scene's unit."""
MARGINS = (0.25, 0.0, -0.05, -0.1)
"""Black margins added to a picture at each side, or cut off there, as shares of its side."""
_BINS = 16
_DETAIL, _NUM_PHOTOGRAPHS = 4, 50
"""Pixels of a large picture for one of an agent's image, in both directions; and how many there are."""


def job_name(scenario: str, run: str) -> str:
    """Name of a run for `Scale.recipe`."""
    return f"tabletop3d_{scenario}_{run}"


def scenes_of(
    experiment: Experiment, run: str, condition: str = AS_TRAINED, num_scenes: int | None = None, **options: object
) -> SceneDataset:
    """Held-out scenes of a run's scenario, by default as many as runs are judged on."""
    options["repetitions"] = "repeated" in run
    return images_of(experiment, num_scenes or experiment.scale.num_test, condition, "tabletop3d", **options)


def trained(job: Job) -> Any:
    """The trained agent or network, with one ray for each pixel in all reconstructions."""
    network = prepared(job)
    network.model.renderer.drawer = replace(network.model.renderer.drawer, samples=1)
    return network


def measure_tables(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Accuracies and errors, count accuracies by the true count, and images per second."""
    scenes, network = scenes_of(experiment, case.run), trained(job)
    z, seconds = timed(network.explain, scenes.float_images(), num_threads=NUM_THREADS)
    metrics = errors(z, scenes, network.model)
    for n in scenes.count.unique().tolist():
        metrics[f"count_accuracy_{n}"] = (z.count == n)[scenes.count == n].double().mean().item()
    # Comparisons are not compiled, so that their speed says nothing.
    speed = {"images_per_second": len(scenes) / seconds} if isinstance(job.recipe, Recipe) else {}
    return metrics | speed


def measure_transfer(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Accuracies and errors on images that another renderer draws."""
    scenes = scenes_of(experiment, case.run, case["condition"], experiment.scale.num_far)
    network = trained(job)
    return errors(network.explain(scenes.float_images()), scenes, network.model)


def measure_photographs(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Count accuracies on large pictures in which the table has to be found: a row for each margin."""
    agent = trained(job)
    side = agent.model.config.image_size
    large = _DETAIL * side
    scenes = scenes_of(experiment, case.run, num_scenes=_NUM_PHOTOGRAPHS, image_size=large)
    rows: list[Metrics] = []
    for margin in MARGINS:
        start, square = round(-margin * large), round((1 + 2 * margin) * large)
        pictures = F.pad(scenes.float_images(), (-start, start + square - large) * 2).permute(0, 2, 3, 1).numpy()
        tables = [cut_out(picture, np.ones_like(picture[..., :1])) for picture in pictures]
        views = [look_at(table, window_of_table(agent, table), side) for table in tables]
        count = agent.explain(torch.from_numpy(np.stack(views))).count
        accuracy = (count == scenes.count).double().mean().item()
        rows.append({"margin": f"{100 * margin:+.0f} %", "photograph_accuracy": accuracy})
    return rows


def measure_policy(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Order of explanation: places and kinds at each step of scenes with three items, and which cue predicts more."""
    agent = trained(job)
    two, three = (
        scenes_of(experiment, case.run, num_scenes=experiment.scale.num_far, counts=(count,)) for count in (2, 3)
    )
    z = agent.explain(three.images)
    shares = {
        f"step_{step + 1}_{kind}": share
        for step, step_shares in enumerate(kind_shares(z).tolist())
        for kind, share in zip(KINDS_ON_TABLE, step_shares, strict=True)
    }
    return {"maps": place_maps(z).tolist(), **shares, **predictability(agent.explain(two.images), two)}


def measure_phases(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Results of each phase of training: the last evaluation of the first phase, and the finished agent."""
    recipe = job.recipe
    assert isinstance(recipe, Recipe)
    annealed = max(recipe.camera_steps + recipe.exploration_steps, recipe.model.likelihood_anneal_steps)
    name, end = ("sleep", recipe.sleep_steps) if recipe.sleep_steps else ("exploring and annealed", annealed)
    first = [row for row in job.rows() if row["iteration"] <= end]
    last = {**job.evaluation(), "iteration": recipe.max_steps}
    return [_phase(name, first[-1] if first else {"iteration": 0}), _phase("then ELBO only", last)]


def _phase(name: str, row: Mapping[str, float | None]) -> Metrics:
    columns = ("iteration", "minutes", "count_accuracy", "identity_accuracy")
    return {"phase": name} | {f"phase_{column}": row.get(column) for column in columns}


def place_maps(z: Explanation) -> Float[np.ndarray, "step row column"]:
    """Places on the table at which items are inferred at each step, as shares; rows from the far end of the table."""
    return histograms(z.z_pres, z.z_where * z.z_where.new_tensor([1, -1]), REACH, _BINS)


def kind_shares(z: Explanation) -> Float[Tensor, "step kind"]:
    """The share of each kind among the items of each step."""
    there = z.z_pres.bool()
    shares = []
    for step in range(z.z_pres.shape[1]):
        kinds = z.z_what[there[:, step], step]
        counts = torch.bincount(kinds, minlength=len(KINDS_ON_TABLE)).double()
        shares.append(counts / counts.sum().clamp_min(1))
    return torch.stack(shares)
