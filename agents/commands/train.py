"""Trains an AIR agent by a recipe.

python scripts/train_agent.py                          # the bundled digits, minutes on a laptop
python scripts/train_agent.py multi_mnist --seed 1 --max-minutes 12
python scripts/train_agent.py --resume runs/digits-half_critic-0
"""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from ..estimators import ESTIMATORS
from ..jobs.devices import pick_device
from ..training.agent_run import Run
from ..training.recipes import RECIPES, Recipe, get_recipe

_RECIPE = "digits"
_RECIPE_HELP = f"Named settings (agents/training/recipes.py): {', '.join(RECIPES)}; default: {_RECIPE}."
_ESTIMATORS_HELP = f"Gradient of the stop action: {', '.join(ESTIMATORS)}. Default: the recipe's."
_PRINTED = (
    *("count_accuracy", "count_accuracy_sampled", "identity_accuracy", "position_error", "rotation_error", "box_iou"),
    *("elbo", "iwae"),
)
_SETTINGS = ("estimator", "categories", "seed", "max_steps", "learning_rate", "batch_size")


@dataclass(frozen=True)
class Arguments:
    """Trains an AIR agent to count and locate objects, without labels."""

    recipe: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help=_RECIPE_HELP)] = None
    estimator: Annotated[str | None, tyro.conf.arg(help=_ESTIMATORS_HELP)] = None
    categories: str | None = None
    """Gradient of the category, where z_what is one: score_function or exact. Default: the recipe's."""
    seed: int | None = None
    """Decides the images, the initial weights, the order of batches and all noise; default: 0."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    output_dir: Path | None = None
    """The run directory to make; default: runs/RECIPE-ESTIMATOR-SEED."""
    resume: Path | None = None
    """Continues the run in this directory, with its own settings; only --data-dir, --max-minutes and --device may be
    given beside it."""
    max_minutes: float | None = None
    """Stops the run after so many minutes; the learning rate falls in time. A resumed run keeps its own."""
    max_steps: int | None = None
    """Iterations of training; default: the recipe's."""
    learning_rate: float | None = None
    """Of Adam; default: the recipe's."""
    batch_size: int | None = None
    """Images per iteration; default: the recipe's."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one. A run is resumed on what it was begun on."""


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_flush_denormal(True)
    try:
        run = start_or_resume(arguments)
        if not train(run):
            sys.exit(f"\nstopped; continue: {resume_command(run, arguments)}")
        metrics = run.finish()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped at once; what was saved last is whole, and --resume continues from there")
    print(f"\nheld-out scenes, {run.minutes:.1f} minutes of training:")
    for name in _PRINTED:
        if name in metrics:
            print(f"  {name:24s}{metrics[name]:10.4f}")
    print(f"\n{run.directory}/ holds agent.safetensors, metrics.csv, evaluation.json, pictures/, tensorboard/")


def start_or_resume(arguments: Arguments) -> Run:
    """The run that the arguments ask for."""
    device = pick_device(arguments.device)
    data_dir = None if arguments.data_dir is None else str(arguments.data_dir)
    if arguments.resume is not None:
        if ignored := [name for name in ("recipe", *_SETTINGS, "output_dir") if getattr(arguments, name) is not None]:
            names = ", ".join("RECIPE" if name == "recipe" else f"--{name.replace('_', '-')}" for name in ignored)
            raise ValueError(f"--resume continues a run with its own settings, and cannot change {names}: leave it out")
        same = None if arguments.device == "auto" else device
        return Run.resume(arguments.resume, data_dir=data_dir, device=same, max_minutes=arguments.max_minutes)
    recipe = changed_recipe(arguments)
    categories = "-exact_categories" if recipe.categories == "exact" else ""
    name = f"{arguments.recipe or _RECIPE}-{recipe.estimator}{categories}-{recipe.seed}"
    directory = arguments.output_dir or Path("runs") / name
    return Run.start(directory, recipe, data_dir=data_dir, device=device, max_minutes=arguments.max_minutes)


def changed_recipe(arguments: Arguments) -> Recipe:
    """The named recipe, with what the command line changes."""
    changes = {name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None}
    return replace(get_recipe(arguments.recipe or _RECIPE), **changes)


def resume_command(run: Run, arguments: Arguments) -> str:
    """The command that continues a run."""
    command = ["python", "scripts/train_agent.py", "--resume", str(run.directory)]
    if arguments.data_dir is not None:
        command += ["--data-dir", str(arguments.data_dir)]
    return shlex.join(command)


@contextmanager
def patient_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of an iteration, so that what is saved is whole; a second one does not wait.

    Yields:
        Whether it was pressed.
    """
    usual, pressed = signal.default_int_handler, False

    def note(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, usual)

    if signal.getsignal(signal.SIGINT) is not usual:
        # It is ignored, as in background jobs.
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, usual)


def train(run: Run) -> bool:
    """Trains with a progress bar; returns whether that came to its end."""
    with tqdm(total=run.recipe.max_steps, initial=run.trainer.iteration, unit="it", dynamic_ncols=True) as bar:

        def show(row: dict[str, float]) -> None:
            bar.update(run.trainer.iteration - bar.n)
            if row:
                objective = "elbo" if "elbo" in row else "log_q_dream"
                shown = {objective: f"{row[objective]:.1f}", "count_accuracy": f"{row['count_accuracy']:.3f}"}
                bar.set_postfix(shown, refresh=False)

        with patient_interrupt() as interrupted:
            run.train(interrupted=interrupted, progress=show)
            return not interrupted()
