"""The promises of a scene."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from air_env.scenes import ComposedScene, Scene, SceneDataset
from air_env.testing.expectations import expect, same

_BRIGHT = 128
"""Half of the largest pixel: what an object's soft border, outside its box, does not reach."""
_SOFT_BORDER = 2.0
"""How far beyond its box an object's pixels may be, as interpolation blurs them, in pixels."""


def check_scene(scene: Scene, *, num_scenes: int = 100, seed: int = 0) -> None:
    """Checks a source of images: types, determinism, splits, and that the truth is true.

    Args:
        scene: The scene.
        num_scenes: Number of scenes to look at, of each split.
        seed: Their seed.

    Raises:
        AssertionError: The scene breaks a promise of `Scene` or `SceneDataset`.

    Example:
        >>> from air_env.scenes import make_scene
        >>> check_scene(make_scene("sprites"))
    """
    before = _global_generators()
    train, again = (scene.dataset("train", num_scenes, seed) for _ in range(2))
    test, other = scene.dataset("test", num_scenes, seed), scene.dataset("train", num_scenes, seed + 1)
    expect(same(before, _global_generators()), "global random generators were used; use one made from the seed")
    for split, scenes in (("train", train), ("test", test)):
        _check_types(scenes, num_scenes, scene.image_size)
        _check_truth(scenes, split)
    _check_glyphs(scene)
    names = [f.name for f in fields(SceneDataset)]
    changed = [name for name in names if not same(getattr(train, name), getattr(again, name))]
    expect(not changed, f"the same arguments gave other {', '.join(changed)}; draw everything from the seed")
    expect(not same(train.images, other.images), "two seeds gave the same images; the seed must decide the scenes")
    shared = {image.tobytes() for image in train.images[train.count > 0].numpy()}
    repeated = sum(image.tobytes() in shared for image in test.images[test.count > 0].numpy())
    expect(
        repeated == 0, f"{repeated} of {num_scenes} test images are training images; the splits must share no object"
    )


def _check_glyphs(scene: Scene) -> None:
    """That train and test scenes are made of different glyphs, unless the glyphs are a fixed set that a model knows."""
    if not isinstance(scene, ComposedScene) or scene.model is not None:
        return
    train, test = ({glyph.tobytes() for glyph in scene.glyphs(split).images} for split in ("train", "test"))
    shared = len(train & test)
    expect(shared == 0, f"{shared} of {len(test)} test glyphs are training glyphs; the splits must share no object")


def _global_generators() -> tuple[Any, ...]:
    return *np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (looked at, not used)


def _check_types(scenes: SceneDataset, num_scenes: int, image_size: int) -> None:
    num_slots = scenes.labels.shape[-1]
    wanted: dict[str, tuple[tuple[int, ...], str]] = {
        "images": ((num_scenes, scenes.images.shape[1], image_size, image_size), "uint8"),
        "count": ((num_scenes,), "int64"),
        "labels": ((num_scenes, num_slots), "int64"),
        "boxes": ((num_scenes, num_slots, 4), "float32"),
    }
    for name, (shape, dtype) in wanted.items():
        tensor = getattr(scenes, name)
        found = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        expect(found == (shape, dtype), f"{name} must be {dtype} of shape {shape}, got {found[1]} of {found[0]}")
    channels = scenes.images.shape[1]
    expect(channels in (1, 3), f"images must have 1 (grey) or 3 (RGB) channels, got {channels}")


def _check_truth(scenes: SceneDataset, split: str) -> None:
    named, located = scenes.labels >= 0, ~scenes.boxes.isnan().any(-1)
    expect(same(named, located), f"{split}: a label of -1 and a box of NaN must mean the same objects are absent")
    for i in range(len(scenes)):
        count, boxes = int(scenes.count[i]), scenes.boxes[i, located[i]]
        image, where = scenes.images[i].amax(0), f"{split} scene {i}"
        expect(count == len(boxes), f"{where}: count is {count}, but {len(boxes)} objects have labels and boxes")
        proper = (boxes[:, :2] < boxes[:, 2:]).all() and (boxes >= -1e-3).all() and (boxes <= len(image) + 1e-3).all()
        expect(bool(proper), f"{where}: boxes must be x0 < x1, y0 < y1 within the image, got {boxes.tolist()}")
        if scenes.z_scene.shape[1] > 0:
            continue  # there is more to see than objects
        if count == 0:
            expect(not image.any(), f"{where}: count is 0, but the image is not black everywhere")
        centres = torch.arange(len(image)) + 0.5
        near = torch.zeros(image.shape, dtype=torch.bool)
        for x0, y0, x1, y1 in boxes.tolist():
            inside = _between(centres, y0, y1, 0.5)[:, None] & _between(centres, x0, x1, 0.5)
            expect(bool(image[inside].any()), f"{where}: nothing is in box {[x0, y0, x1, y1]}; it is x before y")
            near |= _between(centres, y0, y1, _SOFT_BORDER)[:, None] & _between(centres, x0, x1, _SOFT_BORDER)
        stray = int((image[~near] >= _BRIGHT).sum())
        expect(stray == 0, f"{where}: {stray} bright pixels are in no box; the truth must have all objects")
    brightest = int(scenes.images.max())
    expect(
        brightest >= _BRIGHT or not scenes.count.any(), f"{split}: pixels run from 0 to 255, the largest is {brightest}"
    )


def _between(centres: Tensor, low: float, high: float, margin: float) -> Tensor:
    return (centres >= low - margin) & (centres <= high + margin)
