"""Pictures of Figure 7: reconstructions, plans from above, growing explanations."""

from typing import cast

import matplotlib.patches
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from air_env.frames import Frame
from air_env.pictured import stack
from air_env.renderers import TabletopRenderer

from ..evaluation.pictures import strip
from ..pages.tiles import sheet
from .experiment import Experiment
from .tables import KINDS_ON_TABLE, REACH, RUNS, job_name, scenes_of, trained

_NUM_PICTURED, _NUM_ANIMATED, _NUM_PLANS = 10, 6, 6
_PIXELS = 4
"""Pixels per pixel of the images."""
_COLOURS = ("0.6", "tab:blue", "gold")


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
            axes.scatter([], [], 60, color=colour, edgecolors="black", label=KINDS_ON_TABLE[k])
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
            shares = [policy[f"step_{step + 1}_{kind}"] for kind in KINDS_ON_TABLE]
            below.bar(KINDS_ON_TABLE, shares, color=_COLOURS, edgecolor="black")
            below.set(ylim=(0, 1))
            for axes in (above, below):
                axes.tick_params(labelsize=7)
            figure.colorbar(image, ax=above, orientation="horizontal", shrink=0.8).ax.tick_params(labelsize=6)
    grid[0, 0].set_ylabel("place on the table\n(colour: share of items)", fontsize=7)
    grid[1, 0].set_ylabel("share of kinds", fontsize=7)
    return figure
