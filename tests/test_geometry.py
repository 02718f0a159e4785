"""Windows: attend and place against `grid_sample`, boxes and affine maps against each other."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny import assert_equal, generator, in_turn, normal
from torch import Tensor

from air_env import geometry

SIDE, PATCH = 12, 5


def random_windows(num: int, seed: int = 0) -> Tensor:
    """Windows from a fifth to twice the image, some of them partly outside."""
    uniform = torch.rand(num, 3, generator=generator(seed), dtype=torch.float64)
    return uniform * torch.tensor([2.3, 2.4, 2.4]) - torch.tensor([1.6, 1.2, 1.2])


def sampled(pixels: Tensor, affine: Tensor, size: int) -> Tensor:
    """`grid_sample` with zeros outside."""
    grid = F.affine_grid(affine, [len(pixels), pixels.shape[1], size, size], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def inverse(affine: Tensor) -> Tensor:
    """The inverse affine maps."""
    square = torch.cat([affine, torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(affine), 1, 3)], 1)
    return square.inverse()[:, :2]


def window(x0: float, y0: float, side: float) -> Tensor:
    """The window of a square with this upper left corner, in pixels."""
    x, y = ((2 * corner + side) / SIDE - 1 for corner in (x0, y0))
    return torch.tensor([[math.log(side / SIDE), x, y]], dtype=torch.float64)


latents = st.tuples(st.floats(-3, 2), st.floats(-2, 2), st.floats(-2, 2)).map(
    lambda z: torch.tensor([z], dtype=torch.float64)
)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, PATCH, 20])
def test_attend_equals_grid_sample(size, channels):
    z_where = random_windows(50)
    image = normal(50, channels, SIDE, SIDE)
    expected = sampled(image, geometry.to_affine(z_where), size)
    assert (expected != 0).double().mean() > 0.5
    assert_equal(geometry.attend(image, z_where, size), expected, 1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [2, PATCH, 20])
def test_place_equals_grid_sample_through_the_inverse_window(size, channels):
    z_where = random_windows(50)
    patch = normal(50, channels, size, size)
    expected = sampled(patch, inverse(geometry.to_affine(z_where)), SIDE)
    assert_equal(geometry.place(patch, z_where, SIDE), expected, 1e-12)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.25, -0.5), (-0.75, 0.625)])
@pytest.mark.parametrize("side", [8, 16])
def test_gradients_on_pixel_centres_are_those_of_grid_sample(side, centre):
    """Every sample of these windows falls on the centre of a pixel, where interpolation has a kink."""
    image, glimpse = normal(1, 2, 16, 16), normal(1, 2, side, side, seed=1)

    def derivative(function, scale: float) -> Tensor:
        z_where = torch.tensor([[math.log(scale), *centre]], dtype=torch.float64, requires_grad=True)
        function(z_where).sum().backward()
        assert z_where.grad is not None
        assert (z_where.grad.abs() > 0.1).all()
        return z_where.grad

    attended = derivative(lambda z: glimpse * geometry.attend(image, z, side), side / 16)
    assert_equal(attended, derivative(lambda z: glimpse * sampled(image, geometry.to_affine(z), side), side / 16), 1e-9)
    # The inverse of a scale other than 1 is rounded, and then samples fall beside the centres.
    placed = derivative(lambda z: image * geometry.place(image, z, 16), 1.0)
    assert_equal(placed, derivative(lambda z: image * sampled(image, inverse(geometry.to_affine(z)), 16), 1.0), 1e-9)


@given(st.data())
def test_attend_is_the_inverse_of_place_on_windows_of_whole_pixels(data):
    side = data.draw(st.integers(1, SIDE))
    x0, y0 = (data.draw(st.integers(0, SIDE - side)) for _ in range(2))
    patch, z_where = normal(1, 1, side, side, seed=side), window(x0, y0, side)
    image = geometry.place(patch, z_where, SIDE)
    expected = F.pad(patch, (x0, SIDE - side - x0, y0, SIDE - side - y0))
    assert_equal(image, expected, 1e-12)
    assert_equal(geometry.attend(image, z_where, side), patch, 1e-12)


@given(st.floats(0.2, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_a_linear_patch_survives_being_placed_and_attended_anywhere_inside_the_image(scale, x, y):
    room = 1 - scale
    z_where = torch.tensor([[math.log(scale), room * x, room * y]], dtype=torch.float64)
    # Bilinear interpolation is exact on linear functions, but for the border, where the patch ends.
    ramp = torch.linspace(-1, 1, 24, dtype=torch.float64)
    patch = (ramp[:, None] + 2 * ramp)[None, None]
    glimpse = geometry.attend(geometry.place(patch, z_where, 480), z_where, 24)
    assert_equal(glimpse[..., 1:-1, 1:-1], patch[..., 1:-1, 1:-1], 1e-9)


def test_x_points_right_and_y_down():
    image = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    image[..., : SIDE // 2, SIDE // 2 :] = 1
    upper_right = torch.tensor([[math.log(0.5), 0.5, -0.5]], dtype=torch.float64)
    assert_equal(geometry.attend(image, upper_right, 4), torch.ones(1, 1, 4, 4, dtype=torch.float64), 1e-12)
    assert_equal(geometry.place(torch.ones(1, 1, 6, 6).double(), upper_right, SIDE), image, 1e-12)


@given(latents)
def test_affine_matrices_round_trip(z_where):
    assert_equal(geometry.from_affine(geometry.to_affine(z_where)), z_where, 1e-12)


@given(latents, st.integers(1, 100))
def test_boxes_round_trip(z_where, image_size):
    boxes = geometry.boxes(z_where, image_size)
    assert_equal(geometry.from_boxes(boxes, image_size), z_where, 1e-9)


@given(latents)
def test_boxes_are_where_the_affine_map_takes_the_window(z_where):
    affine = geometry.to_affine(z_where)[0]
    corners = affine @ torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert_equal(geometry.boxes(z_where, SIDE)[0], ((corners.T.flatten() + 1) / 2 * SIDE), 1e-9)


@in_turn(
    "z_where box",
    [
        ((0.0, 0.0, 0.0), (0, 0, 12, 12)),
        ((math.log(0.5), -0.5, 0.5), (0, 6, 6, 12)),
        ((math.log(1 / 3), 0.5, 0.0), (7, 4, 11, 8)),
        ((math.log(0.5), 1.0, -1.0), (9, -3, 15, 3)),
    ],
)
def test_boxes_of_known_windows(z_where, box):
    boxes = geometry.boxes(torch.tensor(z_where, dtype=torch.float64), SIDE)
    assert_equal(boxes, torch.tensor(box, dtype=torch.float64), 1e-12)


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0.1, 6), st.floats(0.1, 6))
def test_the_window_of_a_box_is_the_smallest_square_around_it(x0, y0, width, height):
    box = torch.tensor([x0, y0, x0 + width, y0 + height], dtype=torch.float64)
    square = geometry.boxes(geometry.from_boxes(box, SIDE), SIDE)
    assert_equal((square[2:] - square[:2]), torch.full((2,), max(width, height), dtype=torch.float64), 1e-9)
    assert_equal(square[2:] + square[:2], box[2:] + box[:2], 1e-9)


@pytest.mark.parametrize(("transform", "size"), [(geometry.attend, PATCH), (geometry.place, SIDE)])
def test_gradients_agree_with_finite_differences(transform, size):
    pixels = normal(2, 1, 6, 6).requires_grad_()
    z_where = torch.tensor([[-0.7, 0.13, -0.21], [-0.2, -0.37, 0.41]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: transform(*inputs, size), (pixels, z_where))
    moved = torch.autograd.grad(transform(pixels, z_where, size).square().sum(), z_where)[0]
    assert (moved != 0).all()
