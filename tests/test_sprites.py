"""Sprites: the fixed renderer against closed forms, and scenes that are drawn exactly by their model."""

import math

import pytest
import torch
from tiny import assert_equal, float64, in_turn, normal

from air_env import SceneModel, geometry, make_world
from air_env.explanation import Explanation
from air_env.renderers.sprites import KINDS, SpriteConfig, sprite_mask
from air_env.scenes import make_scene

AREAS = {"square": 1.0, "disc": math.pi / 4, "triangle": 0.5, "diamond": 0.5}


@in_turn("kind", [(each,) for each in KINDS])
def test_a_shape_covers_its_area_and_touches_every_border(kind):
    mask = sprite_mask(kind, 20)
    assert mask.mean() == pytest.approx(AREAS[kind.split()[1]], abs=0.01)
    assert all(border.max() > 0 for border in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def test_an_opaque_sprite_hides_what_is_behind_it():
    with float64():
        renderer = SpriteConfig(("red square", "blue disc")).make()
    everywhere = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    behind = torch.rand(1, 3, 9, 9, dtype=torch.float64)
    drawn = renderer.add(behind, everywhere, torch.tensor([0]))
    assert_equal(drawn, torch.tensor([0.95, 0.25, 0.2]).double().view(1, 3, 1, 1).expand_as(behind), 1e-7)
    outside = torch.tensor([[-1.0, 5.0, 0.0]], dtype=torch.float64)
    assert_equal(renderer.add(behind, outside, torch.tensor([1])), behind)


def test_all_objects_at_once_are_one_after_the_other():
    with float64():
        renderer = SpriteConfig().make()
    z_where, z_what = normal(4, 3, 3) * 0.4 - 0.5, torch.arange(12).view(4, 3) % 3
    canvas = torch.zeros(4, 3, 12, 12, dtype=torch.float64)
    every = renderer.draw_all(canvas, Explanation.of_objects(torch.ones(4, 3), z_where, z_what))
    for i in range(3):
        canvas = renderer.add(canvas, z_where[:, i], z_what[:, i])
        assert_equal(every[:, i], canvas)


def test_windows_have_gradients():
    with float64():
        renderer = SpriteConfig(size=5).make()
    z_where = (normal(2, 3) * 0.3 - 0.4).requires_grad_()
    canvas = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: renderer.add(canvas, z, torch.tensor([1, 2])), z_where)


@pytest.mark.parametrize("overlap", ["none", "light", "any"])
def test_the_truth_draws_the_image(overlap):
    scene = make_scene("sprites", counts=(0, 1, 3), overlap=overlap, object_size=(9, 13))
    scenes = scene.dataset("test", 50)
    z_pres = (scenes.labels >= 0).float()
    z_where = geometry.from_boxes(scenes.boxes, scene.image_size).nan_to_num()
    canvas = SceneModel(scene.model).render(Explanation.of_objects(z_pres, z_where, scenes.labels.clamp_min(0)))
    # Bytes are rounded, and so are the glyphs' colours.
    assert (canvas - scenes.images / 255).abs().max() < 0.02


def test_the_world_of_sprites_knows_its_kinds():
    world = make_world("sprites", num_scenes=5, num_steps=2, scene_options={"kinds": ["red disc", "blue square"]})
    assert world.model.config.renderer == SpriteConfig(("red disc", "blue square"))
    assert world.model.config.num_steps == 2
    assert world.scenes.labels.max() <= 1


@in_turn(
    "kinds message",
    [
        (("red sqare",), "'red sqare'.* unknown; choose one or more from red square"),
        (("red disc", "red disc"), "differ"),
        ((), "choose one or more"),
    ],
)
def test_unknown_kinds_are_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        make_scene("sprites", kinds=kinds)
