"""Where images come from, with ground truth."""

import inspect
from collections.abc import Callable

from air_env.registry import Registry
from air_env.scenes.arrangement import DIFFICULTIES, Arrangement
from air_env.scenes.backgrounds import BACKGROUNDS
from air_env.scenes.base import Scene, SceneDataset, Split
from air_env.scenes.composer import ComposedScene, Glyphs
from air_env.scenes.digits import digits
from air_env.scenes.images import ImageScene, images
from air_env.scenes.mnist import multi_mnist
from air_env.scenes.objects3d import ObjectScene, objects3d
from air_env.scenes.omniglot import omniglot
from air_env.scenes.solids import SolidScene
from air_env.scenes.sprites import sprites, sprites_overlap
from air_env.scenes.tabletop3d import TabletopScene, tabletop3d
from air_env.scenes.treatment import Treatment

SCENES: Registry[Callable[..., Scene]] = Registry(
    "scene",
    {
        "digits": digits,
        "multi_mnist": multi_mnist,
        "omniglot": omniglot,
        "sprites": sprites,
        "sprites_overlap": sprites_overlap,
        "objects3d": objects3d,
        "tabletop3d": tabletop3d,
        "images": images,
    },
)
"""Name -> function that makes the scene; all take `data_dir` and the options of their scene."""


_FIXED = {"glyphs", "model", "default_size", "frame_size"}
"""What scenes of glyphs set themselves."""


def make_scene(name: str, **options) -> Scene:
    """Makes a registered scene.

    Args:
        name: One of `SCENES`.
        options: `data_dir`, `counts`, `object_size`, ... as the scene takes them.
    """
    valid = scene_options(name)
    if unknown := options.keys() - valid.keys():
        names, known = ", ".join(map(repr, sorted(unknown))), ", ".join(sorted(valid))
        raise ValueError(f"scene option {names} is unknown; choose from {known}")
    return SCENES.find(name)(**options)


def scene_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a registered scene, with their types and defaults; also those that go on to `ComposedScene`."""
    parameters = dict(inspect.signature(SCENES.find(name), eval_str=True).parameters)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        passed_on = dict(inspect.signature(ComposedScene, eval_str=True).parameters)
        parameters = {n: p for n, p in (passed_on | parameters).items() if n not in _FIXED}
    return {n: p for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}


__all__ = [
    "BACKGROUNDS",
    "DIFFICULTIES",
    "SCENES",
    "Arrangement",
    "ComposedScene",
    "Glyphs",
    "ImageScene",
    "ObjectScene",
    "Scene",
    "SceneDataset",
    "SolidScene",
    "Split",
    "TabletopScene",
    "Treatment",
    "make_scene",
    "scene_options",
]
