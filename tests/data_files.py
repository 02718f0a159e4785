"""Where the files of scenes are that need some; tests without them are skipped."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

FOLDERS = {"multi_mnist": "mnist", "omniglot": "omniglot"}
"""Scene -> its part of the data folder."""
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def data_dir_of(scene: str) -> Path | None:
    """The data folder, if the scene needs one; the test is skipped if its files are not there."""
    if scene == "images":
        path = Path(tempfile.mkdtemp()) / "stack.npy"
        np.save(path, np.random.default_rng(0).random((5, 20, 20)) > 0.9)
        return path
    if scene not in FOLDERS:
        return None
    folder = Path(os.environ.get("AIR_DATA_DIR", SHARED_DATA))
    if not (folder / FOLDERS[scene]).is_dir():
        pytest.skip(f"needs data: set AIR_DATA_DIR to a folder that holds {FOLDERS[scene]}/ (looked in {folder})")
    return folder
