"""A results page: Markdown, a sheet with all numbers, and PNGs beside it."""

import csv
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from ..jobs.job import Job
from ..training.files import write_atomically, write_text_atomically
from .experiment import Experiment

DPI = 110
Picture = UInt8[np.ndarray, "_ _ 3"]
"""Rows, columns, RGB."""
_PALETTE = 128


class Page:
    """NAME.md, NAME.csv and NAME_PICTURE.png, filled part by part.

    Args:
        folder: Where they are written.
        name: Of the files.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.paths: list[Path] = []
        self._parts: list[str] = []
        self._rows: list[Mapping[str, Any]] = []

    def add(self, *paragraphs: str) -> None:
        """Adds paragraphs, headings or tables of Markdown."""
        self._parts += [text for text in paragraphs if text]

    def add_numbers(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines to the sheet; they need not have the same columns."""
        self._rows += rows

    def add_picture(self, name: str, figure: Figure, caption: str) -> None:
        """Writes a PNG, and shows it."""
        path = self.folder / f"{self.name}_{name}.png"
        buffer = BytesIO()
        figure.savefig(buffer, dpi=DPI, format="png")
        # A palette, a third of the size: these pages live in the repository. Few pixels may be all that a window has.
        picture = Image.open(buffer).convert("RGB").quantize(_PALETTE, Image.Quantize.MAXCOVERAGE)
        write_atomically(path, lambda temporary: picture.save(temporary, "PNG", optimize=True))
        self.paths.append(path)
        self.add(f"![{caption}]({path.name})", f"*{caption}*")

    def add_animation(self, name: str, frames: Sequence[Picture], milliseconds: int, caption: str) -> None:
        """Writes a GIF that goes on for ever, and shows it.

        Args:
            name: Of the picture.
            frames: Of one size.
            milliseconds: Each is shown for so long.
            caption: What to say of it.
        """
        path = self.folder / f"{self.name}_{name}.gif"
        images = [Image.fromarray(frame).quantize(_PALETTE, Image.Quantize.MAXCOVERAGE) for frame in frames]
        options = {"save_all": True, "append_images": images[1:], "duration": milliseconds, "loop": 0}
        write_atomically(path, lambda temporary: images[0].save(temporary, "GIF", **options))
        self.paths.append(path)
        self.add(f"![{caption}]({path.name})", f"*{caption}*")

    def write(self) -> list[Path]:
        """Writes page and sheet; returns the paths of all files."""
        page, sheet = (self.folder / f"{self.name}.{kind}" for kind in ("md", "csv"))
        write_text_atomically(page, "\n\n".join(self._parts) + "\n")
        write_atomically(sheet, self._write_sheet)
        return [page, sheet, *self.paths]

    def _write_sheet(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in self._rows for name in row)))
            writer.writeheader()
            writer.writerows(self._rows)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; ``-`` where it is not defined."""
    return "-" if value is None else f"{value:,.{digits}f}"


def how_it_was_made(name: str, experiment: Experiment, jobs: Sequence[Job]) -> str:
    """The command, the scale, the seeds, and what the trainings took and where."""
    command = ["python scripts/reproduce_paper.py", name, "--scale", experiment.scale_name, "--seeds"]
    command += map(str, experiment.seeds)
    if any(job.recipe.scene == "multi_mnist" for job in jobs):
        command += ["--data-dir", "D"]
    parts = [
        f"```bash\n{' '.join(command)}\n```",
        f"Scale `{experiment.scale_name}`: {experiment.scale.title}. Seeds {', '.join(map(str, experiment.seeds))}.",
        _minutes(jobs),
        _machines(jobs),
    ]
    return "\n\n".join(parts)


def _minutes(jobs: Sequence[Job]) -> str:
    kinds: dict[str, list[float]] = {}
    iterations: dict[str, int] = {}
    for job in jobs:
        kinds.setdefault(job.kind, []).append(job.evaluation()["minutes"] or 0.0)
        iterations[job.kind] = job.recipe.max_steps
    rows = [
        [f"`{kind}`", len(minutes), f"{iterations[kind]:,}", number(median(minutes), 1), number(sum(minutes), 1)]
        for kind, minutes in kinds.items()
    ]
    rows.append(["all", len(jobs), "", "", number(sum(map(sum, kinds.values())), 1)])
    return table(["runs", "seeds", "iterations", "median minutes", "minutes in all"], rows)


def _machines(jobs: Sequence[Job]) -> str:
    machines = {
        f"{m['cpu'] if m['device'] == 'cpu' else m['device']}, {m['threads']} thread(s) each, torch {m['torch']}, "
        f"commit {m['commit'] or 'unknown'}"
        for m in (job.machine() for job in jobs)
        if m
    }
    return f"Trained on: {'; '.join(sorted(machines)) or 'unknown'}."
