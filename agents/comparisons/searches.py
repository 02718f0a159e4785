"""Searches for the settings of the comparisons: as many tries for each, drawn from a grid of its own.

The first try is the recipe as it is; the others are different points of the grid, drawn by a fixed seed. All are
trained for the same share of their recipe's iterations, and judged on validation scenes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from .recipes import COMPARISONS, ComparisonRecipe

NUM_TRIES, SHARE = 10, 0.25
"""Tries for each comparison, and the share of the recipe's iterations for which they are trained."""
_SEED, _LABELS, _COUNTS = 0, 10_000, (0, 1, 2)

Settings = dict[str, object]
"""``learning_rate``, or ``model.hidden``: name of a setting of the recipe or of its model -> value."""


@dataclass(frozen=True)
class Search:
    """What is tried for a comparison."""

    choices: Mapping[str, tuple[object, ...]]
    """Name of a setting -> its values; among them that of the recipe."""
    judged_by: str
    """Column by which the best is chosen: the largest."""
    num_train: int = 60_000
    """Training images."""
    counts: tuple[int, ...] = _COUNTS
    """Numbers of objects in their scenes."""

    def tries(self, recipe: ComparisonRecipe) -> list[ComparisonRecipe]:
        """The recipe and the points of the grid, with the iterations of a search."""
        points = [dict(zip(self.choices, values, strict=True)) for values in product(*self.choices.values())]
        own = settings_of(recipe, self.choices)
        others = [point for point in points if point != own]
        drawn = np.random.default_rng(_SEED).choice(len(others), NUM_TRIES - 1, replace=False)
        same: Settings = {
            "max_steps": round(recipe.max_steps * SHARE),
            "num_train": self.num_train,
            "scene_options": {"counts": self.counts},
        }
        return [changed(recipe, {**same, **point}) for point in (own, *(others[k] for k in drawn))]


SEARCHES: dict[str, Search] = {
    "draw": Search(
        {
            "learning_rate": (1e-3, 2e-3, 3e-3),
            "model.likelihood_scale": (0.3, 0.2, 0.1),
            "model.learn_scale": (False, True),
            "model.num_steps": (8, 16, 40),
            "model.window": (6, 10, 16),
            "model.hidden": (128, 256),
            "model.latent": (10, 20),
        },
        judged_by="elbo_best_sd",
    ),
    "autoencoder": Search(
        {
            "learning_rate": (5e-4, 1e-3, 2e-3, 4e-3),
            "model.code": (53, 106, 212, 424),
            "model.channels": ((16, 32, 64), (32, 64, 128)),
            "model.hidden": (256, 512),
        },
        judged_by="accuracy",
    ),
    "cnn_sum": Search(
        {
            "learning_rate": (5e-4, 1e-3, 2e-3),
            "model.channels": ((16, 32, 64), (16, 32, 64, 128), (32, 64, 128, 256)),
            "model.hidden": (256, 512),
            "model.dropout": (0.1, 0.3, 0.5),
            "model.weight_decay": (1e-3, 1e-2, 1e-1),
        },
        judged_by="accuracy",
        num_train=_LABELS,
        counts=(2,),
    ),
}
"""Name of a recipe of `COMPARISONS` -> what is tried; what is found for the sum holds for the order, too."""


def changed(recipe: ComparisonRecipe, settings: Settings) -> ComparisonRecipe:
    """The recipe with other settings."""
    of_model = {name.removeprefix("model."): value for name, value in settings.items() if name.startswith("model.")}
    own = {name: value for name, value in settings.items() if not name.startswith("model.")}
    return replace(recipe, model=replace(recipe.model, **of_model), **own)  # type: ignore[arg-type]


def settings_of(recipe: ComparisonRecipe, names: Mapping[str, object]) -> Settings:
    """The values of some settings."""
    return {
        name: getattr(recipe.model if name.startswith("model.") else recipe, name.removeprefix("model."))
        for name in names
    }


TRIED: dict[str, ComparisonRecipe] = {
    f"{name}_try{k}": recipe
    for name, search in SEARCHES.items()
    for k, recipe in enumerate(search.tries(COMPARISONS.find(name)))
}
"""Name of a run -> recipe."""
