"""Trains a Stable-Baselines3 algorithm to explain scenes, without labels and without gradients of the world.

    air-env train-sb3                                        # PPO on sprites
    air-env train-sb3 --algorithm sac --max-steps 20000 --seed 1
    air-env train-sb3 --scene tabletop3d --scene-options.counts 1 2 --action-mode posterior
    air-env train-sb3 --resume runs/sprites-ppo-0

`air-env train-sb3 --algorithm ppo --help` shows all settings. It needs `pip install "air-env[sb3]"`.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import terminal
from .training import Command, RunArguments, print_metrics, training_bar

if TYPE_CHECKING:
    from ..sb3 import Settings
    from ..training.run import TrainingRun

_PRINTED = ("count_accuracy", "identity_accuracy", "box_iou", "return", "return_empty", "return_random")


@dataclass(frozen=True, kw_only=True)
class Common(RunArguments):
    """Trains a Stable-Baselines3 algorithm to explain scenes."""

    algorithm: str | None = None
    """ppo, a2c or sac; default: ppo."""
    scene: str | None = None
    """sprites, digits, multi_mnist, objects3d, tabletop3d, ..., or path.py:my_scene; default: sprites."""
    action_mode: str | None = None
    """What an action is: latents (an object) or posterior (a distribution, to be sampled); default: latents."""
    max_steps: int | None = None
    """Environment steps, over all environments; default: the algorithm's."""
    num_envs: int | None = None
    """Environments side by side; default: the algorithm's."""
    learning_rate: float | None = None
    """Learning rate, which falls linearly to 0; default: the algorithm's."""
    seed: int | None = None
    """Decides the training images, the initial weights and all noise; default: 0."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env train-sb3`; returns the exit status."""
    command = Command("train-sb3", __doc__, RunArguments, Common, find_settings)
    return terminal.guarded(lambda: train(*command.parse(argv)))


def find_settings(first: Namespace) -> "Settings":
    """The settings of an algorithm, or of a run's config.json."""
    terminal.require("sb3", "stable_baselines3")
    from ..sb3 import Settings, make_settings
    from ..training.serialisation import from_json

    if first.config is not None:
        return from_json(Settings, json.loads(Path(first.config).read_text()))
    return make_settings(first.algorithm or "ppo")


def train(arguments: RunArguments, settings: "Settings | None") -> None:
    """Begins or continues a run, and measures the policy."""
    terminal.require("sb3", "stable_baselines3")
    import torch

    torch.set_flush_denormal(True)
    run = start_or_resume(arguments, settings)
    with training_bar(run.recipe.max_steps, run.trainer.iteration, "step") as show:
        with terminal.patient_interrupt() as interrupted:
            run.train(interrupted=interrupted, progress=lambda row: show(run.trainer.iteration, row))
        if interrupted():
            raise KeyboardInterrupt(f"stopped; continue: air-env train-sb3 --resume {run.directory}")
    metrics = run.finished() if arguments.evaluation else None
    if arguments.evaluation and metrics is None:
        with terminal.progress_bar(run.recipe.num_final, "scene", desc="evaluation") as bar:
            metrics = run.finish(progress=bar.update)
    print_metrics(metrics, _PRINTED, run.minutes, run.directory)


def start_or_resume(arguments: RunArguments, settings: "Settings | None") -> "TrainingRun":
    """The run that the arguments ask for."""
    from ..jobs.devices import pick_device
    from ..training.run import TrainingRun

    data_dir, device, minutes = arguments.machine.data, pick_device(arguments.machine.device), arguments.max_minutes
    if settings is None:
        assert arguments.resume is not None
        steps = getattr(arguments, "max_steps", None)
        on = None if arguments.machine.device == "auto" else device
        return TrainingRun.resume(arguments.resume, data_dir=data_dir, device=on, max_minutes=minutes, max_steps=steps)
    directory = arguments.output_dir or Path("runs", f"{settings.scene}-{settings.algorithm}-{settings.seed}")
    return TrainingRun.start(directory, settings, data_dir=data_dir, device=device, max_minutes=minutes)
