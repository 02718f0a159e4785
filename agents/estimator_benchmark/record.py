"""What a sweep's directory is about, so that it stays about one thing.

The grid may grow by estimators and seeds. Other settings are refused, and so is other code under the same name: what
is compared must differ in the estimator and in nothing else.
"""

import json
from collections.abc import Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..training.files import read_json, write_json_atomically
from ..training.recipes import Recipe
from ..training.serialisation import from_json
from ..training.settings import Options

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class Record:
    """What `SWEEP_FILE` holds."""

    recipe: Options
    """What all cells share: the recipe without estimator and seed."""
    max_minutes: float | None
    """Budget of each cell."""
    threads: int
    """Torch's threads in each cell."""
    estimators: dict[str, dict[str, str]]
    """Name -> ``spec``, and ``fingerprint`` of its file."""
    cells: list[str]
    """The names of all cells that were ever asked for."""
    machine: Options
    """That the sweep was begun on; each cell has its own."""

    def full_recipe(self) -> Recipe:
        """The recipe, with defaults for estimator and seed."""
        return from_json(Recipe, json.loads(json.dumps(self.recipe)))


def read_record(directory: Path) -> Record:
    """What a sweep's directory is about.

    Raises:
        FileNotFoundError: It is no sweep's.
        ValueError: The file is damaged.
    """
    try:
        record = from_json(Record, read_json(directory / SWEEP_FILE))
        record.full_recipe()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{directory} holds no sweep ({SWEEP_FILE} is missing)") from error
    except ValueError as error:
        raise ValueError(f"{directory / SWEEP_FILE} is damaged or of another version ({error})") from error
    return record


def keep_record(new: Record, directory: Path, afresh: Set[str] = frozenset()) -> None:
    """Writes what the directory is about, or adds to it.

    Args:
        new: What it is to be about.
        directory: The sweep's.
        afresh: Names of cells that are about to be begun again.

    Raises:
        ValueError: It is about something else.
    """
    if (directory / SWEEP_FILE).exists():
        old = read_record(directory)
        _refuse_other_settings(old, new, directory)
        _refuse_other_code(old, new, directory, afresh)
        cells = list(dict.fromkeys((*old.cells, *new.cells)))
        new = replace(old, estimators=old.estimators | new.estimators, cells=cells)
    elif any(not path.name.startswith(".") for path in directory.iterdir()):
        raise ValueError(f"{directory} already holds something that is no sweep; choose another --output-dir")
    write_json_atomically(directory / SWEEP_FILE, asdict(new))


def _refuse_other_settings(old: Record, new: Record, directory: Path) -> None:
    was, wanted = (
        vars(each.full_recipe()) | {"max_minutes": each.max_minutes, "threads": each.threads} for each in (old, new)
    )
    if changes := [f"{name} was {was[name]} and is now {wanted[name]}" for name in was if was[name] != wanted[name]]:
        raise ValueError(
            f"{directory} holds a sweep with other settings: {'; '.join(changes)}. Give the same settings, or choose "
            "another --output-dir"
        )


def _refuse_other_code(old: Record, new: Record, directory: Path, afresh: Set[str]) -> None:
    for name in new.estimators.keys() & old.estimators.keys():
        if new.estimators[name]["fingerprint"] == old.estimators[name]["fingerprint"]:
            continue
        cells = [cell for cell in old.cells if cell.rpartition("-")[0] == name and cell not in afresh]
        if kept := [cell for cell in cells if (directory / cell).exists()]:
            raise ValueError(
                f"the code of estimator {name!r} has changed since {', '.join(kept)} began; give the changed one "
                "another name, or try failed cells again with --retry-failed"
            )
