"""`digits`: scenes of the 8x8 handwritten digits that come with scikit-learn; nothing to download."""

from functools import cache
from pathlib import Path

import numpy as np

from air_env.scenes.base import Split
from air_env.scenes.composer import ComposedScene, Glyphs

_ROWS: dict[Split, slice] = {"train": slice(1287), "validation": slice(1287, 1415), "test": slice(1415, None)}


@cache
def load_digits(split: Split) -> Glyphs:
    """Scikit-learn's 1,797 digits, cut between the forms that writers filled in: 1,287, 128 and 382.

    The images are 14 runs, which begin at 0, 130, 256, 386, 516, 646, 776, 905, 1029, 1157, 1287, 1415, 1545 and 1667.
    Each is a form of about 130 digits: it starts over with 0, 1, 2, ..., and all have their digits in the same order,
    but for a few that are missing. The first ten are for training, the 11th for validation, the last three for testing.
    The writers were 13, so that one may have filled in two forms; which, the file does not say.

    Source: the test set of UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
    """
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    images = (np.reshape(pixels, (-1, 8, 8)) * (255 / 16)).round().astype(np.uint8)
    return Glyphs(images[_ROWS[split]], np.asarray(labels)[_ROWS[split]].astype(np.int64))


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
