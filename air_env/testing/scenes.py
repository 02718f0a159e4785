"""The promises of a scene."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from air_env.scenes import ComposedScene, Scene, SceneDataset, Split
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
    if isinstance(scene, ComposedScene) and scene.background is not None:
        # Objects can be told from black only; a background must not change them.
        plain = replace(scene, background=None)
        check_scene(plain, num_scenes=num_scenes, seed=seed)
        truths = [_make(each, "train", num_scenes, seed).truth for each in (scene, plain)]
        changed = [name for name in truths[1] if not same(truths[0][name], truths[1][name])]
        expect(not changed, f"the background changed {', '.join(changed)}; draw it after everything else")
    before = _global_generators()
    splits = {split: _make(scene, split, num_scenes, seed) for split in get_args(Split)}
    train, again, other = splits["train"], *(scene.dataset("train", num_scenes, seed + i) for i in range(2))
    expect(same(before, _global_generators()), "global random generators were used; use one made from the seed")
    for split, scenes in splits.items():
        _check_types(scenes, num_scenes, scene.image_size)
        if getattr(scene, "background", None) is None:
            _check_truth(scenes, split)
    _check_glyphs(scene)
    first, second = ({"images": scenes.images} | scenes.truth for scenes in (train, again))
    changed = [name for name in first if not same(first[name], second[name])]
    expect(not changed, f"the same arguments gave other {', '.join(changed)}; draw everything from the seed")
    expect(not same(train.images, other.images), "two seeds gave the same images; the seed must decide the scenes")
    _check_apart({split: scenes.images[scenes.count != 0].numpy() for split, scenes in splits.items()}, "images")


def _make(scene: Scene, split: Split, num_scenes: int, seed: int) -> SceneDataset:
    try:
        return scene.dataset(split, num_scenes, seed)
    except Exception as error:
        raise AssertionError(
            f"dataset({split!r}, {num_scenes}, {seed}) failed: {error!r}; a scene has the splits "
            f"{', '.join(get_args(Split))}"
        ) from error


def _check_glyphs(scene: Scene) -> None:
    """That the splits are made of different glyphs, unless these are a fixed set of kinds that the renderer draws."""
    if isinstance(scene, ComposedScene) and (scene.model is None or not scene.model.make_renderer().kinds):
        _check_apart({split: scene.glyphs(split).images for split in get_args(Split)}, "glyphs")


def _check_apart(splits: Mapping[str, np.ndarray], what: str) -> None:
    """That no picture of a split is one of another split."""
    pictures = {split: [picture.tobytes() for picture in images] for split, images in splits.items()}
    faults = [
        f"{shared} of {len(pictures[other])} {other} {what} are {one.replace('train', 'training')} {what}"
        for one, other in combinations(pictures, 2)
        if (shared := len(set(pictures[one]).intersection(pictures[other]))) > 0
    ]
    expect(not faults, f"{', '.join(faults)}; the splits must share no object")


def _global_generators() -> tuple[object, ...]:
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
    if not scenes.counted.any():
        known = [name for name in scenes.truth if name != "count"]
        expect(not known, f"{split}: every count is -1, but {', '.join(known)} are known")
        return
    expect(same(named, located), f"{split}: a label of -1 and a box of NaN must mean the same objects are absent")
    for name, fact in scenes.facts.items():
        known = fact >= 0
        expect(same(known, located), f"{split}: {name} must be at least 0 for every object, and -1 or NaN for no other")
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
