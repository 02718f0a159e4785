"""Boxes of what patches draw, and the attention windows beside them."""

import pytest
import torch
from tiny import NUM_STEPS, SIDE, WHAT, assert_equal, make_model, normal
from torch import Tensor

from air_env import PatchConfig, geometry
from air_env.explanation import Explanation
from air_env.pictured import strip


def box_of(patch: Tensor, z_where: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[float]:
    """The box of an object that looks like a patch, in image coordinates."""
    renderer = PatchConfig(patch_size=len(patch)).make()
    renderer.patch = lambda z_what: patch.expand(len(z_what), 1, -1, -1)
    where = torch.tensor(z_where, dtype=patch.dtype).expand(1, 1, 3)
    return renderer.boxes(Explanation.of_objects(where[..., 0] + 1, where, torch.zeros(1, 1, 50)))[0, 0].tolist()


def test_a_known_patch_has_its_known_box():
    patch = torch.zeros(10, 10)
    patch[3, 4:7] = 1
    patch[4, 5] = 0.5
    # Interpolation between black and a pixel, centre to centre, reaches 0.3 at 0.3: 0.2 pixels beyond its border.
    x0, y0, x1 = (0.2 * pixels - 1 for pixels in (3.8, 2.8, 7.2))
    # Between 0.5 and black it does at 0.6 of the way.
    y1 = 0.2 * (4.5 + 0.4) - 1
    assert box_of(patch) == pytest.approx([x0, y0, x1, y1], abs=1e-6)


def test_a_box_is_where_the_drawn_patch_is_bright():
    patch = (normal(7, 1, seed=1).square() @ normal(1, 7, seed=2).square()).double()
    z_where, side = (-1.0, 0.2, -0.3), 4000
    drawn = geometry.place(patch[None, None], torch.tensor([z_where], dtype=torch.float64), side)[0, 0]
    bright = drawn > 0.3 * patch.max()
    edges = [bright.any(axis).nonzero()[:, 0] for axis in (0, 1)]
    low, high = [float(edge[0]) for edge in edges], [float(edge[-1]) + 1 for edge in edges]
    # What is bright at the window's border is drawn half a pixel of the patch beyond it.
    borders = geometry.outlines(torch.tensor(z_where)).tolist()
    lower = [max(2 * edge / side - 1, border) for edge, border in zip(low, borders[:2], strict=True)]
    upper = [min(2 * edge / side - 1, border) for edge, border in zip(high, borders[2:], strict=True)]
    assert box_of(patch, z_where) == pytest.approx([*lower, *upper], abs=2e-3)


def test_brightness_does_not_move_a_box_and_the_window_bounds_it():
    patch = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) ** 4
    assert box_of(0.1 * patch) == pytest.approx(box_of(patch), abs=1e-6)
    window = (-1.0, 0.5, 0.1)
    everywhere = torch.ones(6, 6)
    assert box_of(everywhere, window) == pytest.approx(geometry.outlines(torch.tensor(window)).tolist())


def test_nothing_drawn_is_the_window_and_the_image_bounds_it():
    for patch in (torch.zeros(5, 5), torch.ones(5, 5)):
        assert box_of(patch, (-1.0, 0.9, 0.0)) == pytest.approx([0.9 - 0.36788, -0.36788, 1, 0.36788], abs=1e-4)
        assert box_of(patch, (-1.0, 3.0, 0.0))[::2] == [1, 1]


def test_boxes_are_within_windows_row_by_row():
    model = make_model()
    where, what = 0.5 * normal(4, NUM_STEPS, 3, seed=1), normal(4, NUM_STEPS, WHAT, seed=2)
    z = Explanation.of_objects(torch.ones(4, NUM_STEPS).double(), where, what)
    boxes, windows = model.outlines(z), model.windows(z)
    bounds = windows.clamp(-1, 1)
    assert (boxes[..., :2] >= bounds[..., :2] - 1e-9).all()
    assert (boxes[..., 2:] <= bounds[..., 2:] + 1e-9).all()
    assert not boxes.requires_grad
    alone = Explanation.of_objects(*(part[1:2] for part in (z.z_pres, where, what)))
    assert_equal(model.outlines(alone), boxes[1:2], 1e-12)


def test_an_explanation_has_boxes_and_windows_and_pictures_show_windows():
    present = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0]]) > 0
    where, what = 0.3 * normal(3, NUM_STEPS, 3, seed=1), normal(3, NUM_STEPS, WHAT, seed=2)
    with torch.no_grad():
        z = make_model().drawn(Explanation.of_objects(present.double(), where, what))
    assert_equal(z.windows[present], geometry.outlines(z.z_where)[present])
    assert_equal(z.windows.isnan().any(-1), ~present)
    assert not torch.equal(z.outlines[present], z.windows[present])
    marked = strip(z.reconstruction, geometry.to_pixels(z.windows, SIDE))
    assert (z.picture() == marked).all()
