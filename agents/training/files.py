"""Files of runs: written atomically, and those that nobody edits with a checksum. Older files without one are read."""

import contextlib
import csv
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What comes of settings, weights and states that are not what they should be."""
UNSEALED = "sha256 " + 64 * "0"
"""What stands in a file in the place of its checksum when that is computed."""
_SEAL = re.compile(rb"sha256 [0-9a-f]{64}")


def temporary_path(path: Path) -> Path:
    """Where this process makes what is to be moved to a path."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what processes that are gone, or this one, were making in a folder when they were stopped.

    Args:
        folder: The folder.
        name: Name of what they were making; by default anything.
    """
    for path in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_another(int(process)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_another(process: int) -> bool:
    """Whether there is a process of this number beside this one."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside its place, then moves it there: the old file lives until the new one is whole.

    Args:
        path: Where it belongs; its folder is made if need be.
        write: Writes it to the path that it is called with.

    Raises:
        OSError: The folder is full or read-only; what was there before is untouched.
    """
    temporary = temporary_path(path)
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


def sealed(content: bytes) -> bytes:
    """The content with its checksum in the place that `UNSEALED` keeps for it."""
    return content.replace(UNSEALED.encode(), f"sha256 {hashlib.sha256(content).hexdigest()}".encode(), 1)


def unsealed(content: bytes) -> bytes:
    """What `sealed` was called with; content without a checksum, which older files are, as it is.

    Raises:
        ValueError: The checksum is that of other content.
    """
    original = _SEAL.sub(UNSEALED.encode(), content, count=1)
    if _SEAL.search(content) and sealed(original) != content:
        raise ValueError("its content does not match its checksum")
    return original


def write_results(path: Path, values: Mapping[str, object]) -> None:
    """Writes a JSON object with its checksum, as `write_atomically` does."""
    text = json.dumps({**values, "checksum": UNSEALED}, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(sealed(text.encode())))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, whether it has a checksum or not.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    try:
        values = json.loads(unsealed(path.read_bytes()))
        if not isinstance(values, dict) or values.pop("checksum", UNSEALED) != UNSEALED:
            raise ValueError("it is no JSON object, or its checksum is damaged")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, or get it again") from error
    return values


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
