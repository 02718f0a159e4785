"""How count accuracy depends on the scene: on how near, small, covered and many its objects are.

Each interval holds the true share of rightly counted scenes with 95 % confidence (Clopper and Pearson, 1934).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binomtest

from air_env.registry import Registry
from air_env.scenes import SceneDataset
from air_env.scenes.arrangement import nearest_distance

from ..inference.explainer import Explainer
from . import show

CONFIDENCE = 0.95
"""Of the intervals."""


@dataclass(frozen=True)
class Property:
    """Something about a scene that its boxes tell.

    Attributes:
        title: What it is, with its unit.
        measure: Its value in each scene, of boxes ``[scene, object, 4]``, NaN where there is no object; NaN where the
            scene has none.
        edges: What separates its bins, each of which includes its upper edge. Without edges every value is a bin.
    """

    title: str
    measure: Callable[[NDArray], NDArray]
    edges: tuple[float, ...] = ()

    def bins(self, values: NDArray) -> tuple[NDArray, list[str]]:
        """The bin of each value, and the names of all bins."""
        if not self.edges:
            distinct, index = np.unique(values, return_inverse=True)
            return index, [f"{value:g}" for value in distinct]
        between = [f"{low:g} to {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        first = f"up to {self.edges[0]:g}" if self.edges[0] > 0 else "0"
        names = [first, *between, f"over {self.edges[-1]:g}"]
        return np.digitize(values, self.edges, right=True), names


def smallest_size(boxes: NDArray) -> NDArray:
    """The longer side in pixels of each scene's smallest box."""
    longer = (boxes[..., 2:] - boxes[..., :2]).max(-1)
    return np.fmin.reduce(longer, axis=1, initial=np.nan)


def largest_overlap(boxes: NDArray) -> NDArray:
    """The largest share that two boxes of each scene have in common, of the smaller one of them."""
    first, second = (boxes[:, index] for index in np.triu_indices(boxes.shape[1], 1))
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    areas = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (first, second))
    return np.fmax.reduce(sides.clip(0).prod(-1) / np.minimum(*areas), axis=1, initial=np.nan)


def number(boxes: NDArray) -> NDArray:
    """How many boxes each scene has."""
    return (~np.isnan(boxes).any(-1)).sum(1).astype(float)


PROPERTIES: Registry[Property] = Registry(
    "scene property",
    {
        "distance": Property(
            "distance of the two nearest centres, pixels", nearest_distance, (7, 10, 13, 16, 19, 22, 26, 30)
        ),
        "size": Property("size of the smallest object, pixels", smallest_size, (8, 10, 12, 14, 16, 18, 20, 22)),
        "overlap": Property(
            "largest overlap, share of the smaller box", largest_overlap, (0, 0.05, 0.1, 0.2, 0.3, 0.5)
        ),
        "number": Property("number of objects", number),
    },
)
"""Name -> property by which count accuracy can be broken down.

Distance and overlap are those of scenes of two objects or more, and size of one or more. More objects are nearer, and
smaller ones among them: scenes of one number tell what is due to which.
"""


def breakdown(agent: Explainer, scenes: SceneDataset, by: Sequence[str]) -> pd.DataFrame:
    """Count accuracy for each bin of some properties.

    Args:
        agent: Who counts; `Explainer.explain` gives the most probable counts.
        scenes: Images and the truth about them.
        by: Some of `PROPERTIES`.

    Returns:
        A row for each bin with scenes: ``by``, ``bin``, number of ``scenes``, how many of them are ``right``, the
        ``accuracy``, and the limits ``low`` and ``high`` of its interval.

    Raises:
        ValueError: A property is unknown, or no count is known.
    """
    scenes = scenes.counted_only("count accuracy to break down")
    properties = {name: PROPERTIES.find(name) for name in by}
    right = (agent.explain(scenes.images).count.cpu() == scenes.count.cpu()).numpy()
    boxes = scenes.boxes.cpu().numpy().astype(np.float64)
    rows = [{"by": name, **row} for name, each in properties.items() for row in _bins(each, right, boxes)]
    return pd.DataFrame(rows, columns=["by", "bin", "scenes", "right", "accuracy", "low", "high"])


def _bins(each: Property, right: NDArray[np.bool_], boxes: NDArray) -> Iterator[dict[str, object]]:
    values = each.measure(boxes)
    known = ~np.isnan(values)
    index, names = each.bins(values[known])
    for i in np.unique(index):
        own = right[known][index == i]
        n, k = len(own), int(own.sum())
        low, high = binomtest(k, n).proportion_ci(CONFIDENCE, "exact")
        yield {"bin": names[i], "scenes": n, "right": k, "accuracy": k / n, "low": low, "high": high}


def tables(rows: pd.DataFrame) -> str:
    """A table in Markdown for each property of a `breakdown`."""
    texts = []
    for name, own in rows.groupby("by", sort=False):
        interval = [f"{low:.3f} to {high:.3f}" for low, high in zip(own.low, own.high, strict=True)]
        titles = {"bin": PROPERTIES.find(str(name)).title, "scenes": "scenes", "accuracy": "count accuracy"}
        texts.append(show(own.assign(interval=interval), titles | {"interval": f"{100 * CONFIDENCE:g} % interval"}))
    return "\n\n".join(texts)


def panels(rows: pd.DataFrame) -> Figure:
    """A panel for each property of a `breakdown`: accuracy with its interval, and the number of scenes, in each bin."""
    groups = list(rows.groupby("by", sort=False))
    columns = 1 + (len(groups) > 1)
    lines = max(1, -(-len(groups) // columns))
    figure = Figure(figsize=(5.5 * columns, 3.8 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (name, own) in zip(grid, groups, strict=False):
        place = np.arange(len(own))
        axes.errorbar(place, own.accuracy, [own.accuracy - own.low, own.high - own.accuracy], fmt="o", capsize=3)
        for x, scenes in zip(place, own.scenes, strict=True):
            above = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{scenes:,}", (x, 1), (0, 4), fontsize=8, color="grey", **above)
        axes.set_xticks(place, own.bin, rotation=30, ha="right", fontsize=9)
        axes.set(xlabel=PROPERTIES.find(str(name)).title, ylabel="count accuracy")
        axes.set(ylim=(-0.03, 1.03), xlim=(-0.6, len(own) - 0.4))
        axes.grid(alpha=0.3, axis="y")
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    return figure
