"""Trains a Stable-Baselines3 algorithm to explain scenes, without labels and without gradients of the world.

    air-env train-sb3                                        # PPO on sprites
    air-env train-sb3 --algorithm sac --max-steps 20000 --seed 1
    air-env train-sb3 --scene tabletop3d --scene-options.counts 1 2 --action-mode posterior
    air-env train-sb3 --resume runs/sprites-ppo-0

`air-env train-sb3 --algorithm ppo --help` shows all settings. It needs `pip install "air-env[sb3]"`.
"""

import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import terminal
from .shell import SUCCESS
from .training import Command, RunArguments, execute

if TYPE_CHECKING:
    from ..training.settings import TrainingSettings

_PRINTED = (
    *("count_accuracy", "count_accuracy_nonempty", "identity_accuracy", "box_iou_tight"),
    *("return", "return_empty", "return_random"),
)


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
    # The name that iterations have with Stable-Baselines3.
    argv = [re.sub("^--total[-_]steps", "--max-steps", text) for text in (sys.argv[1:] if argv is None else argv)]
    train(*COMMAND.parse(argv))
    return SUCCESS


def find_settings(first: Namespace) -> "TrainingSettings":
    """The settings of an algorithm."""
    terminal.require("sb3", "stable_baselines3")
    from ..sb3 import make_settings

    return make_settings(first.algorithm or "ppo")


def train(arguments: RunArguments, settings: "TrainingSettings | None") -> None:
    """Trains with these settings, or continues a run."""
    terminal.require("sb3", "stable_baselines3")
    from ..sb3 import Settings, make_settings

    name = "run"
    if isinstance(settings, Settings):
        name = f"{settings.scene}-{settings.algorithm}"
        if settings.evaluate_every == make_settings(settings.algorithm).evaluate_every:
            settings = replace(settings, evaluate_every=max(1, settings.max_steps // 50))
    execute(COMMAND.name, arguments, settings, name, _PRINTED)


COMMAND = Command("train-sb3", __doc__, RunArguments, Common, find_settings)
"""The command line; `main` runs it."""
