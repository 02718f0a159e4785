"""A world is a scene model and images for it to explain; environments are shells around one."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from safetensors.torch import load_model

from air_env.model import SceneConfig, SceneModel
from air_env.priors import CountPrior
from air_env.reading import read_whole
from air_env.renderers import PatchConfig, RendererSettings
from air_env.scenes import Scene, SceneDataset, Split, make_scene
from air_env.scenes import scene_options as options_of

DEFAULT_RENDERER = "digits.safetensors"
"""Weights of a patch renderer trained on `digits`, shipped with the package in ``air_env/weights``."""


@dataclass(frozen=True)
class World:
    """A generative model and a pool of scenes."""

    model: SceneModel
    scenes: SceneDataset


def make_world(
    scene: str | Scene = "digits",
    *,
    split: Split = "train",
    num_scenes: int = 2_000,
    scene_seed: int = 0,
    data_dir: Path | str | None = None,
    scene_options: Mapping[str, object] | None = None,
    model: SceneModel | None = None,
    num_steps: int | None = None,
    likelihood: str | None = None,
    likelihood_scale: float | None = None,
    count_prior: CountPrior | str | None = None,
    renderer: RendererSettings | str | None = None,
    **options: object,
) -> World:
    """Makes the world of an environment.

    Args:
        scene: One of `SCENES`, or a scene of one's own.
        split: ``train``, ``validation`` or ``test``; their scenes are made of different objects.
        num_scenes: Size of the pool that resets draw from.
        scene_seed: Seed of the pool.
        data_dir: Folder of the data files, for scenes that need some.
        scene_options: Further options of a registered scene: ``counts``, ``object_size``, ``overlap``, ...; they may
            also be given by name, like the arguments of this function.
        model: The generative model, an agent's for example. By default the scene's own, where it is known, or
            one with the shipped renderer of digits.
        num_steps: N, the largest number of objects. This and the following change the default model.
        likelihood: One of `LIKELIHOODS`.
        likelihood_scale: Its scale.
        count_prior: p(n), or the name of one of `COUNT_PRIORS`.
        renderer: Settings of a renderer, or the name of one of `RENDERERS`, with its default settings.
        options: Added to ``scene_options``.

    Raises:
        TypeError: An option is unknown.
        ValueError: An option is out of range, or not for this scene or model.
        FileNotFoundError: A data file or the shipped renderer is missing.
    """
    known = options_of(scene) if isinstance(scene, str) else set()
    if unknown := options.keys() - known:
        own = [name for name in inspect.signature(make_world).parameters if name != "options"]
        # As Python says it: TorchRL, for one, looks for these words.
        raise TypeError(
            f"unexpected keyword argument {', '.join(map(repr, sorted(unknown)))}; make_world takes {', '.join(own)}"
            + (f"; this scene {', '.join(sorted(known))}" if known else "")
        )
    num_scenes, scene_seed = read_whole("num_scenes", num_scenes, 1), read_whole("scene_seed", scene_seed)
    settings = {
        "num_steps": num_steps,
        "likelihood": likelihood,
        "likelihood_scale": likelihood_scale,
        "count_prior": CountPrior(count_prior) if isinstance(count_prior, str) else count_prior,
        "renderer": renderer,
    }
    if not isinstance(scene_options, Mapping | None):
        raise ValueError(f"scene_options must be a dict of {', '.join(known) or 'nothing'}; got {scene_options!r}")
    changes = {name: value for name, value in settings.items() if value is not None}
    if model is not None and changes:
        raise ValueError(f"{', '.join(changes)} cannot change a model that is given; make the model with them")
    scenes, config = _make_scenes(scene, split, num_scenes, scene_seed, data_dir, {**(scene_options or {}), **options})
    if model is None:
        model = SceneModel(replace(config or SceneConfig(image_size=scenes.images.shape[-1]), **changes))
        if model.config.renderer.kind == PatchConfig.kind:
            load_renderer(model)
    if scenes.images.shape[1:] != model.image_shape:
        found, wanted = (f"{side} pixels a side" for _, side, _ in (scenes.images.shape[1:], model.image_shape))
        if found == wanted:
            found, wanted = (f"{shape[0]} colours" for shape in (scenes.images.shape[1:], model.image_shape))
        raise ValueError(
            f"the scenes have {found}, the model wants {wanted}; give both the same image_size and kind of renderer"
        )
    return World(model, scenes)


def load_renderer(model: SceneModel) -> None:
    """Loads the shipped weights into the patch renderer of a model, which has the default size.

    Raises:
        FileNotFoundError: The package was installed without them.
        RuntimeError: They do not fit.
    """
    with resources.as_file(resources.files("air_env") / "weights" / DEFAULT_RENDERER) as path:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}, the weights of the default renderer, does not exist; install the package again, or give "
                "a model of your own: model=SceneModel(SceneConfig(...))"
            )
        load_model(model.get_submodule("renderer"), path)


def _make_scenes(
    scene: str | Scene,
    split: Split,
    num_scenes: int,
    seed: int,
    data_dir: Path | str | None,
    options: Mapping[str, object],
) -> tuple[SceneDataset, SceneConfig | None]:
    """The pool, and the generative model of its images where it is known."""
    if not isinstance(scene, str):
        if options or data_dir is not None:
            raise ValueError("scene_options and data_dir are for registered scenes; make the scene with them")
        return scene.dataset(split, num_scenes, seed), getattr(scene, "model", None)
    # Lists, as JSON and command lines give them, and arrays cannot be keys of the cache.
    listed = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in options.items()}
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in listed.items()}
    folder = None if data_dir is None else str(data_dir)
    config = getattr(make_scene(scene, data_dir=folder, **frozen), "model", None)
    try:
        hash((split, *frozen.values()))
    except TypeError:
        return _pool.__wrapped__(scene, split, num_scenes, seed, folder, **frozen), config
    return _pool(scene, split, num_scenes, seed, folder, **frozen), config


@lru_cache(maxsize=8)
def _pool(name: str, split: Split, num_scenes: int, seed: int, data_dir: str | None, **options: object) -> SceneDataset:
    """Scenes are made once a process: they are the same for all its environments."""
    return make_scene(name, data_dir=data_dir, **options).dataset(split, num_scenes, seed)
