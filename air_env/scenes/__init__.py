"""Where images come from, with ground truth."""

import inspect
from collections.abc import Callable
from dataclasses import fields

from air_env.registry import Registry
from air_env.scenes.base import Scene, SceneDataset, Split
from air_env.scenes.composer import ComposedScene, Glyphs
from air_env.scenes.digits import digits
from air_env.scenes.mnist import multi_mnist
from air_env.scenes.objects3d import ObjectScene, objects3d
from air_env.scenes.solids import SolidScene
from air_env.scenes.sprites import sprites
from air_env.scenes.tabletop3d import TabletopScene, tabletop3d

SCENES: Registry[Callable[..., Scene]] = Registry(
    "scene",
    {
        "digits": digits,
        "multi_mnist": multi_mnist,
        "sprites": sprites,
        "objects3d": objects3d,
        "tabletop3d": tabletop3d,
    },
)
"""Name -> function that makes the scene; all take `data_dir` and the options of their scene."""


_OPTIONS = {"data_dir", *(field.name for field in fields(ComposedScene))} - {"glyphs", "model"}


def make_scene(name: str, **options) -> Scene:
    """Makes a registered scene.

    Args:
        name: One of `SCENES`.
        options: `data_dir`, `counts`, `object_size`, ... as the scene takes them.
    """
    valid = scene_options(name)
    if unknown := options.keys() - valid:
        names, known = ", ".join(map(repr, sorted(unknown))), ", ".join(sorted(valid))
        raise ValueError(f"scene option {names} is unknown; choose from {known}")
    return SCENES.find(name)(**options)


def scene_options(name: str) -> set[str]:
    """Names of the options that a registered scene takes."""
    parameters = inspect.signature(SCENES.find(name)).parameters
    composed = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return (parameters.keys() - {"options"}) | _OPTIONS if composed else set(parameters)


__all__ = [
    "SCENES",
    "ComposedScene",
    "Glyphs",
    "ObjectScene",
    "Scene",
    "SceneDataset",
    "SolidScene",
    "Split",
    "TabletopScene",
    "make_scene",
    "scene_options",
]
