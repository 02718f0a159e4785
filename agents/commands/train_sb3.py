"""Trains a Stable-Baselines3 algorithm to explain scenes, without labels and without gradients of the world.

python scripts/train_sb3.py                            # PPO on sprites
python scripts/train_sb3.py --algorithm sac --total-steps 20000 --seed 1
python scripts/train_sb3.py --resume runs/sprites-ppo-0
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from ..jobs.devices import pick_device

try:
    from ..sb3.algorithms import ALGORITHMS, Settings, make_settings
    from ..sb3.run import Run
except ModuleNotFoundError as error:
    sys.exit(f'error: {error}; install the extra: pip install -e ".[sb3]"')


@dataclass(frozen=True)
class Arguments:
    """Trains a Stable-Baselines3 algorithm to explain scenes."""

    algorithm: str = "ppo"
    """ppo, a2c or sac."""
    scene: str = "sprites"
    """sprites, digits, multi_mnist, objects3d or tabletop3d."""
    action_mode: str = "latents"
    """What an action is: latents (the object) or posterior (a distribution, from which the environment draws)."""
    total_steps: int | None = None
    """Environment steps, over all environments; default: the algorithm's."""
    num_envs: int | None = None
    """Environments side by side; default: the algorithm's."""
    learning_rate: float | None = None
    """Falls linearly to 0; default: the algorithm's."""
    exploration: float | None = None
    """At first the probability of drawing an object is kept this far from 0 and 1 (PPO and A2C on latents)."""
    num_train: int | None = None
    """Number of training images; default: the algorithm's."""
    seed: int = 0
    """Decides the training images, the initial weights and all noise."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    output_dir: Path | None = None
    """The run directory to make; default: runs/SCENE-ALGORITHM-SEED."""
    resume: Path | None = None
    """Continues the run in this directory, with its own settings."""
    max_minutes: float | None = None
    """Stops training after so many minutes; the learning rate does not follow it."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_flush_denormal(True)
    try:
        run = start_or_resume(arguments)
        metrics = train(run, arguments.max_minutes)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    print(f"\nheld-out scenes, {run.images:,} training images seen in {run.minutes:.1f} minutes:")
    for name in ("count_accuracy", "identity_accuracy", "box_iou", "return", "return_empty", "return_random"):
        if name in metrics:
            print(f"  {name:24s}{metrics[name]:10.4f}")
    print(f"\n{run.directory}/ holds policy.safetensors, metrics.csv, evaluation.json, config.json, tensorboard/")


def start_or_resume(arguments: Arguments) -> Run:
    """The run that the arguments ask for."""
    options: dict[str, Any] = {
        "data_dir": None if arguments.data_dir is None else str(arguments.data_dir),
        "device": pick_device(arguments.device),
    }
    if arguments.resume is not None:
        return Run.resume(arguments.resume, **options)
    settings = settings_of(arguments)
    directory = arguments.output_dir or Path("runs") / f"{settings.scene}-{settings.algorithm}-{settings.seed}"
    return Run.start(directory, settings, **options)


def settings_of(arguments: Arguments) -> Settings:
    """The algorithm's settings, with what the command line changes."""
    if arguments.algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm {arguments.algorithm!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    names = ("scene", "action_mode", "total_steps", "num_envs", "learning_rate", "exploration", "num_train", "seed")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return make_settings(arguments.algorithm, **changes)


def train(run: Run, max_minutes: float | None) -> dict[str, float]:
    """Trains with a progress bar, and evaluates; an interrupted run is evaluated as far as it came."""
    with tqdm(total=run.settings.total_steps, unit="step", dynamic_ncols=True) as bar:

        def show(steps: int, row: dict[str, float]) -> None:
            bar.update(steps - bar.n)
            if row:
                figures = {"return": f"{row['return']:.1f}", "count_accuracy": f"{row['count_accuracy']:.3f}"}
                bar.set_postfix(figures, refresh=False)

        try:
            run.train(max_minutes=max_minutes, progress=show)
        except KeyboardInterrupt:
            run.save()
            raise SystemExit(f"\nstopped; continue: python scripts/train_sb3.py --resume {run.directory}") from None
    return run.finish()
