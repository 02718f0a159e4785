"""`multi_mnist`: scenes of MNIST digits (Section 3.1)."""

from functools import cache, partial
from pathlib import Path

import numpy as np

from air_env.scenes.base import Split
from air_env.scenes.composer import ComposedScene, Glyphs
from air_env.scenes.files import read_gzip

_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_COUNT = {"train": 60_000, "t10k": 10_000}
_ROWS: dict[Split, tuple[str, slice]] = {
    "train": ("train", slice(55_000)),
    "validation": ("train", slice(55_000, None)),
    "test": ("t10k", slice(None)),
}
"""Split -> the files that it is in, and where."""
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@cache
def load_mnist(split: Split, data_dir: Path | str | None = None) -> Glyphs:
    """Digits of MNIST, 28x28 (LeCun et al., 1998).

    The first 55,000 of the training file are for training and its last 5,000 for validation; the 10,000 test digits,
    by other writers, are for testing.
    """
    prefix, rows = _ROWS[split]

    def read(kind: str, header: int, numbers: int) -> np.ndarray:
        name = f"{prefix}-{kind}-ubyte"
        size = header + numbers * _COUNT[prefix]
        content = read_gzip(f"mnist/{name}.gz", _SHA256[name], size, _URL, data_dir)
        return np.frombuffer(content, np.uint8)[header:]

    images = read("images-idx3", 16, 28 * 28).reshape(-1, 28, 28)
    # A copy: a part of the file does not keep all of it in memory.
    return Glyphs(images[rows].copy(), read("labels-idx1", 8, 1)[rows].astype(np.int64))


def multi_mnist(*, data_dir: Path | str | None = None, counts: tuple[int, ...] = (0, 1, 2), **options) -> ComposedScene:
    """MNIST digits of 12 to 26 pixels, unless the difficulty says otherwise; `ComposedScene` has the options.

    In the original files a digit has 20 pixels, and 28 with its margins.

    Args:
        data_dir: Folder that holds ``mnist/train-images-idx3-ubyte.gz`` and so on.
        counts: Numbers of digits, equally probable.
        options: Other options of `ComposedScene`.
    """
    return ComposedScene(partial(load_mnist, data_dir=data_dir), counts=counts, default_size=(12, 26), **options)
