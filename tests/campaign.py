"""A campaign: many hostile trials of one promise, counted. All counts but the tried are to be 0.

    AIR_ENV_RECORD=docs/results/reliability.csv pytest -n 0 -m slow tests/test_reliability_*.py

writes a row for each campaign, in place of its old one; docs/reliability.md shows them.
"""

import csv
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Campaign:
    """Counts of a campaign."""

    tried: int = 0
    """Trials."""
    failed: list[str] = field(default_factory=list)
    """What did not behave as promised, a line each."""
    lost: list[str] = field(default_factory=list)
    """What was lost, a line each: a checkpoint, a result, a state that an error changed."""


@contextmanager
def campaign(name: str, seed: int = 0) -> Iterator[Campaign]:
    """Counts the trials made inside; records them where AIR_ENV_RECORD says, and fails where one failed."""
    counts, begun = Campaign(), time.monotonic()
    yield counts
    _record(name, seed, counts, (time.monotonic() - begun) / 60)
    assert counts.tried, f"{name}: nothing was tried"
    assert not counts.failed, f"{name}: {len(counts.failed)} of {counts.tried} failed: {counts.failed[:10]}"
    assert not counts.lost, f"{name}: {len(counts.lost)} of {counts.tried} lost: {counts.lost[:10]}"


def _record(name: str, seed: int, counts: Campaign, minutes: float) -> None:
    if not (place := os.environ.get("AIR_ENV_RECORD")):
        return
    path, rows = Path(place), []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["campaign"] != name]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    hardware = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    row: dict[str, object] = {"campaign": name, "tried": counts.tried, "failed": len(counts.failed)}
    row |= {"lost": len(counts.lost), "seed": seed, "minutes": round(minutes, 1)}
    rows.append(row | {"commit": commit.stdout.strip(), "hardware": hardware})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: str(row["campaign"])))
