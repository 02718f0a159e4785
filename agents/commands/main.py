"""`air-env`: one entry point for all commands."""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from . import shell

COMMANDS = {
    "train": "Trains an agent, or a model to compare it with, by a recipe.",
    "inspect": "Looks at a folder of pictures before an agent is trained on them.",
    "evaluate": "Measures a trained agent on held-out scenes.",
    "explain": "Counts and locates the objects in image files.",
    "watch": "Films an agent that explains scenes.",
    "train-sb3": "Trains PPO, A2C or SAC of Stable-Baselines3.",
    "benchmark-estimators": "Compares gradient estimators of the stop action.",
    "benchmark-speed": "Measures how fast everything is on this machine.",
    "reproduce": "Makes a figure of the paper, from training to page.",
    "summarise": "Makes a results page of finished runs.",
}
"""Name -> what it does; its module has the name with underscores, and a function `main(argv)`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The command and its arguments; by default those of the process, which is then this command's alone.

    Returns:
        The exit status.
    """
    if argv is not None:
        return shell.guarded(lambda: _run(*argv))
    shell.own_streams()
    status = shell.guarded(_run_process)
    shell.end_process()
    return status


def _run_process() -> int:
    status = _run(*sys.argv[1:])
    # What cannot be written is an error like others.
    sys.stdout.flush()
    return status


def _run(name: str = "--help", *rest: str) -> int:
    if name in ("-h", "--help"):
        lines = (f"    {command:22s}{what}" for command, what in COMMANDS.items())
        print("usage: air-env COMMAND ...", "", *lines, "", "air-env COMMAND --help says more.", sep="\n")
        return shell.SUCCESS
    if name == "--version":
        print(version("air-env"))
        return shell.SUCCESS
    if name not in COMMANDS:
        print(f"error: command {name!r} is unknown; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f".{name.replace('-', '_')}", __package__).main(rest)
