"""Learned patches of one channel or three that add up or hide each other, against a loop over objects and pixels."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import NUM_STEPS, SCENE, SIDE, WHAT, WHERE, assert_equal, float64, make_model, normal
from torch import Tensor, nn

from air_env.explanation import Explanation
from air_env.model import SceneModel
from air_env.renderers import PatchConfig
from air_env.testing import check_renderer

KINDS = [(channels, opaque) for channels in (1, 3) for opaque in (False, True)]


def model_of(channels: int, opaque: bool) -> SceneModel:
    return make_model(renderer=replace(SCENE.renderer, channels=channels, opaque=opaque))


def objects(batch: int = 3) -> Explanation:
    """Large objects, which overlap."""
    z_where = normal(batch, NUM_STEPS, WHERE) * 0.4 - torch.tensor([0.4, 0.0, 0.0])
    return Explanation.of_objects(torch.ones(batch, NUM_STEPS).double(), z_where, 3 * normal(batch, NUM_STEPS, WHAT))


def placed(picture: Tensor, z_where: Tensor) -> Tensor:
    """A picture ``[layer, 5, 5]`` in its window of an empty image, by `grid_sample`."""
    inverse, zero = (-z_where[0]).exp(), torch.zeros_like(z_where[0])
    affine = torch.stack([inverse, zero, -z_where[1] * inverse, zero, inverse, -z_where[2] * inverse]).view(1, 2, 3)
    grid = F.affine_grid(affine, [1, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(picture[None], grid, align_corners=False)[0]


def by_hand(model: SceneModel, behind: Tensor, z_where: Tensor, z_what: Tensor) -> Tensor:
    """The canvas of one scene: what each pixel gets from each object, seen through all that are nearer."""
    config = model.config.renderer
    canvas, through = torch.zeros_like(behind), torch.ones_like(behind[:1])
    for where, what in reversed(list(zip(z_where, z_what, strict=True))):
        layers = model.renderer.decoder(what).sigmoid().view(-1, 5, 5)
        if config.opaque:
            colour, opacity = layers[: config.channels], layers[config.channels]
            for c in range(config.channels):
                canvas[c] += through[0] * placed((opacity * colour[c])[None], where)[0]
            through = through * (1 - placed(opacity[None], where))
        else:
            canvas = canvas + placed(layers, where)
    return canvas + through * behind


@pytest.mark.parametrize(("channels", "opaque"), KINDS)
def test_canvases_are_those_of_the_first_objects_the_last_in_front(channels, opaque):
    model, z = model_of(channels, opaque), objects()
    behind = torch.rand(3, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    every, canvas = model.renderer.draw_all(behind, z), behind
    with torch.no_grad():
        for n in range(1, NUM_STEPS + 1):
            canvas = model.renderer.draw(canvas, z.first(n))
            expected = torch.stack([by_hand(model, behind[b], z.z_where[b, :n], z.z_what[b, :n]) for b in range(3)])
            whole = model.renderer.render(behind, z.first(n))
            for found in (canvas, every[:, n - 1], whole):
                assert_equal(found, expected, 1e-12)


def test_an_opaque_object_hides_what_is_behind_it_and_only_that():
    model = model_of(3, True)
    nn.init.constant_(model.renderer.decoder[-1].bias.view(4, 5, 5)[3], 60.0)
    large = torch.tensor([[2.0, 0.0, 0.0]]).double()
    behind, z_what = torch.rand(1, 3, SIDE, SIDE).double(), normal(1, WHAT)
    assert_equal(*(model.renderer.add(canvas, large, z_what) for canvas in (behind, 1 - behind)), 1e-12)
    outside = torch.tensor([[-1.0, 5.0, 0.0]]).double()
    assert_equal(model.renderer.add(behind, outside, z_what), behind)


@pytest.mark.parametrize(("channels", "opaque"), KINDS)
def test_renderers_keep_their_promises(channels, opaque):
    """Among them that gradients in ``z_where`` and ``z_what`` are differences."""
    config = PatchConfig(what_dim=3, patch_size=5, hidden=8, channels=channels, opaque=opaque)
    check_renderer(config.make(), SIDE)


@pytest.mark.parametrize("opaque", [False, True])
def test_gradients_of_the_decoder_are_differences(opaque):
    with float64():
        renderer = PatchConfig(what_dim=2, patch_size=3, hidden=4, channels=3, opaque=opaque).make()
    z_where, z_what = normal(2, 3) * 0.3 - 0.4, normal(2, 2)
    canvas = torch.rand(2, 3, 6, 6).double()
    renderer.forward = renderer.add
    names, weights = zip(*((name, part.detach()) for name, part in renderer.named_parameters()), strict=True)

    def draw(*values: Tensor) -> Tensor:
        return torch.func.functional_call(renderer, dict(zip(names, values, strict=True)), (canvas, z_where, z_what))

    assert torch.autograd.gradcheck(draw, [part.requires_grad_() for part in weights])


def test_boxes_of_opaque_patches_are_where_they_are_opaque():
    model = model_of(3, True)
    logits = torch.full((4, 5, 5), -9.0).double()
    logits[3, 1:4, 2:4] = 9.0  # rows 1 to 3, columns 2 and 3: opaque, and black
    nn.init.zeros_(model.renderer.decoder[-1].weight)
    model.renderer.decoder[-1].bias.data = logits.flatten()
    colours = logits.clone()
    colours[:3] = 9.0
    z = Explanation.of_objects(*(torch.zeros(1, 1, *size).double() for size in ((), (WHERE,), (WHAT,))))
    black = model.renderer.boxes(z)
    model.renderer.decoder[-1].bias.data = colours.flatten()
    pixels = torch.tensor([2.0, 1.0, 4.0, 4.0]).double()
    assert_equal(model.renderer.boxes(z)[0, 0], pixels * 2 / 5 - 1, 0.1)
    assert_equal(black[0, 0], model.renderer.boxes(z)[0, 0], 0.01)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"channels": 2}, "channels must be 1 .* or 3 .*, got 2"), ({"opaque": "yes"}, "opaque must be True or False")],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        PatchConfig(**settings)
