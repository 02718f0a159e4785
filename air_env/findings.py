"""What was found in images, in the forms that other tools take: tables, COCO, `supervision`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

BOX = ["x0", "y0", "x1", "y1"]
"""Columns of boxes: left, top, right and bottom border."""


@dataclass(frozen=True)
class View:
    """Which part of which file an image shows.

    Attributes:
        path: The file.
        size: Its width and height in pixels, as it is shown (turned as its EXIF orientation says).
        window: Left and upper border, and side, of the square that became the image, in pixels of the file.
    """

    path: Path
    size: tuple[int, int]
    window: tuple[int, int, int]

    def to_file(self, boxes: ArrayLike, side: int) -> NDArray[np.float64]:
        """Boxes ``[box, 4]`` in pixels of the image, whose side is given, in pixels of the file."""
        x, y, square = self.window
        return np.asarray(boxes, np.float64) * (square / side) + [x, y, x, y]


def to_frame(
    boxes: NDArray,
    side: int,
    views: Sequence[View] | None = None,
    categories: NDArray | None = None,
    columns: Mapping[str, ArrayLike] | None = None,
) -> "pd.DataFrame":
    """A row for each object.

    Args:
        boxes: ``[image, object, 4]`` in pixels of the images; NaN where there is no object.
        side: Side of the images.
        views: The files that the images show parts of; their boxes are then in pixels of the files.
        categories: ``[image, object]``, what objects are, where that is known.
        columns: More to say of each image: name -> one number for each.

    Returns:
        Columns ``image`` (from 0), ``path`` where there are views, ``count`` and the others of the image, ``object``
        (from 1), the box as ``x0``, ``y0``, ``x1``, ``y1``, and ``category`` where it is known. Images without objects
        have no row.

    Raises:
        ValueError: There is not one view, or one number of a column, for each image.
    """
    import pandas as pd

    per_image = {name: np.asarray(values) for name, values in (columns or {}).items()}
    for name, values in {"views": views, **per_image}.items():
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{name} must be one for each of the {len(boxes)} images, got {len(values)}")
    present: NDArray[np.bool_] = np.logical_not(np.isnan(boxes).any(-1))
    image, step = present.nonzero()
    if views is not None:
        boxes = np.stack([view.to_file(own, side) for view, own in zip(views, boxes, strict=True)])
    frame = pd.DataFrame({"image": image})
    if views is not None:
        frame["path"] = np.array([str(view.path) for view in views])[image]
    frame["count"] = present.sum(1)[image]
    for name, values in per_image.items():
        frame[name] = values[image]
    frame["object"] = present.cumsum(1)[image, step]
    frame[BOX] = boxes[image, step].astype(np.float64)
    return frame if categories is None else frame.assign(category=categories[image, step])


def to_coco(frame: "pd.DataFrame", views: Sequence[View], kinds: Sequence[str] = ()) -> dict[str, Any]:
    """COCO's JSON of a table of `to_frame` with views: files, boxes ``[x, y, width, height]``, categories from 1.

    Boxes are cut where the file ends. The score of an annotation is ``count_probability`` where the table has it.

    Args:
        frame: The table.
        views: All views, also those without objects; those of one file are one image.
        kinds: Names of the categories; by default there is one, ``object``.
    """
    files = {str(view.path): view.size for view in views}
    number = {path: i for i, path in enumerate(files, 1)}
    annotations = []
    for i, row in enumerate(frame.to_dict("records"), 1):
        width, height = files[row["path"]]
        x0, x1 = np.clip([row["x0"], row["x1"]], 0, width).tolist()
        y0, y1 = np.clip([row["y0"], row["y1"]], 0, height).tolist()
        box = [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)]
        annotations.append(
            {
                "id": i,
                "image_id": number[row["path"]],
                "category_id": 1 + int(row["category"]) if kinds and "category" in row else 1,
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": 0,
                "score": float(row.get("count_probability", 1.0)),
            }
        )
    return {
        "info": {"description": "air-env"},
        "images": [{"id": number[p], "file_name": p, "width": w, "height": h} for p, (w, h) in files.items()],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(kinds or ("object",), 1)],
    }


def to_detections(frame: "pd.DataFrame", num_images: int) -> list[Any]:
    """A ``supervision.Detections`` for each image, of a table of `to_frame`.

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        supervision = import_module("supervision")
    except ImportError as error:
        raise ImportError("supervision is not installed; install it: pip install supervision") from error
    detections = []
    for image in range(num_images):
        rows = frame[frame["image"] == image]
        category = rows["category"].to_numpy(int) if "category" in rows else np.zeros(len(rows), int)
        detections.append(supervision.Detections(xyxy=rows[BOX].to_numpy(np.float32), class_id=category))
    return detections
