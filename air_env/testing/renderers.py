"""The promises of a renderer."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import cast

import torch
from torch import Tensor, nn

from air_env.explanation import Explanation
from air_env.priors import Prior
from air_env.reading import LATENT_BOUND
from air_env.renderers import Renderer
from air_env.testing.expectations import expect, in_precision, same

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
_PRIORS = ("prior_where", "prior_what", "prior_scene")
_MEMBERS = ("channels", "differentiable", "kinds", "max_steps", *_PRIORS, "draw", "draw_all", "render", "boxes")


def check_renderer(renderer: Renderer, image_size: int, *, seed: int = 0) -> None:
    """Checks a renderer: members, shapes, both precisions, independence of rows, bounds and, if any, gradients.

    Args:
        renderer: The renderer, a `torch.nn.Module`; it is copied, not changed.
        image_size: Side of the canvases in pixels.
        seed: Seed of the objects.

    Raises:
        AssertionError: The renderer breaks a promise of `Renderer`.

    Example:
        >>> from air_env import SpriteConfig
        >>> check_renderer(SpriteConfig().make(), image_size=40)
    """
    expect(isinstance(renderer, nn.Module), f"wanted a torch.nn.Module, got a {type(renderer).__name__}")
    missing = [name for name in _MEMBERS if name not in dir(renderer)]
    expect(
        not missing, f"{', '.join(missing)} is missing; a renderer has {', '.join(_MEMBERS)} (subclass WindowRenderer)"
    )
    expect(renderer.channels in (1, 3), f"channels must be 1 (grey) or 3 (RGB), got {renderer.channels!r}")
    differentiable = renderer.differentiable
    expect(isinstance(differentiable, bool), f"differentiable must be True or False, got {differentiable!r}")
    expect(renderer.max_steps >= 1, f"max_steps must be at least 1, got {renderer.max_steps!r}")
    generator = torch.Generator().manual_seed(seed)
    for name in _PRIORS:
        _check_prior(name, getattr(renderer, name), generator)
    prior_what = renderer.prior_what
    expect(
        len(renderer.kinds) == (prior_what.size if prior_what.categorical else 0),
        f"kinds must name each category, and nothing where z_what is a code; got {renderer.kinds!r}",
    )
    for dtype in _TOLERANCE:
        try:
            _Check(in_precision(renderer, dtype), image_size, dtype, generator).drawing()
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise AssertionError(f"drawing in {dtype} failed: {error}") from error
    if differentiable:
        copy = cast(nn.Module, in_precision(renderer, torch.float64)).requires_grad_(False)
        _Check(cast(Renderer, copy), image_size, torch.float64, generator).gradients()


def _check_prior(name: str, prior: Prior, generator: torch.Generator) -> None:
    expect(isinstance(prior, Prior), f"{name} must be a Prior, such as a GaussianPrior; got {type(prior).__name__}")
    value = prior.sample(5, 2, generator=generator)
    found, wanted = (tuple(value.shape), value.dtype), ((5, 2, *prior.event_shape), prior.dtype)
    expect(found == wanted, f"{name}.sample must give {wanted[1]} of shape {wanted[0]}, got {found}")
    log_p = prior.log_prob(value)
    expect(log_p.shape == (5, 2) and bool(log_p.isfinite().all()), f"{name}.log_prob must be finite, one a value")


class _Check:
    """What a renderer draws in one precision."""

    def __init__(self, renderer: Renderer, image_size: int, dtype: torch.dtype, generator: torch.Generator) -> None:
        self.renderer, self.dtype, self.generator = renderer, dtype, generator
        self.batch, self.num_steps = 4, min(3, renderer.max_steps)
        self.shape = (self.batch, renderer.channels, image_size, image_size)

    def drawing(self) -> None:
        """Shapes, arguments that stay as they are, rows that do not mix, one way to draw, and bounds."""
        renderer, tolerance = self.renderer, _TOLERANCE[self.dtype]
        black, z = torch.zeros(self.shape, dtype=self.dtype), self.objects()
        canvases = [renderer.render(black, z.first(0))]
        before = [canvases[0].clone(), *(part.clone() for part in vars(z).values())]
        for n in range(self.num_steps):
            canvases.append(renderer.draw(canvases[-1], z.first(n + 1)))
            self.expect_result("draw", canvases[-1], self.shape)
        one, every, whole = canvases[1], renderer.draw_all(black, z), renderer.render(black, z)
        self.expect_result("draw_all", every, (self.batch, self.num_steps, *self.shape[1:]))
        self.expect_result("render", whole, self.shape)
        self.expect_result("boxes", renderer.boxes(z), (self.batch, self.num_steps, 4))
        inputs = zip(("canvas", *(f.name for f in fields(z))), before, (canvases[0], *vars(z).values()), strict=True)
        changed = [name for name, old, new in inputs if not same(old, new)]
        expect(not changed, f"drawing changed {', '.join(changed)} in place; make a new canvas")
        again = renderer.draw(canvases[0], z.first(1))
        expect(same(one, again), "draw gave two results for the same arguments")
        alone = torch.cat(
            [renderer.draw(canvases[0][i : i + 1], _rows(z.first(1), slice(i, i + 1))) for i in range(self.batch)]
        )
        expect(same(one, alone, tolerance), "a scene was drawn otherwise beside others than alone; rows must not mix")
        steps = torch.stack(canvases[1:], 1)
        expect(same(every, steps, tolerance), "draw_all is not what as many calls of draw give")
        expect(same(whole, canvases[-1], tolerance), "render is not what as many calls of draw give")
        absent = replace(z.first(1), z_pres=torch.zeros_like(z.z_pres[:, :1]))
        for name, result in (("render", renderer.render(black, absent)), ("draw", renderer.draw(canvases[0], absent))):
            expect(same(result, canvases[0], tolerance), f"{name} draws an object whose z_pres is 0")
        expect(not same(one, canvases[0]), "objects that are probable a priori change nothing")
        self.outside()
        self.bounds()

    def outside(self) -> None:
        """That an object whose box is outside the image does not change the canvas."""
        prior, size = self.renderer.prior_where, self.renderer.prior_where.size
        far = prior.mean + 4 * prior.sd * torch.cat([torch.eye(size), -torch.eye(size)]).to(self.dtype)
        z = replace(_rows(self.objects().first(1), torch.zeros(2 * size, dtype=torch.long)), z_where=far[:, None])
        low, high = self.renderer.boxes(z)[:, 0].split(2, -1)
        # Boxes may be cut at the border.
        outside = ((low >= 1) | (high <= -1)).any(-1)
        canvas = self.renderer.render(torch.zeros(2 * size, *self.shape[1:], dtype=self.dtype), z.first(0))
        drawn = self.renderer.draw(canvas, z)
        expect(
            same(drawn[outside], canvas[outside], _TOLERANCE[self.dtype]),
            "an object whose box is outside the image changed the canvas",
        )

    def bounds(self) -> None:
        """What extreme latents draw."""
        signs = torch.tensor([-LATENT_BOUND, 0.0, LATENT_BOUND], dtype=self.dtype)
        z_where = torch.cartesian_prod(*[signs] * self.renderer.prior_where.size)[:, None]
        z = _rows(self.objects().first(1), torch.zeros(len(z_where), dtype=torch.long))
        some = z.z_what
        extremes = [some * 0 + LATENT_BOUND, some * 0 - LATENT_BOUND, some] if some.is_floating_point() else [some]
        black = torch.zeros(len(z_where), *self.shape[1:], dtype=self.dtype)
        for z_what in extremes:
            drawn = self.renderer.draw(black, replace(z, z_where=z_where, z_what=z_what))
            low, high = drawn.min().item(), drawn.max().item()
            expect(
                -1e-5 <= low <= high <= 1 + 1e-5,  # also false for NaN
                f"an object may add at most 1 to a pixel, for latents up to {LATENT_BOUND:g}; got {low:g} to {high:g}",
            )

    def gradients(self) -> None:
        """Compares derivatives with differences, at several points, of which one may be a kink of interpolation."""
        failures: dict[str, list[str]] = {}
        for _ in range(3):
            canvas = torch.rand(2, *self.shape[1:], generator=self.generator, dtype=self.dtype)
            z = _rows(self.objects().first(1), slice(2))
            weights = torch.randn(canvas.shape, generator=self.generator, dtype=self.dtype)
            for name in ("z_where", "z_what"):
                point = getattr(z, name)
                if not point.is_floating_point():
                    continue
                draw = self.along(canvas, z, name, weights)
                point.requires_grad_()
                if not draw(point).requires_grad:
                    raise AssertionError(
                        f"drawing has no gradient with respect to {name}; or say differentiable = False"
                    )
                try:
                    torch.autograd.gradcheck(draw, (point,), atol=1e-5, rtol=1e-3)
                except RuntimeError as error:
                    failures.setdefault(name, []).append(str(error).splitlines()[0])
                point.requires_grad_(False)
        for name, messages in failures.items():
            expect(len(messages) < 3, f"the gradient with respect to {name} is not the derivative: {messages[0]}")

    def along(self, canvas: Tensor, z: Explanation, name: str, weights: Tensor) -> Callable[[Tensor], Tensor]:
        """A number for each row of what is drawn, as a function of one latent."""
        return lambda value: (self.renderer.draw(canvas, replace(z, **{name: value})) * weights).sum((1, 2, 3))

    def objects(self) -> Explanation:
        """Objects near the middle of what is probable a priori."""
        shape, renderer = (self.batch, self.num_steps), self.renderer
        where = renderer.prior_where.sample(*shape, generator=self.generator)
        what = renderer.prior_what.sample(*shape, generator=self.generator)
        scene = renderer.prior_scene.sample(self.batch, generator=self.generator)
        middle = renderer.prior_where.decode(torch.zeros_like(where))
        return Explanation(torch.ones(shape, dtype=self.dtype), (where + middle) / 2, what, scene)

    def expect_result(self, name: str, result: Tensor, shape: tuple[int, ...]) -> None:
        """That a result has a shape and this precision."""
        found = tuple(result.shape), result.dtype
        expect(
            found == (shape, self.dtype),
            f"{name} must give {self.dtype} of shape {shape}, got {found[1]} of {found[0]}",
        )


def _rows(z: Explanation, rows: slice | Tensor) -> Explanation:
    return Explanation(z.z_pres[rows], z.z_where[rows], z.z_what[rows], z.z_scene[rows])
