"""`digits`: scenes of the 8x8 handwritten digits that come with scikit-learn; nothing to download."""

from functools import cache
from pathlib import Path

import numpy as np

from air_env.scenes.base import Split
from air_env.scenes.composer import ComposedScene, Glyphs

_NUM_TRAIN = 1400


@cache
def load_digits(split: Split) -> Glyphs:
    """The first 1,400 of scikit-learn's 1,797 digits for training, the others for testing.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
    """
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    images = (np.reshape(pixels, (-1, 8, 8)) * (255 / 16)).round().astype(np.uint8)
    rows = slice(None, _NUM_TRAIN) if split == "train" else slice(_NUM_TRAIN, None)
    return Glyphs(images[rows], np.asarray(labels)[rows].astype(np.int64))


def digits(*, data_dir: Path | str | None = None, counts: tuple[int, ...] = (0, 1, 2), **options) -> ComposedScene:
    """Digits of 14 to 22 pixels, unless the difficulty says otherwise; `ComposedScene` has the options.

    Args:
        data_dir: Not used.
        counts: Numbers of digits, equally probable.
        options: Other options of `ComposedScene`.
    """
    del data_dir
    # Without margins, a digit of MNIST has 20 pixels, too.
    return ComposedScene(load_digits, counts=counts, default_size=(14, 22), frame_size=20, **options)
