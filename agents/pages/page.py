"""A results page: Markdown, a CSV file with all numbers, pictures beside them."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from air_env.frames import Frame

from ..training.files import write_atomically, write_text_atomically

DPI = 110
"""Pixels per inch of all pictures."""
_PALETTE = 128


class Page:
    """NAME.md, NAME.csv and NAME_PICTURE.png, filled part by part.

    Args:
        folder: Folder of the files.
        name: Name of the files.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.paths: list[Path] = []
        self._parts: list[str] = []
        self._table: pd.DataFrame | None = None

    def add(self, *paragraphs: str) -> None:
        """Adds paragraphs, headings or tables in Markdown; empty ones are left out."""
        self._parts += [text for text in paragraphs if text]

    def add_table(self, table: pd.DataFrame) -> None:
        """Makes a table the CSV file."""
        self._table = table

    def add_picture(self, name: str, figure: Figure, caption: str) -> None:
        """Writes a figure as NAME_PICTURE.png, or as NAME.png where the picture has no name, and shows it."""
        path = self.folder / f"{self._file(name)}.png"
        buffer = BytesIO()
        figure.savefig(buffer, dpi=DPI, format="png")
        # A palette makes files a third of the size: these pages live in the repository. Maximum coverage keeps the
        # colours of thin windows.
        picture = Image.open(buffer).convert("RGB").quantize(_PALETTE, Image.Quantize.MAXCOVERAGE)
        write_atomically(path, lambda temporary: picture.save(temporary, "PNG", optimize=True))
        self._show(path, caption)

    def add_animation(self, name: str, frames: Sequence[Frame], milliseconds: int, caption: str) -> None:
        """Writes a GIF that repeats for ever, and shows it.

        Args:
            name: Name of the picture.
            frames: Frames of one size.
            milliseconds: Duration of a frame.
            caption: Text below the picture.
        """
        path = self.folder / f"{self._file(name)}.gif"
        images = [Image.fromarray(frame).quantize(_PALETTE, Image.Quantize.MAXCOVERAGE) for frame in frames]
        options = {"save_all": True, "append_images": images[1:], "duration": milliseconds, "loop": 0}
        write_atomically(path, lambda temporary: images[0].save(temporary, "GIF", **options))
        self._show(path, caption)

    def write(self) -> list[Path]:
        """Writes the Markdown and the CSV file; returns the paths of all files."""
        page = self.folder / f"{self.name}.md"
        write_text_atomically(page, "\n\n".join(self._parts) + "\n")
        written = [page]
        if (table := self._table) is not None:
            written.append(self.folder / f"{self.name}.csv")
            write_atomically(written[-1], lambda path: table.to_csv(path, index=False))
        return [*written, *self.paths]

    def _file(self, name: str) -> str:
        return f"{self.name}_{name}" if name else self.name

    def _show(self, path: Path, caption: str) -> None:
        self.paths.append(path)
        self.add(f"![{caption}]({path.name})", f"*{caption}*")
