"""Trains an agent, or a model to compare it with, by a recipe.

    air-env train                                            # the bundled digits, minutes on a laptop
    air-env train multi_mnist --seed 1 --max-minutes 12
    air-env train multi_mnist --model.num-steps 5 --model.likelihood laplace --scene-options.counts 0 1 2 3
    air-env train my_file.py:my_recipe --estimator mine=my_file.py:MyEstimator
    air-env train --resume runs/digits-half_critic-0 --max-steps 5000
    air-env train --config runs/digits-half_critic-0/config.json --output-dir runs/again

`air-env train RECIPE --help` shows all settings; `air-env train --list` lists recipes, estimators and scenes.
"""

import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from . import terminal
from .training import Command, RunArguments, print_metrics, short, training_bar

if TYPE_CHECKING:
    from ..training.run import TrainingRun
    from ..training.settings import TrainingSettings

_RECIPE = "digits"
_PRINTED = (
    *("count_accuracy", "count_accuracy_sampled", "identity_accuracy", "position_error", "rotation_error", "box_iou"),
    *("elbo", "iwae"),
)


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Trains an agent, or a model to compare it with, by a recipe."""

    recipe: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = None
    """Named settings: digits, multi_mnist, sprites, objects3d, ..., or path.py:my_recipe; default: digits."""
    list: bool = False
    """Lists the recipes, estimators and scenes that there are."""


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
    command = Command("train", __doc__, Arguments, Common, find_recipe)
    return terminal.guarded(lambda: train(*command.parse(argv)))


def find_recipe(first: Namespace) -> "TrainingSettings":
    """The recipe of a name, of a file of one's own, or of a run's config.json."""
    from ..comparisons import COMPARISONS
    from ..training.recipes import RECIPES
    from ..training.serialisation import from_json
    from ..training.settings import TrainingSettings

    if first.config is None:
        name = first.recipe or _RECIPE
        return COMPARISONS.find(name) if name in COMPARISONS.names() else RECIPES.find(name)
    return from_json(TrainingSettings, json.loads(Path(first.config).read_text()))


def train(arguments: Arguments, recipe: "TrainingSettings | None") -> None:
    """Begins or continues a run, and measures what was trained."""
    if arguments.list:
        print_names()
        return
    import torch

    torch.set_flush_denormal(True)
    run = resume(arguments) if recipe is None else start(arguments, recipe)
    with training_bar(run.recipe.max_steps, run.trainer.iteration, "it") as show:
        with terminal.patient_interrupt() as interrupted:
            run.train(interrupted=interrupted, progress=lambda row: show(run.trainer.iteration, row))
        if interrupted():
            raise KeyboardInterrupt(f"stopped; continue: {resume_command(run, arguments)}")
    metrics = run.finished() if arguments.evaluation else None
    if arguments.evaluation and metrics is None:
        with terminal.progress_bar(run.recipe.num_final, "scene", desc="evaluation") as bar:
            metrics = run.finish(progress=bar.update)
    print_metrics(metrics, _PRINTED, run.minutes, run.directory)


def start(arguments: Arguments, recipe: "TrainingSettings") -> "TrainingRun":
    """A new run."""
    from ..jobs.devices import pick_device
    from ..training.recipes import Recipe
    from ..training.run import TrainingRun

    parts = [short(arguments.recipe or _RECIPE)]
    if isinstance(recipe, Recipe):
        parts += [short(recipe.estimator), *(["exact_categories"] if recipe.categories == "exact" else [])]
    directory = arguments.output_dir or Path("runs", "-".join([*parts, str(recipe.seed)]))
    return TrainingRun.start(
        directory,
        recipe,
        data_dir=arguments.machine.data,
        device=pick_device(arguments.machine.device),
        max_minutes=arguments.max_minutes,
    )


def resume(arguments: Arguments) -> "TrainingRun":
    """The run to be continued."""
    from ..jobs.devices import pick_device
    from ..training.run import TrainingRun

    device = None if arguments.machine.device == "auto" else pick_device(arguments.machine.device)
    return TrainingRun.resume(
        arguments.resume or Path(),
        data_dir=arguments.machine.data,
        device=device,
        max_minutes=arguments.max_minutes,
        max_steps=getattr(arguments, "max_steps", None),
    )


def resume_command(run: "TrainingRun", arguments: Arguments) -> str:
    """The command that continues a run."""
    command = ["air-env", "train", "--resume", str(run.directory)]
    if arguments.machine.data is not None:
        command += ["--data-dir", arguments.machine.data]
    return shlex.join(command)


def print_names() -> None:
    """Prints what there is to choose from, with what plug-ins add."""
    from air_env.scenes import SCENES

    from ..comparisons import COMPARISONS
    from ..estimators import ESTIMATORS
    from ..training.recipes import RECIPES

    for registry in (RECIPES, COMPARISONS, ESTIMATORS, SCENES):
        print(f"{registry.noun}s: {', '.join(registry.names())}")
