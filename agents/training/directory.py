"""Run directories: created atomically; existing files are never overwritten, damaged ones are refused.

config.json           the recipe, with its kind
metrics.csv           one row per evaluation on validation scenes, with what a probe adds; also in tensorboard/
agent.safetensors     the weights (comparisons: model.safetensors, Stable-Baselines3: policy.safetensors)
evaluation.json       final metrics on test scenes
resume.pt             everything the next iteration depends on
pictures/             validation scenes beside reconstructions at stages of training
"""

import contextlib
import io
import math
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .files import MISFITS, read_json, remove_leftovers, temporary_path, write_json_atomically
from .serialisation import from_json, to_json
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
    folder = temporary_path(directory)
    try:
        remove_leftovers(directory.parent, directory.name)
        (folder / PICTURES_FOLDER).mkdir(parents=True)
        yield folder
        folder.rename(directory)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"could not make the run directory {directory} ({error}); choose another --output-dir") from error


def stamp(directory: Path) -> tuple[int, int]:
    """Changes whenever the checkpoint is written."""
    status = (directory / RESUME_FILE).stat()
    return status.st_ino, status.st_mtime_ns


@contextmanager
def occupied(directory: Path, seen: tuple[int, int], threads: int) -> Iterator[None]:
    """Holds a run directory, as long as this process lives, to compute there with so many of torch's threads.

    Args:
        directory: The run directory.
        seen: The `stamp` of the checkpoint that was read or written last.
        threads: The threads.

    Raises:
        BlockingIOError: Another process holds it, or has written another checkpoint.
    """
    lock, before = FileLock(directory / ".lock", blocking=False), torch.get_num_threads()
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"the run in {directory} is being trained by another process; wait for it or stop it, then --resume it"
        ) from error
    try:
        if stamp(directory) != seen:
            raise BlockingIOError(f"the run in {directory} was trained on by another process; --resume it anew")
        for folder in (directory, directory / PICTURES_FOLDER):
            remove_leftovers(folder)
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def read_checkpoint(directory: Path) -> tuple[TrainingSettings, State, tuple[int, int]]:
    """The recipe of a run, of whatever kind, the state to resume from, and the `stamp` of that.

    Raises:
        FileNotFoundError: The directory holds no run.
        ValueError: A file is damaged, or the one does not belong to the other.
    """
    with refusing_damage(directory, CONFIG_FILE):
        recipe = from_json(TrainingSettings, read_json(directory / CONFIG_FILE))
    with refusing_damage(directory, RESUME_FILE):
        seen = stamp(directory)
        state = recipe.upgraded_state(_read_state(directory / RESUME_FILE))
        budget, threads = state["max_minutes"], state.get("threads", 1)
        refuse_unlike((state["device"], 0.0 if budget is None else budget, threads), ("cpu", 0.0, 1))
        if threads < 1:
            raise ValueError(f"threads must be positive, got {threads}")
        # Older files do not say by which recipe they were written. The last counts; others are of before --max-steps.
        known = [from_json(TrainingSettings, values) for values in state.get("recipes", [])] or [recipe]
    with refusing_damage(directory, CONFIG_FILE):
        found, was = to_json(recipe), to_json(known[-1])
        if recipe not in known:
            changes = [f"{name} is {found.get(name)}, was {was[name]}" for name in was if found.get(name) != was[name]]
            raise ValueError(
                f"it is not the one that {RESUME_FILE} was written with: {'; '.join(changes)}; undo that, or begin "
                "another run with --config"
            )
    if recipe != known[-1]:
        # It was killed on its way from the one file to the other.
        write_json_atomically(directory / CONFIG_FILE, was)
    return known[-1], state, seen


def _read_state(path: Path) -> State:
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # Torch does not look at the checksums of the archive's parts.
            if any(part.file_size > len(content) for part in archive.infolist()) or archive.testzip() is not None:
                raise ValueError
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception:
        # Torch's own message explains how to run what the file may hold.
        raise ValueError(f"{path} is damaged or no checkpoint") from None


def refuse_unlike(found: object, like: object, where: str = RESUME_FILE) -> None:
    """Refuses a state whose parts are not of the types of another's; what the other lacks may be anything.

    Raises:
        ValueError: A part is of another type, or a number is not finite.
    """
    if isinstance(found, Mapping) and isinstance(like, Mapping):
        for name in like.keys() & found.keys():
            refuse_unlike(found[name], like[name], f"{where}: {name}")
    elif isinstance(like, float):
        if not isinstance(found, int | float) or not math.isfinite(found):
            raise ValueError(f"{where} must be a finite number, got {found!r}")
    elif like is not None and type(found) is not type(like):
        raise ValueError(f"{where} must be of type {type(like).__name__}, got {type(found).__name__}")
    elif isinstance(found, Tensor) and isinstance(like, Tensor):
        if found.dtype != like.dtype:
            raise ValueError(f"{where} must be of type {like.dtype}, got {found.dtype}")
    elif isinstance(found, list | tuple) and isinstance(like, list | tuple):
        for number, (part, own) in enumerate(zip(found, like, strict=False)):
            refuse_unlike(part, own, f"{where}: {number}")


@contextmanager
def refusing_damage(directory: Path, name: str) -> Iterator[None]:
    """Turns any error that a damaged file of a run causes into one ``ValueError``.

    Raises:
        FileNotFoundError: The directory holds no run.
        ValueError: The file is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{directory} holds no run to resume ({error.filename} is missing)") from error
    except (EOFError, OSError, *MISFITS) as error:
        what = error if isinstance(error, ValueError | OSError) else repr(error)
        raise ValueError(
            f"the run in {directory} cannot be resumed: its {name} is damaged or not this run's ({what})"
        ) from error
