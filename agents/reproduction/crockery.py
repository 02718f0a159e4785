"""Crockery on a table (Figure 7): how it is recovered, in which order it is explained, and pictures of that."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import matplotlib.patches
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from air_env.explanation import Explanation
from air_env.frames import Frame
from air_env.pictured import stack
from air_env.renderers import TabletopConfig, TabletopRenderer
from air_env.scenes import SceneDataset

from ..evaluation.photographs import cut_out, look_at, window_of_table
from ..evaluation.pictures import strip
from ..jobs.job import Job
from ..pages.tiles import sheet
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
NUM_SEEDS = {"canonical": 2, "arbitrary": 2}
"""Supervised network -> how many of the seeds that agents are trained with."""
SCENARIOS = {"repeated": "kinds repeat", "distinct": "every kind at most once"}
"""Scenario -> its name on the page."""
KINDS = TabletopConfig().kinds
NUM_THREADS = 2
REACH = 1.6
"""Half the side of the maps of places, in the scene's unit."""
MARGINS = (0.25, 0.0, -0.05, -0.1)
"""Black margins added to a picture at each side, or cut off there, as shares of its side."""
_BINS = 16
_DETAIL = 4
"""Pixels of a large picture for one of an agent's image, in both directions."""
_NUM_PICTURED, _NUM_ANIMATED, _NUM_PLANS = 10, 6, 6
_PIXELS = 4
"""Pixels per pixel of the images."""
_COLOURS = ("0.6", "tab:blue", "gold")


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
    scenes = scenes_of(experiment, case.run, num_scenes=experiment.scale.num_photographs, image_size=large)
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
        for kind, share in zip(KINDS, step_shares, strict=True)
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
    counts = (F.one_hot(z.z_what, len(KINDS)).double() * z.z_pres[..., None]).sum(0)
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def reconstructions(experiment: Experiment, scenario: str) -> Figure:
    """Images above every method's reconstructions."""
    images = scenes_of(experiment, scenario).float_images()[:_NUM_PICTURED]
    drawn = {"image": images}
    for run, method in RUNS.items():
        network = trained(experiment.job(job_name(scenario, run), experiment.seeds[0]))
        drawn[method] = network.explain(images).reconstruction
    return sheet({name: strip(part, scale=_PIXELS) for name, part in drawn.items()})


def frames(experiment: Experiment, scenario: str) -> list[Frame]:
    """Explanations that grow, item by item, below their images."""
    scenes = scenes_of(experiment, scenario)
    images = scenes[scenes.count > 1].float_images()[:_NUM_ANIMATED]
    agent = experiment.job(job_name(scenario, "elbo"), experiment.seeds[0]).agent()
    z = agent.explain(images)
    counts = range(z.z_pres.shape[1] + 1)
    return [stack([strip(images, scale=3), strip(agent.model.render(z.first(n)), scale=3)]) for n in counts]


def plans(experiment: Experiment, scenario: str) -> Figure:
    """Tables from above, with true and inferred items and cameras."""
    scenes = scenes_of(experiment, scenario)
    scenes = scenes[scenes.count > 1][:_NUM_PLANS]
    agent = experiment.job(job_name(scenario, "elbo"), experiment.seeds[0]).agent()
    z, renderer = agent.explain(scenes.images), cast(TabletopRenderer, agent.model.renderer)
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    grid = figure.subplots(1, len(scenes), squeeze=False)[0]
    for i, axes in enumerate(grid):
        axes.add_patch(matplotlib.patches.Rectangle((-2.1, -2.1), 4.2, 4.2, color="0.93"))
        for k, colour in enumerate(_COLOURS):
            x, y = scenes.poses[i, scenes.labels[i] == k].T.numpy()
            axes.scatter(x, y, 60, color=colour, edgecolors="black")
            # Everywhere, so that the legend has it.
            axes.scatter([], [], 60, color=colour, edgecolors="black", label=KINDS[k])
            x, y = z.z_where[i, (z.z_pres[i] > 0) & (z.z_what[i] == k)].T.numpy()
            axes.scatter(x, y, 40, color="red", marker=("+", "x", "1")[k])
        for angle, colour in ((scenes.z_scene[i], "black"), (z.z_scene[i], "red")):
            x, y, _ = (0.5 * renderer.camera(angle)).tolist()
            axes.scatter([x], [y], 30, color=colour, marker="^" if colour == "black" else "2")
        axes.set(xlim=(-3, 3), ylim=(-3.8, 2.4), aspect="equal", xticks=[], yticks=[])
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", fontsize=8)
    return figure


def policy_maps(policies: pd.DataFrame) -> Figure:
    """Heat maps of places above shares of kinds, step by step, for the method of every row."""
    steps = len(policies.maps.iloc[0])
    figure = Figure(figsize=(2.1 * steps * len(policies) + 0.8, 4), layout="constrained")
    grid = figure.subplots(2, steps * len(policies), squeeze=False, height_ratios=(2, 1))
    for i, policy in enumerate(policies.to_dict("records")):
        for step in range(steps):
            above, below = grid[:, i * steps + step]
            extent = (-REACH, REACH, -REACH, REACH)
            image = above.imshow(np.array(policy["maps"][step]), extent=extent, cmap="magma", vmin=0)
            above.set_title(f"{policy['method']}\nstep {step + 1}", fontsize=8)
            above.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
            shares = [policy[f"step_{step + 1}_{kind}"] for kind in KINDS]
            below.bar(KINDS, shares, color=_COLOURS, edgecolor="black")
            below.set(ylim=(0, 1))
            for axes in (above, below):
                axes.tick_params(labelsize=7)
            figure.colorbar(image, ax=above, orientation="horizontal", shrink=0.8).ax.tick_params(labelsize=6)
    grid[0, 0].set_ylabel("place on the table\n(colour: share of items)", fontsize=7)
    grid[1, 0].set_ylabel("share of kinds", fontsize=7)
    return figure
