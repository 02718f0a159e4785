"""From an inspection of people's own pictures to the settings of training."""

import math
from dataclasses import replace

import numpy as np

from ..evaluation.inspection import Inspection
from ..inference.air import AgentConfig
from .recipes import Recipe

_OBJECT = 14.0
"""Side in pixels of a typical object in the agent's images: patches and glimpses of 20 pixels hold it with a margin."""
_MARGIN = 1.3
"""Side of windows relative to that of objects."""
_WHOLE = 8.0
"""Pictures up to so many objects wide are taken whole; squares are cut from larger ones."""
_IN_SQUARE, _MOST = 3.0, 6
"""Objects that are wanted in a square, and the most in a whole picture."""
_SIDES = (24, 96)
"""Smallest and largest side of an image that the agent is given, in pixels."""


def recipe_for(recipe: Recipe, inspection: Inspection, max_objects: int | None = None) -> Recipe:
    """A recipe with what an inspection says: squares, canvas, prior of windows, N, and the likelihood's scale.

    Args:
        recipe: The recipe to change.
        inspection: Of the pictures that the agent is to be trained on.
        max_objects: N, where it is known.

    Raises:
        ValueError: Nothing was found in the pictures; or the number is too small.
    """
    if inspection.object_size is None:
        raise ValueError(f"{inspection.objections()[0]}; name their size by --object-size")
    low, middle, high = inspection.object_size
    crop, seen = _square(inspection)
    side = max(crop or max(max(size) for size in inspection.sizes), 1)
    image_size = round(min(max(side * min(1.0, _OBJECT / middle), _SIDES[0]), _SIDES[1]))
    if max_objects is None:
        max_objects = min(max(2, seen + 1), 2 * _MOST)
    # A Gaussian's 10th and 90th percentiles are 2.56 standard deviations apart.
    spread = min(max(math.log(max(high / low, 1.0)) / 2.56, 0.15), 0.5)
    scale = min(_MARGIN * middle / side, 0.8)
    black, white = inspection.treatment.levels or (0.0, 1.0)
    noise = float(np.median([found.noise for found in inspection.found])) / (white - black)
    model = replace(
        recipe.model,
        image_size=image_size,
        num_steps=max_objects,
        where_mean=(round(math.log(scale), 3), 0.0, 0.0),
        where_sd=(round(spread, 3), 0.5, 0.5),
        likelihood_scale=round(max(recipe.model.make_likelihood().scale, 2 * noise), 3),
    )
    options = {
        "image_size": image_size,
        "channels": inspection.treatment.channels,
        "crop": crop,
        "invert": inspection.treatment.invert,
    }
    agent = recipe.agent
    if isinstance(agent, AgentConfig):
        agent = replace(agent, initial_scale=round(max(scale, 0.1), 3))
    # Of whole pictures there are no more than there are; of squares as many as are wanted.
    num_train = recipe.num_train if crop else min(max(recipe.batch_size, inspection.num_different), recipe.num_train)
    return replace(recipe, scene_options=options, model=model, agent=agent, num_train=num_train)


def _square(inspection: Inspection) -> tuple[int | None, int]:
    """The side of the squares to cut, None for whole pictures, and how many objects one may show."""
    assert inspection.object_size is not None
    middle, high = inspection.object_size[1:]
    most = int(np.percentile(inspection.counts, 99))
    widest, shortest = max(max(s) for s in inspection.sizes), min(min(s) for s in inspection.sizes)
    if len(inspection.sizes) == 1 and widest <= _WHOLE * middle and most <= _MOST:
        return None, most
    areas = [found.pixels.shape[0] * found.pixels.shape[1] for found in inspection.found]
    density = max(float(inspection.counts.sum()), 1.0) / sum(areas)
    side = min(max(math.sqrt(_IN_SQUARE / density), 2.2 * high), _WHOLE * middle)
    # Bands of few pictures are a fifth of the longer side.
    room = shortest if inspection.num_different >= 3 else min(shortest, 0.2 * widest)
    side = round(max(min(side, room), 4))
    return side, math.ceil(density * side**2 * 1.5)
