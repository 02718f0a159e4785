"""Run directories: created atomically; existing files are never overwritten, damaged ones are refused.

config.json           the recipe, with its kind
metrics.csv           one row per evaluation, with what a probe adds; also in tensorboard/
agent.safetensors     the weights (comparisons: model.safetensors, Stable-Baselines3: policy.safetensors)
evaluation.json       final metrics on held-out scenes
resume.pt             everything the next iteration depends on
pictures/             scenes beside reconstructions at stages of training
"""

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .serialisation import from_json
from .settings import State, TrainingSettings

CONFIG_FILE, METRICS_FILE, EVALUATION_FILE, RESUME_FILE = "config.json", "metrics.csv", "evaluation.json", "resume.pt"
PICTURES_FOLDER = "pictures"


def refuse_occupied(directory: Path) -> None:
    """Refuses a directory that a run must not be made in.

    Raises:
        ValueError: It is the working directory.
        FileExistsError: It holds something already.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(
            f"{directory} already holds {'a run' if (directory / CONFIG_FILE).exists() else 'something'}; "
            "continue it with --resume, or choose another --output-dir"
        )
    if directory.resolve() == Path.cwd():
        # The directory is replaced by a whole one, and whoever works in it would be nowhere.
        raise ValueError(f"{directory} is the folder you are in; name one to be made in it with --output-dir")


@contextmanager
def nascent(directory: Path) -> Iterator[Path]:
    """A folder to fill, which takes the directory's place once it is full.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    folder = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        (folder / PICTURES_FOLDER).mkdir(parents=True)
        yield folder
        folder.rename(directory)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"could not make the run directory {directory} ({error}); choose another --output-dir") from error


def read_checkpoint(directory: Path) -> tuple[TrainingSettings, State]:
    """The recipe of a run, of whatever kind, and the state to resume from; call it within `refusing_damage`."""
    recipe = from_json(TrainingSettings, json.loads((directory / CONFIG_FILE).read_text()))
    state = torch.load(directory / RESUME_FILE, map_location="cpu", weights_only=True)  # noqa: TID251
    return recipe, recipe.upgraded_state(state)


@contextmanager
def refusing_damage(directory: Path) -> Iterator[None]:
    """Turns any error caused by damaged run files into one ``ValueError``.

    Raises:
        FileNotFoundError: The directory holds no run.
        ValueError: Its files are damaged.
    """
    damaged = f"the run in {directory} cannot be resumed: its files are damaged or not a run's"
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{directory} holds no run to resume ({error.filename} is missing)") from error
    except pickle.UnpicklingError as error:
        # Torch's own message explains how to run what the file may hold.
        raise ValueError(f"{damaged} ({RESUME_FILE} is no checkpoint)") from error
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{damaged} ({RESUME_FILE} does not fit: {error!r})") from error
    except (ValueError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{damaged} ({error})") from error
