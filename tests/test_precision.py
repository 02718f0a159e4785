"""Autocast: networks compute in half precision, the scene model in its own."""

from dataclasses import replace

import pytest
import torch
from tiny import AGENT, RECIPE, SCENE, WHERE, assert_equal, generator, in_turn, tiny_scene
from torch import Tensor

from air_agents.estimators import ESTIMATORS
from air_agents.inference.cores import CORES
from air_agents.training.recipes import RECIPES, Recipe
from air_agents.training.trainer import Trainer
from air_env import geometry
from air_env.model import SceneConfig, SceneModel
from air_env.precision import Head, exact
from air_env.renderers import RENDERERS
from air_env.renderers.solids import SolidsConfig
from air_env.scenes import make_scene

SOLIDS = {"renderer": "raycast", "samples": 1}
FLAT = [kind for kind in RENDERERS if not issubclass(RENDERERS[kind], SolidsConfig)]


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def small_recipe(name: str) -> Recipe:
    recipe = replace(RECIPES.find(name), batch_size=4, compile=False)
    if recipe.scene.endswith("3d"):
        recipe = replace(recipe, model=replace(recipe.model, renderer=replace(recipe.model.renderer, **SOLIDS)))
        recipe = replace(recipe, scene_options={**recipe.scene_options, "renderer": "raycast"})
    return recipe


def test_a_function_that_is_exact_does_not_know_of_autocast():
    image, where = torch.rand(4, 1, 9, 9, generator=generator()), torch.randn(4, WHERE, generator=generator(1)) / 3
    windows, placed = geometry.attend(image, where, 5), geometry.place(image, where, 20)
    seen: list[tuple[torch.dtype, bool]] = []
    look = exact(lambda value: (seen.append((value.dtype, torch.is_autocast_enabled("cpu"))), value)[1])
    with half():
        assert (image @ image).dtype == torch.bfloat16
        assert_equal(geometry.attend(image, where, 5), windows)
        assert_equal(geometry.place(image, where, 20), placed)
        for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.long):
            look(image.to(dtype))
        assert Head(9, 2)(image).dtype == torch.float32
    assert seen == [(torch.float32, False)] * 3 + [(torch.float64, False), (torch.long, False)]


@pytest.mark.parametrize("kind", sorted(RENDERERS))
def test_a_scene_model_says_the_same_under_autocast(kind):
    solid = kind not in FLAT
    config = SceneConfig(16, 1 if kind == "objects3d" else 2, renderer=RENDERERS[kind](**SOLIDS if solid else {}))
    model = SceneModel(config)
    images, z = model.sample(4, generator())

    where = z.z_where.clone().requires_grad_()
    whole = replace(z, z_pres=torch.ones_like(z.z_pres), z_where=where)

    def everything() -> list[Tensor]:
        half_there = model.soften(images, whole)(torch.full_like(z.z_pres, 0.5))
        return [model.log_joint(images, z), model.render(z), half_there, model.unroll(images, whole).total]

    def gradient(rewards: Tensor) -> Tensor:
        return torch.autograd.grad(rewards.sum(), where)[0]

    expected = everything()
    with half():
        found = everything()
    assert_equal([*found, gradient(found[-1])], [*expected, gradient(expected[-1])])


@in_turn("name", [("digits",), ("sprites",), ("objects3d",), ("tabletop3d",)])
def test_every_recipe_trains_and_explains_under_autocast_as_without(name):
    recipe = small_recipe(name)
    scenes = recipe.make_scene(None).dataset("train", 8, 0)
    trainers = [Trainer(recipe, scenes) for _ in range(2)]
    before = trainers[0].step()
    with half():
        after = trainers[1].step()
        z = trainers[1].agent.explain(scenes.images)
    assert after.dtype == z.z_where.dtype == z.reconstruction.dtype == torch.float32
    assert after.item() == pytest.approx(before.item(), rel=0.05)
    assert all(weight.isfinite().all() for weight in trainers[1].network.parameters())


@in_turn("changes", [({"estimator": name},) for name in ESTIMATORS]
         + [({"agent": replace(AGENT, core=core)},) for core in CORES])  # fmt: skip
def test_every_estimator_and_core_trains_under_autocast(changes):
    recipe = replace(RECIPE, batch_size=2, **changes)
    trainer = Trainer(recipe, tiny_scene().dataset("train", 4, 0))
    with half():
        assert trainer.step().isfinite()


@pytest.mark.parametrize("core", CORES)
def test_cores_explain_images_of_two_pixels_and_refuse_smaller_ones_in_words(core):
    agent = replace(AGENT, core=core)
    assert agent.make(replace(SCENE, image_size=2)).explain(torch.rand(2, 2, 2)).z_where.shape == (2, 3, WHERE)
    if CORES[core].reads_latents:
        with pytest.raises(ValueError, match="this core wants images of at least 2 pixels a side, got 1; take larger"):
            agent.make(replace(SCENE, image_size=1))
    else:
        assert len(agent.make(replace(SCENE, image_size=1)).explain(torch.rand(2, 1, 1)).z_pres) == 2


@pytest.mark.parametrize("name", ["digits", "sprites", "objects3d", "tabletop3d"])
def test_scenes_of_one_pixel_are_scenes(name):
    options = {} if name.endswith("3d") else {"object_size": (1, 1)}
    scene = make_scene(name, image_size=1, counts=(1,), **options)
    assert scene.dataset("test", 2).images.shape[2:] == (1, 1)
