"""Files of runs: written atomically, and never unpickled. Weights are safetensors with settings in the metadata."""

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside its place, then moves it there: the old file lives until the new one is whole.

    Args:
        path: Where it belongs; its folder is made if need be.
        write: Writes it to the path that it is called with.

    Raises:
        OSError: The folder is full or read-only; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(
            f"could not write {path} ({error}); free some space or make the folder writable. "
            "What was saved there before is untouched"
        ) from error


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file as `write_atomically` does."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_json_atomically(path: Path, values: object) -> None:
    """Writes a JSON file as `write_atomically` does."""
    write_text_atomically(path, json.dumps(values, indent=2) + "\n")


def save_weights(path: Path, state: Mapping[str, Tensor], file_format: str, **settings: object) -> None:
    """Saves tensors with settings that belong to them.

    Args:
        path: The file.
        state: Name -> tensor.
        file_format: What `read_weights` is to ask for.
        settings: Plain values, saved as JSON.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    content = save(tensors, {"format": file_format} | {name: json.dumps(value) for name, value in settings.items()})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_weights(path: Path, wanted: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and tensors of a safetensors file of this package.

    Args:
        path: The file.
        wanted: The ``format`` that its metadata must have.

    Raises:
        ValueError: It is damaged, or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}); get or train it again") from error
    if metadata.get("format") != wanted:
        raise ValueError(f"{path} is none of this package (format {metadata.get('format')!r}, wanted {wanted!r})")
    return metadata, tensors


def weights_path(source: str | Path, name: str, what: str) -> Path:
    """The file of weights in a run directory, or a file as it is.

    Args:
        source: The directory or the file.
        name: Name of the file in a directory.
        what: What it holds, for the error message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(source) / name if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}; name a run directory that holds {name}, or the file")
    return path


@contextlib.contextmanager
def refusing_misfits(path: Path, remedy: str = "train it again") -> Iterator[None]:
    """Turns any error of settings and weights that do not fit into one ``ValueError`` with the remedy."""
    try:
        yield
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not fit this version of the package ({error}); {remedy}") from error


def write_rows(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes a table as CSV; its columns are those of any row, in the order in which they first appear."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads what `write_rows` wrote; a row lacks the columns in which it is empty. Without a file there are none.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        try:
            return [{name: float(value) for name, value in row.items() if value != ""} for row in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error})") from error
