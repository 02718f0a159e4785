"""What callers hand in is read as it is meant, or refused in words before anything is done with it."""

import dataclasses
import inspect
import json
import math
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from data_files import FOLDERS
from tiny import in_turn

from air_env.count_priors import CountPrior
from air_env.explanation import Explanation
from air_env.model import SceneModel
from air_env.reading import is_between, read_numbers, read_whole
from air_env.renderers import ObjectsConfig, PatchConfig, SpriteConfig, TabletopConfig
from air_env.scene_config import SceneConfig
from air_env.scenes import SCENES, scene_options
from air_env.spaces import to_images, to_plans
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import make_world

HUGE = 10**12
STRANGE = ["3", "auto", 1.5, -1, True, None, math.nan, math.inf, 1 + 2j, HUGE, np.int64(-3), object(), (),
           [], {}, (1.5,), ("a",), (-1, 1), (0, 1), ((1, 2), (3, 4)), np.array([1, 2])]  # fmt: skip
CONFIGS = [SceneConfig, CountPrior, PatchConfig, SpriteConfig, ObjectsConfig, TabletopConfig]
FREE = [name for name in SCENES if name not in (*FOLDERS, "images")]
"""Scenes that need no files."""


@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_whole_numbers_of_all_libraries_are_read(number):
    assert (read := read_whole("n", number, 1, 3)) == 3
    assert type(read) is int


@pytest.mark.parametrize("value", ["3", 3.0, np.float64(3), torch.tensor(3.0), True, None, [3], math.nan])
def test_what_is_no_whole_number_is_refused_with_its_name(value):
    with pytest.raises(ValueError, match=r"num_envs must be a whole number of at least 1, got ") as caught:
        read_whole("num_envs", value, 1)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [-1, 0, 1_001, np.int64(-5), 10**30])
def test_a_whole_number_beyond_its_limits_is_refused_with_them(value):
    with pytest.raises(ValueError, match=r"num_steps must be a whole number from 1 to 1,000, got "):
        read_whole("num_steps", value, 1, 1_000)


def test_what_lies_between_is_a_real_number_inside():
    assert all(is_between(value, 0, 1) for value in (0.5, np.float32(0.5)))
    assert not any(is_between(value, 0, 1) for value in (0, 1, math.nan, "0.5", None, 0.5j, [0.5]))


def plan(model: SceneModel, plans: int, **latents: torch.Tensor) -> Explanation:
    """A plan with latents that no explanation can be made with where shapes are checked."""
    z = model.nothing(torch.zeros(plans, 1), model.config.num_steps)
    for name, value in latents.items():
        object.__setattr__(z, name, value)
    return z


def strange_tensors() -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        parts = [torch.zeros(2), torch.zeros(3)]
        return {
            "sparse": torch.zeros(2, 3).to_sparse(),
            "sparse ": torch.zeros(2, 3).to_sparse_csr(),
            "meta": torch.zeros(2, 3, device="meta"),
            "nested": torch.nested.nested_tensor(parts),
            "nested ": torch.nested.nested_tensor(parts, layout=torch.jagged),
            "quantized": torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.quint8),
        }


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", strange_tensors())
def test_tensors_without_a_number_in_every_place_are_refused_in_words(kind):
    tensor, model = strange_tensors()[kind], SceneModel(SceneConfig(image_size=3))
    match = f"is a {kind.strip()} tensor, wanted a dense one"
    for read in (lambda: read_numbers("images", tensor), lambda: to_images(tensor, model)):
        with pytest.raises(ValueError, match=f"images {match}"):
            read()
    with pytest.raises(ValueError, match=f"z_where {match}"):
        to_plans(plan(model, 2, z_where=tensor), model, 2)
    envs = AIRSceneVectorEnv(2, num_scenes=2)
    envs.reset(seed=0)
    action = envs.action_space.sample()
    with pytest.raises(ValueError, match=f"action 'z_where' {match}"):
        envs.step(action | {"z_where": tensor})


@pytest.mark.parametrize("value", [None, 3, "z", {}, torch.zeros(2, 3)])
def test_what_is_no_explanation_is_no_plan(value):
    with pytest.raises(ValueError, match="a plan is an Explanation of 3 objects for each image, got"):
        to_plans(value, SceneModel(SceneConfig()), 2)


def test_plans_are_read_for_each_image_one_or_several():
    model = SceneModel(SceneConfig())
    for plans in (2, 4, 6):
        z = to_plans(plan(model, plans), model, 2)
        assert z.z_pres.tolist() == [[1.0] * 3] * plans
    for plans in (0, 3):
        with pytest.raises(ValueError, match=r"z_where has shape \(., 3, 3\), wanted \(2, 3, 3\)"):
            to_plans(plan(model, plans), model, 2)
    with pytest.raises(ValueError, match=r"z_where has shape \(\), wanted \(2, 3, 3\)"):
        to_plans(plan(model, 2, z_where=torch.zeros(())), model, 2)


@in_turn("scene", [(scene,) for scene in FREE])
def test_every_option_of_a_world_takes_what_makes_sense_and_refuses_the_rest_in_words(scene):
    own = set(inspect.signature(make_world).parameters) - {"options", "scene", "data_dir", "model"}
    for name in {*own, *scene_options(scene)} - {"data_dir", "repetitions"}:
        for value in STRANGE:
            if name == "num_scenes" and value is HUGE:
                continue  # makes sense, where there is the memory
            with suppress(ValueError):
                make_world(scene, **{"num_scenes": 2, name: value})


@in_turn("config", [(config,) for config in CONFIGS])
def test_every_setting_of_a_model_takes_what_makes_sense_and_refuses_the_rest_in_words(config):
    for field in dataclasses.fields(config):
        for value in STRANGE:
            with suppress(ValueError):
                config(**{field.name: value})


def test_numpys_whole_numbers_are_settings_that_can_be_saved():
    n = np.int64(4)
    config = SceneConfig(image_size=n, num_steps=n, likelihood_anneal_steps=n, count_prior=CountPrior(anneal_steps=n))
    patch = PatchConfig(what_dim=n, patch_size=n, hidden=n)
    whole = [config.image_size, config.num_steps, config.likelihood_anneal_steps, config.count_prior.anneal_steps,
             patch.what_dim, patch.patch_size, patch.hidden,
             ObjectsConfig(samples=n).samples, SpriteConfig(size=n).size]  # fmt: skip
    assert json.loads(json.dumps(whole)) == [4] * len(whole)
    world = make_world("digits", num_scenes=n, scene_seed=n, image_size=np.int64(50), counts=np.array([0, 1]))
    assert len(world.scenes) == 4
    assert AIRSceneVectorEnv(np.int64(2), num_scenes=n).reset(seed=n)[0]["image"].shape[0] == 2


@pytest.mark.parametrize("changes", [{"num_steps": 10**7}, {"image_size": 10**6}])
def test_sizes_that_no_scene_has_are_refused_before_memory_is_taken(changes):
    with pytest.raises(ValueError, match=rf"{next(iter(changes))} must be a whole number from 1 to .,..., got"):
        SceneConfig(**changes)
