"""Trains an AIR agent by a recipe.

python scripts/train_agent.py                          # the bundled digits, minutes on a laptop
python scripts/train_agent.py multi_mnist --seed 1 --max-minutes 12
python scripts/train_agent.py --resume runs/digits-half_critic-0
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from agents.devices import pick_device
from agents.recipes import Recipe, get_recipe
from agents.run import Run


@dataclass(frozen=True)
class Arguments:
    """Trains an AIR agent to count and locate objects, without labels."""

    recipe: Annotated[str, tyro.conf.Positional] = "digits"
    """Named settings (agents/recipes.py): digits, multi_mnist."""
    estimator: str | None = None
    """Gradient of the stop action: half_critic, stop_now, nvil, reinforce, exact. Default: the recipe's."""
    seed: int = 0
    """Decides the images, the initial weights, the order of batches and all noise."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    output_dir: Path | None = None
    """The run directory to make; default: runs/RECIPE-ESTIMATOR-SEED."""
    resume: Path | None = None
    """Continues the run in this directory, with its own recipe, estimator and seed."""
    max_minutes: float | None = None
    """Stops the run after so many minutes; the learning rate falls in time."""
    max_steps: int | None = None
    """Iterations of training; default: the recipe's."""
    learning_rate: float | None = None
    """Of Adam; default: the recipe's."""
    batch_size: int | None = None
    """Images per iteration; default: the recipe's."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_flush_denormal(True)
    try:
        run = start_or_resume(arguments)
        metrics = train(run, arguments.max_minutes)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    print(f"\nheld-out scenes, {run.minutes:.1f} minutes of training:")
    for name in ("count_accuracy", "count_accuracy_sampled", "box_iou", "elbo", "iwae"):
        print(f"  {name:24s}{metrics[name]:10.4f}")
    print(f"\n{run.directory}/ holds agent.safetensors, metrics.csv, evaluation.json, pictures/, tensorboard/")


def start_or_resume(arguments: Arguments) -> Run:
    """The run that the arguments ask for."""
    device = pick_device(arguments.device)
    data_dir = None if arguments.data_dir is None else str(arguments.data_dir)
    if arguments.resume is not None:
        return Run.resume(arguments.resume, data_dir=data_dir, device=device)
    recipe = changed_recipe(arguments)
    name = f"{arguments.recipe}-{recipe.estimator}-{recipe.seed}"
    return Run.start(arguments.output_dir or Path("runs") / name, recipe, data_dir=data_dir, device=device)


def changed_recipe(arguments: Arguments) -> Recipe:
    """The named recipe, with what the command line changes."""
    changes = {
        name: getattr(arguments, name)
        for name in ("estimator", "seed", "max_steps", "learning_rate", "batch_size")
        if getattr(arguments, name) is not None
    }
    return replace(get_recipe(arguments.recipe), **changes)


def train(run: Run, max_minutes: float | None) -> dict[str, float]:
    """Trains with a progress bar, and evaluates."""
    with tqdm(total=run.recipe.max_steps, initial=run.trainer.iteration, unit="it", dynamic_ncols=True) as bar:

        def show(row: dict[str, float]) -> None:
            bar.update(run.trainer.iteration - bar.n)
            if row:
                bar.set_postfix(elbo=f"{row['elbo']:.1f}", count_accuracy=f"{row['count_accuracy']:.3f}", refresh=False)

        try:
            run.train(max_minutes=max_minutes, progress=show)
        except KeyboardInterrupt:
            run.save()
            raise SystemExit(f"\nstopped; continue: python scripts/train_agent.py --resume {run.directory}") from None
    return run.finish()


if __name__ == "__main__":
    main()
