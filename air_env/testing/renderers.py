"""The promises of a renderer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from air_env.actions import LATENT_BOUND
from air_env.priors import CategoricalPrior, GaussianPrior
from air_env.renderers import Renderer
from air_env.testing.expectations import expect, in_precision, same

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def check_renderer(renderer: Renderer, image_size: int, *, seed: int = 0) -> None:
    """Checks a renderer: shapes, both precisions, independence of rows, bounds and, if it has any, gradients.

    Args:
        renderer: The renderer, a `torch.nn.Module`; it is copied, not changed.
        image_size: Side of the canvases in pixels.
        seed: Of the windows and the objects in them.

    Raises:
        AssertionError: The renderer breaks a promise of `Renderer`.

    Example:
        >>> from air_env import SpriteConfig
        >>> check_renderer(SpriteConfig().make(), image_size=40)
    """
    expect(isinstance(renderer, nn.Module), f"wanted a torch.nn.Module, got a {type(renderer).__name__}")
    assert isinstance(renderer, nn.Module)
    expect(renderer.channels in (1, 3), f"channels must be 1 (grey) or 3 (RGB), got {renderer.channels!r}")
    differentiable = getattr(renderer, "differentiable", None)
    expect(isinstance(differentiable, bool), f"differentiable must be True or False, got {differentiable!r}")
    generator = torch.Generator().manual_seed(seed)
    _check_prior(renderer.prior_what, generator)
    for dtype in _TOLERANCE:
        try:
            _check_drawing(in_precision(renderer, dtype), image_size, dtype, generator)
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise AssertionError(f"drawing in {dtype} failed: {error}") from error
    if differentiable:
        _check_gradients(in_precision(renderer, torch.float64).requires_grad_(False), image_size, generator)


def _check_prior(prior: Any, generator: torch.Generator) -> None:
    kinds = (GaussianPrior, CategoricalPrior)
    expect(
        isinstance(prior, kinds), f"prior_what must be a GaussianPrior or CategoricalPrior, got {type(prior).__name__}"
    )
    z_what = prior.sample(5, 2, generator=generator)
    found, wanted = (tuple(z_what.shape), z_what.dtype), ((5, 2, *prior.event_shape), prior.dtype)
    expect(found == wanted, f"prior_what.sample must give {wanted[1]} of shape {wanted[0]}, got {found}")
    log_p = prior.log_prob(z_what)
    expect(log_p.shape == (5, 2) and bool(log_p.isfinite().all()), "prior_what.log_prob must be finite, one a value")


def _check_drawing(renderer: Any, image_size: int, dtype: torch.dtype, generator: torch.Generator) -> None:
    tolerance, batch, num_steps = _TOLERANCE[dtype], 4, 3
    shape = (batch, renderer.channels, image_size, image_size)
    canvas = torch.rand(shape, generator=generator, dtype=dtype)
    z_where, z_what = _objects(renderer, (batch, num_steps), dtype, generator)
    copies = [part.clone() for part in (canvas, z_where, z_what)]
    one = renderer.draw(canvas, z_where[:, 0], z_what[:, 0])
    _expect_result("draw", one, shape, dtype)
    every = renderer.draw_all(canvas, z_where, z_what)
    _expect_result("draw_all", every, (batch, num_steps, *shape[1:]), dtype)
    inputs = zip(("canvas", "z_where", "z_what"), copies, (canvas, z_where, z_what), strict=True)
    changed = [name for name, before, after in inputs if not same(before, after)]
    expect(not changed, f"drawing changed {', '.join(changed)} in place; make a new canvas")
    expect(
        same(one, renderer.draw(canvas, z_where[:, 0], z_what[:, 0])), "draw gave two results for the same arguments"
    )
    alone = torch.cat(
        [renderer.draw(*(part[i : i + 1] for part in (canvas, z_where[:, 0], z_what[:, 0]))) for i in range(batch)]
    )
    expect(same(one, alone, tolerance), "a scene was drawn otherwise beside others than alone; rows must not mix")
    steps, drawn = [], canvas
    for i in range(num_steps):
        drawn = renderer.draw(drawn, z_where[:, i], z_what[:, i])
        steps.append(drawn)
    expect(same(every, torch.stack(steps, 1), tolerance), "draw_all is not what as many calls of draw give")
    expect(not same(one, canvas), "objects within the image change nothing")

    # A window of half the image's side, twice as far from the middle as the image's border.
    outside = torch.tensor([[-0.7, x, y] for x, y in ((2, 0), (-2, 0), (0, 2), (0, -2))], dtype=dtype)
    drawn = renderer.draw(canvas, outside, z_what[:, 0])
    expect(same(drawn, canvas, tolerance), "an object whose window is outside the image changed the canvas")

    signs = torch.cartesian_prod(*[torch.tensor([-LATENT_BOUND, 0.0, LATENT_BOUND], dtype=dtype)] * 3)
    what = z_what[0, :1].expand(len(signs), *z_what.shape[2:])
    extremes = [what] if z_what.dtype == torch.long else [what * 0 + LATENT_BOUND, what * 0 - LATENT_BOUND, what]
    empty = torch.zeros(len(signs), *shape[1:], dtype=dtype)
    for what in extremes:
        drawn = renderer.draw(empty, signs, what)
        low, high = drawn.min().item(), drawn.max().item()
        expect(
            -1e-5 <= low <= high <= 1 + 1e-5,  # also false for NaN
            f"an object may add at most 1 to a pixel, for latents up to {LATENT_BOUND:g}; got {low:g} to {high:g}",
        )


def _expect_result(name: str, result: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = tuple(result.shape), result.dtype
    expect(found == (shape, dtype), f"{name} must give {dtype} of shape {shape}, got {found[1]} of {found[0]}")


def _check_gradients(renderer: Any, image_size: int, generator: torch.Generator) -> None:
    """Compares derivatives with differences; at several points, of which one may be a kink of the interpolation."""
    failures: dict[str, list[str]] = {}
    for _ in range(3):
        canvas = torch.rand(2, renderer.channels, image_size, image_size, generator=generator, dtype=torch.float64)
        arguments = [canvas, *_objects(renderer, (2,), torch.float64, generator)]
        weights = torch.randn(canvas.shape, generator=generator, dtype=torch.float64)
        for position, name in ((1, "z_where"), (2, "z_what")):
            if not arguments[position].is_floating_point():
                continue
            draw = _along(renderer, arguments, position, weights)
            point = arguments[position].requires_grad_()
            if not draw(point).requires_grad:
                raise AssertionError(f"drawing has no gradient with respect to {name}; or say differentiable = False")
            try:
                torch.autograd.gradcheck(draw, (point,), atol=1e-5, rtol=1e-3)
            except RuntimeError as error:
                failures.setdefault(name, []).append(str(error).splitlines()[0])
            arguments[position] = point.detach()
    for name, messages in failures.items():
        expect(len(messages) < 3, f"the gradient with respect to {name} is not the derivative: {messages[0]}")


def _along(renderer: Any, arguments: list[Tensor], position: int, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """A number for each row of what is drawn, as a function of one argument."""

    def draw(value: Tensor) -> Tensor:
        drawn = renderer.draw(*arguments[:position], value, *arguments[position + 1 :])
        return (drawn * weights).sum((1, 2, 3))

    return draw


def _objects(
    renderer: Any, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Windows within the image, and what is in them."""
    low, high = (torch.tensor(edge, dtype=dtype) for edge in ((-1.5, -0.6, -0.6), (-0.7, 0.6, 0.6)))
    z_where = low + (high - low) * torch.rand(*shape, 3, generator=generator, dtype=dtype)
    return z_where, renderer.prior_what.sample(*shape, generator=generator)
