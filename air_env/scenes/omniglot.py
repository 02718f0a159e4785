"""`omniglot`: handwritten characters of alphabets that are not in the training data (Appendix G).

Nobody says where the strokes of these drawings are, or how many there are. What is known is the number of connected
pieces, which is less: most characters are one piece of several strokes.
"""

from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import cast
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from air_env.scenes.base import Split
from air_env.scenes.composer import ComposedScene, Glyphs
from air_env.scenes.files import read_file

_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
_FILES = {
    "images_background_small1": ("f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4", 1_319_022),
    "images_background_small2": ("3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f", 1_580_917),
}
"""Name of a zip file -> its checksum and length in bytes."""
_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("Balinese", "Greek", "Japanese_(katakana)", "Korean", "Latin"),
    "validation": ("Early_Aramaic",),
    "test": ("Sanskrit", "Tagalog"),
}
ALPHABETS = tuple(sorted(alphabet for alphabets in _SPLITS.values() for alphabet in alphabets))
"""Names of the alphabets; ``alphabet`` of a drawing is the position in this list."""
_SIDE = 53
"""Side of the glyphs in pixels, half of that of the drawings: their lines are 2 to 3 pixels wide."""
_TOUCHING = np.ones((3, 3))
"""Pixels that touch at a corner belong to one piece."""


@cache
def load_omniglot(split: Split, data_dir: Path | str | None = None) -> Glyphs:
    """Drawings of Omniglot (Lake, Salakhutdinov and Tenenbaum, 2015), 53x53, each of which one of 20 people made.

    The splits have different alphabets: 161 characters for training, 22 for validation and 59 for testing. The label is
    the character; the facts about a drawing are its ``alphabet``, its ``writer`` (from 0 to 19; other alphabets have
    other writers) and the number of its connected ``pieces``.
    """
    files = _drawings(data_dir)
    characters = sorted({key[:2] for key in files})
    keys = [key for key in files if key[0] in _SPLITS[split]]
    # A bit is set where there is paper.
    ink = [~np.asarray(Image.open(BytesIO(files[key]))) for key in keys]
    return Glyphs(
        np.stack([_halved(drawing) for drawing in ink]),
        np.array([characters.index(key[:2]) for key in keys]),
        {
            "alphabet": np.array([ALPHABETS.index(alphabet) for alphabet, _, _ in keys]),
            "writer": np.array([int(name.removesuffix(".png").rpartition("_")[2]) - 1 for _, _, name in keys]),
            "pieces": np.array([_pieces(drawing) for drawing in ink]),
        },
    )


def _drawings(data_dir: Path | str | None) -> dict[tuple[str, str, str], bytes]:
    """Alphabet, character and file name -> PNG; both files have the Greek and the Latin one, and they count once."""
    found: dict[tuple[str, str, str], bytes] = {}
    for name, (sha256, size) in _FILES.items():
        content = read_file(f"omniglot/{name}.zip", sha256, size, _URL, data_dir)
        with ZipFile(BytesIO(content)) as archive:
            for path in sorted(archive.namelist()):
                if path.endswith(".png"):
                    _, alphabet, character, file = path.split("/")
                    found[alphabet, character, file] = archive.read(path)
    return found


def _pieces(ink: NDArray[np.bool_]) -> int:
    _, number = cast(tuple[NDArray, int], ndimage.label(ink, _TOUCHING))
    return number


def _halved(ink: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Half as large: every pixel is the mean of those it covers."""
    return np.asarray(Image.fromarray(ink.astype(np.uint8) * 255).resize((_SIDE, _SIDE), Image.Resampling.BOX))


def omniglot(*, data_dir: Path | str | None = None, counts: tuple[int, ...] = (1,), **options) -> ComposedScene:
    """Characters of 32 to 44 pixels, unless the difficulty says otherwise; `ComposedScene` has the options.

    An object is a whole character, to be parsed into strokes or to be found among others.

    Args:
        data_dir: Folder that holds ``omniglot/images_background_small1.zip`` and ``..._small2.zip``.
        counts: Numbers of characters, equally probable.
        options: Other options of `ComposedScene`.
    """
    return ComposedScene(partial(load_omniglot, data_dir=data_dir), counts=counts, default_size=(32, 44), **options)
