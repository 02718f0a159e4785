"""Scanning policy: heat maps of windows, and which cue predicts the first of two digits.

The first window of a scene with two digits is matched with one of them. A logistic regression predicts which from
what one might go by; the objects of a scene come in no order, so that chance is 0.5:

    position    where the two digits lie: the differences of x, y, x^2, y^2 and x y of their centres, so that "left
                first" and "outermost first" are told alike
    identity    the classes of the two digits
    size        the longer sides of their boxes
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from air_env import geometry
from air_env.explanation import DrawnExplanation, Explanation
from air_env.scenes import SceneDataset

from ..evaluation.metrics import match

CUES = ("position", "identity", "size")
_NUM_CLASSES = 10
_BINS = 25
_BLUR = 0.6
_FOLDS = 5
_LEAST = 20
"""Scenes of each outcome below which nothing can be said."""


def heat_maps(z: Explanation, num_steps: int = 2) -> NDArray[np.float64]:
    """Where the windows of each step are centred.

    Args:
        z: Explanations.
        num_steps: Number of maps.

    Returns:
        ``[step, row, column]``, shares of the step's windows; 0 where a step has none, and windows whose centre is
        outside the image are counted at its border.
    """
    return histograms(z.z_pres, z.z_where[..., 1:3], 1, _BINS)[:num_steps]


def histograms(
    z_pres: Float[Tensor, "scene step"], places: Float[Tensor, "scene step 2"], reach: float, bins: int
) -> Float[np.ndarray, "step row column"]:
    """Where the objects of each step are, as shares of them; those out of reach are counted at the border."""
    # Doubles: in single precision the border may lie beyond itself.
    maps, places = [], places.double().clamp(-reach, reach).cpu()
    for step, present in enumerate(z_pres.cpu().unbind(1)):
        x, y = places[present > 0, step].numpy().T
        counts, _, _ = np.histogram2d(y, x, bins, ((-reach, reach), (-reach, reach)))
        maps.append(counts / max(1, counts.sum()))
    return np.stack(maps)


def blend(maps: Float[np.ndarray, "2 row column"]) -> Float[np.ndarray, "row column 3"]:
    """A picture of two maps: the first in red, the second in green, both where they overlap in yellow."""
    picture = np.zeros((*maps.shape[1:], 3))
    for channel, shares in enumerate(maps):
        smooth = gaussian_filter(shares, _BLUR)
        picture[..., channel] = smooth / max(smooth.max(), np.finfo(float).tiny)
    return picture


def first_attended(z: DrawnExplanation, scenes: SceneDataset) -> tuple[SceneDataset, Int[np.ndarray, "scene"]]:
    """Which object of each scene is attended to first.

    Args:
        z: Explanations of the scenes.
        scenes: Scenes of two objects.

    Returns:
        The scenes that are counted right; and for each, 1 where the first window is that of object 0, else 0.
    """
    right = (z.count.cpu() == 2) & (scenes.count == 2)
    scenes, side = scenes[right], scenes.images.shape[-1]
    windows = geometry.to_pixels(z.windows, side).cpu()[right]
    squares = geometry.boxes(geometry.from_boxes(scenes.boxes, side), side)
    _, (_, steps, objects) = match(windows, squares)
    return scenes, (objects[steps == 0] == 0).long().numpy()


def cues(scenes: SceneDataset) -> dict[str, NDArray[np.float64]]:
    """What a policy may go by in scenes of two objects: name of `CUES` -> ``[scene, feature]``."""
    side = scenes.images.shape[-1]
    corner, opposite = scenes.boxes[:, :2, :2].double(), scenes.boxes[:, :2, 2:].double()
    centres, sizes = (corner + opposite) / 2, (opposite - corner).amax(-1)
    x, y = (2 * centres / side - 1).unbind(-1)
    places = torch.stack([x, y, x**2, y**2, x * y], -1)
    one_hot: Tensor = scenes.labels[:, :2, None] == scenes.labels.new_tensor(range(_NUM_CLASSES))
    return {
        "position": (places[:, 0] - places[:, 1]).numpy(),
        "identity": one_hot.double().flatten(1).numpy(),
        "size": (sizes / side).numpy(),
    }


def predictability(z: DrawnExplanation, scenes: SceneDataset) -> dict[str, float]:
    """How well each cue predicts which object is attended to first.

    Args:
        z: Explanations of the scenes.
        scenes: Scenes of two objects.

    Returns:
        Name of `CUES` -> cross-validated accuracy, NaN where too few scenes are counted right; and ``scenes``, how
        many are.
    """
    # Slow to import, and only people who ask this need it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scenes, first = first_attended(z, scenes)
    accuracies: dict[str, float] = dict.fromkeys(CUES, float("nan"))
    if np.bincount(first, minlength=2).min() >= _LEAST:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        folds = StratifiedKFold(_FOLDS)
        for name, features in cues(scenes).items():
            accuracies[name] = float(cross_val_score(model, features, first, cv=folds).mean())
    return accuracies | {"scenes": float(len(first))}
