"""Pictures of Figure 7: what is made of tables, from the camera, from above, and step by step."""

from collections.abc import Mapping
from typing import Any

import matplotlib.patches
import numpy as np
import torch
from matplotlib.figure import Figure

from .experiment import Experiment
from .measurements import Figures
from .page import Picture
from .tables import KINDS_ON_TABLE, REACH, RUNS, explain, job_name, scenes_of
from .tiles import figure_of, stack, strip

_NUM_PICTURED, _NUM_ANIMATED, _NUM_PLANS = 10, 6, 6
_COLOURS = ("0.6", "tab:blue", "gold")


def reconstructions(experiment: Experiment, scenario: str) -> Figure:
    """Images above what every method makes of them."""
    images = scenes_of(experiment, scenario).float_images()[:_NUM_PICTURED]
    strips = [strip(images)]
    for run in RUNS:
        z = explain(experiment.job(job_name(scenario, run), experiment.seeds[0]))(images)
        assert isinstance(z.reconstruction, torch.Tensor)
        strips.append(strip(z.reconstruction))
    return figure_of([stack(strips)], [""], ["image", *RUNS.values()])


def frames(experiment: Experiment, scenario: str) -> list[Picture]:
    """Explanations that grow, item by item, below their images."""
    scenes = scenes_of(experiment, scenario)
    images = scenes[scenes.count > 1].float_images()[:_NUM_ANIMATED]
    job = experiment.job(job_name(scenario, "elbo"), experiment.seeds[0])
    agent, z = job.agent(), explain(job)(images)
    counts = range(z.z_pres.shape[1] + 1)
    return [stack([strip(images, scale=3), strip(agent.model.render(z.first(n)), scale=3)]) for n in counts]


def plans(experiment: Experiment, scenario: str) -> Figure:
    """Tables from above, with true and inferred items and cameras."""
    scenes = scenes_of(experiment, scenario)
    scenes = scenes[scenes.count > 1][:_NUM_PLANS]
    agent: Any = experiment.job(job_name(scenario, "elbo"), experiment.seeds[0]).agent()
    z = agent.explain(scenes.images)
    assert scenes.poses is not None
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    grid = figure.subplots(1, len(scenes), squeeze=False)[0]
    for i, axes in enumerate(grid):
        axes.add_patch(matplotlib.patches.Rectangle((-2.1, -2.1), 4.2, 4.2, color="0.93"))
        for k, colour in enumerate(_COLOURS):
            x, y = scenes.poses[i, scenes.labels[i] == k].T.numpy()
            axes.scatter(x, y, 60, color=colour, edgecolors="black")
            # Everywhere, so that the legend has it.
            axes.scatter([], [], 60, color=colour, edgecolors="black", label=KINDS_ON_TABLE[k])
            x, y = z.z_where[i, (z.z_pres[i] > 0) & (z.z_what[i] == k)].T.numpy()
            axes.scatter(x, y, 40, color="red", marker=("+", "x", "1")[k])
        for angle, colour in ((scenes.z_scene[i], "black"), (z.z_scene[i], "red")):
            x, y, _ = (0.5 * agent.model.renderer.camera(angle)).tolist()
            axes.scatter([x], [y], 30, color=colour, marker="^" if colour == "black" else "2")
        axes.set(xlim=(-3, 3), ylim=(-3.8, 2.4), aspect="equal", xticks=[], yticks=[])
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", fontsize=8)
    return figure


def policy_maps(policies: Mapping[str, Figures]) -> Figure:
    """Heat maps of places above shares of kinds, step by step, of every method by its name."""
    steps = len(next(iter(policies.values()))["shares"])
    figure = Figure(figsize=(2.1 * steps * len(policies), 3.6), layout="constrained")
    grid = figure.subplots(2, steps * len(policies), squeeze=False, height_ratios=(2, 1))
    for i, (method, policy) in enumerate(policies.items()):
        for step in range(steps):
            above, below = grid[:, i * steps + step]
            above.imshow(np.array(policy["maps"][step]), extent=(-REACH, REACH, -REACH, REACH), cmap="magma")
            above.set_title(f"{method}\nstep {step + 1}", fontsize=8)
            above.set(xticks=[], yticks=[])
            below.bar(KINDS_ON_TABLE, policy["shares"][step], color=_COLOURS, edgecolor="black")
            below.set(ylim=(0, 1))
            below.tick_params(labelsize=7)
    return figure
