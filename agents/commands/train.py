"""Trains an agent, or a model to compare it with, by a recipe.

    air-env train                                            # the bundled digits, minutes on a laptop
    air-env train multi_mnist --seed 1 --max-minutes 12
    air-env train multi_mnist --model.num-steps 5 --model.likelihood laplace --scene-options.counts 0 1 2 3
    air-env train my_file.py:my_recipe --estimator mine=my_file.py:MyEstimator
    air-env train images --data-dir photos                   # your own pictures, which need no labels
    air-env train --resume runs/digits-half_critic-0 --max-steps 5000
    air-env train --config runs/digits-half_critic-0/config.json --output-dir runs/again

`air-env train RECIPE --help` shows all settings; `air-env train --list` lists recipes, estimators and scenes.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from .shell import SUCCESS
from .training import Command, RunArguments, execute, short

if TYPE_CHECKING:
    from ..training.settings import TrainingSettings

_RECIPE, _OWN = "digits", "images"
_PRINTED = (
    *(
        "explained",
        "mean_count",
        "count_accuracy",
        "count_accuracy_nonempty",
        "count_accuracy_sampled",
        "identity_accuracy",
        "identity_agreement",
    ),
    *("identity_agreement_originals", "position_error", "rotation_error", "box_iou_tight", "elbo", "iwae"),
)


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Trains an agent, or a model to compare it with, by a recipe."""

    recipe: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = None
    """Named settings: digits, multi_mnist, sprites, objects3d, ..., or path.py:my_recipe; default: digits."""
    list: bool = False
    """Lists the recipes, estimators and scenes that there are."""
    max_objects: int | None = None
    """N, the largest number of objects, of recipe images; default: what `air-env inspect` sees, and one more."""
    object_size: tuple[float, float] | None = None
    """Smallest and largest longer side of an object in pixels, of recipe images; default: what inspect sees."""
    channels: Literal[1, 3] | None = None
    """1 reads pictures as grey, 3 as RGB, of recipe images; default: 1."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Whether objects are dark, of recipe images; auto: what inspect sees."""


@dataclass(frozen=True, kw_only=True)
class Common(Arguments):
    """Trains an agent, or a model to compare it with, by a recipe."""

    seed: int | None = None
    """Decides the images, the initial weights, the order of batches and all noise; default: 0."""
    estimator: str | None = None
    """Gradient of the stop action: half_critic, nvil, exact, ..., or mine=path.py:X; default: the recipe's."""
    max_steps: int | None = None
    """Iterations of training; default: the recipe's."""
    batch_size: int | None = None
    """Images per iteration; default: the recipe's."""
    learning_rate: float | None = None
    """Learning rate of Adam; default: the recipe's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env train`; returns the exit status."""
    train(*COMMAND.parse(argv))
    return SUCCESS


def find_recipe(first: Namespace) -> "TrainingSettings":
    """The recipe of a name, or of a file of one's own; of people's own pictures with what an inspection says."""
    from ..comparisons import COMPARISONS
    from ..training.recipes import RECIPES

    name = first.recipe or _RECIPE
    recipe = COMPARISONS.find(name) if name in COMPARISONS.names() else RECIPES.find(name)
    if name != _OWN or first.data_dir is None:
        return recipe

    from ..training.own_images import recipe_for
    from .inspect import INVERT, look

    # One that is no pair is refused below, with all other arguments.
    size = tuple(first.object_size) if len(first.object_size or ()) == 2 else None
    inspection = look(
        Path(first.data_dir), int(first.channels or 1), INVERT.get(first.invert or "auto"), first.max_objects, size
    )
    for text in inspection.objections():
        print(f"warning: {text}", file=sys.stderr)
    return recipe_for(RECIPES[_OWN], inspection, first.max_objects)


def train(arguments: Arguments, recipe: "TrainingSettings | None") -> None:
    """Trains by a recipe, or continues a run, or lists what there is to choose from."""
    if arguments.list:
        print_names()
        return
    own = {"--max-objects": arguments.max_objects, "--object-size": arguments.object_size}
    own |= {"--channels": arguments.channels, "--invert": None if arguments.invert == "auto" else arguments.invert}
    if recipe is not None and arguments.recipe != _OWN and (given := [name for name in own if own[name] is not None]):
        raise ValueError(f"{', '.join(given)} is for recipe {_OWN}, not {arguments.recipe or _RECIPE}; leave it out")
    parts = [short(arguments.recipe or _RECIPE)]
    if (estimator := getattr(recipe, "estimator", None)) is not None:
        parts += [short(estimator), *(["exact_categories"] if getattr(recipe, "categories", "") == "exact" else [])]
    execute(COMMAND.name, arguments, recipe, "-".join(parts), _PRINTED)


def print_names() -> None:
    """Prints what there is to choose from, with what plug-ins add."""
    from air_env.scenes import SCENES

    from ..comparisons import COMPARISONS
    from ..estimators import ESTIMATORS
    from ..training.recipes import RECIPES

    for registry in (RECIPES, COMPARISONS, ESTIMATORS, SCENES):
        print(f"{registry.noun}s: {', '.join(registry.names())}")


COMMAND = Command("train", __doc__, Arguments, Common, find_recipe)
"""The command line; `main` runs it."""
