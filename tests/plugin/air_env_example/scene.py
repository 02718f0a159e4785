"""`rings`: scenes of rings and discs. Scenes of small pictures need only the pictures; the composer places them."""

import math
from pathlib import Path

import numpy as np

from air_env import SceneConfig
from air_env.scenes import ComposedScene, Glyphs, Split

from .renderer import RingConfig

_RADII = {"train": (3.0, 4.0, 5.0), "validation": (3.7, 4.2), "test": (3.5, 4.5)}
"""Outer radii in pixels: the splits must be made of different objects."""


def draw_glyphs(split: Split) -> Glyphs:
    """Pictures of 11x11 pixels: rings of class 0, discs of class 1."""
    y, x = np.mgrid[-5:6, -5:6]
    distance = np.hypot(x, y)
    pictures = [(distance <= outer) & (distance >= hole * outer) for hole in (0.6, 0.0) for outer in _RADII[split]]
    labels = np.repeat([0, 1], len(_RADII[split]))
    return Glyphs((255 * np.stack(pictures)).astype(np.uint8), labels.astype(np.int64))


def model_of_rings(image_size: int, object_size: tuple[float, float]) -> SceneConfig:
    """The generative model of the images: without it, environments would take the renderer of digits."""
    log_size = math.log(sum(object_size) / 2 / image_size)
    return SceneConfig(image_size, likelihood="cauchy", where_mean=(log_size, 0.0, 0.0), renderer=RingConfig())


def rings(
    *,
    data_dir: Path | str | None = None,
    object_size: tuple[float, float] = (10, 20),
    image_size: int = 50,
    **options,
) -> ComposedScene:
    """Rings and discs of 10 to 20 pixels; `ComposedScene` has the options. `data_dir` is not used."""
    del data_dir
    model = model_of_rings(image_size, object_size)
    return ComposedScene(draw_glyphs, object_size, image_size=image_size, model=model, **options)
