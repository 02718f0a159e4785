"""The gate that every estimator passes: `check_estimator`, also for one's own.

    from .testing import check_estimator

    check_estimator(MyEstimator)

The reference is the objective with the count summed out, on a small problem in float64 whose parameters reach logits
and scores as those of AIR do. An estimator that draws counts or presences is enumerated; one that draws uniform numbers
is sampled, and its mean gradient tested against its standard error.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import accumulate, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from air_env.testing.expectations import expect

from .base import Estimator
from .enumeration import NotEnumerable, expected_loss, objective, outcomes, output_gradient, scripted
from .problem import StopProblem

NUM_STEPS, CONTEXT = 3, 4
_LATENT, _PIXELS = 3, 4
_NUM_SAMPLES, _MAX_Z = 40_000, 5.0
_TOLERANCE = 1e-6

MakeEstimator = Callable[[int], Estimator]
"""An estimator's class, or anything that makes one from the number of context features."""


def check_estimator(make: MakeEstimator) -> None:
    """Puts an estimator through all checks.

    Args:
        make: Its class; or a function from the number of context features to an estimator.

    Raises:
        AssertionError: It does not keep what it promises; the message names it and says what was found.
    """
    for check in CHECKS:
        try:
            check(make)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            name = getattr(make, "__name__", repr(make))
            raise AssertionError(f"{name} failed: {type(error).__name__}: {error}") from error


def check_declarations(make: MakeEstimator) -> None:
    """It says what it needs and whether it is unbiased, and returns a finite loss for every image."""
    estimator = randomised(make)
    name = _name(estimator)
    needs, unbiased = (getattr(estimator, name, None) for name in ("needs", "unbiased"))
    expect(needs in ("all", "prefix", "soft"), f"{name}.needs must be 'all', 'prefix' or 'soft', got {needs!r}")
    expect(isinstance(unbiased, bool), f"{name}.unbiased must be True or False, got {unbiased!r}")
    problem = toy_problem(3, estimator.num_particles).problem
    for training in (False, True):
        loss, again = (deepcopy(estimator).train(training)(problem, _generator()) for _ in range(2))
        expect(isinstance(loss, Tensor), f"{name} must return a tensor, got {loss!r}")
        found = tuple(loss.shape)
        expect(found == (3,), f"{name} must return a loss for each image, shape (3,), got {found}")
        expect(bool(loss.isfinite().all()), f"{name} returned a loss that is not finite: {loss.tolist()}")
        expect(loss.requires_grad, f"{name} returned a loss that depends on nothing: its graph was cut")
        expect(
            torch.equal(loss, again), f"{name} must draw from the generator alone: the same generator gave another loss"
        )
    _check_draws(estimator, problem)


def _check_draws(estimator: Estimator, problem: StopProblem) -> None:
    """What it draws goes through the problem, or enumerating would miss it."""
    try:
        script = next(outcomes(estimator, problem)).script
    except NotEnumerable:
        return
    losses = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(2):
            torch.manual_seed(seed)  # noqa: TID251 (forked)
            losses.append(deepcopy(estimator)(scripted(problem, *script), _generator(seed)))
    expect(
        torch.equal(*losses),
        f"{_name(estimator)} draws past the problem, so that it cannot be enumerated: draw through problem.sample, "
        "problem.presences or problem.uniform",
    )


def check_bias(make: MakeEstimator) -> None:
    """An unbiased estimator has the exact gradient on average, in every parameter of network and model."""
    estimator = randomised(make)
    if not estimator.unbiased:
        return
    toy = toy_problem(2, estimator.num_particles)
    for name, (error, found) in _deviation(estimator, toy).items():
        expect(error < 1, f"{_name(estimator)} is biased: its mean gradient in {name} {found}")


def check_nothing_to_gain(make: MakeEstimator) -> None:
    """Where all counts explain the image alike, what is left on average is the gradient of the count's divergence."""
    estimator = randomised(make)
    if estimator.num_particles > 1 or not (estimator.unbiased or estimator.needs == "soft"):
        return
    toy = toy_problem(2, flat=True)
    for name, (error, found) in _deviation(estimator, toy).items():
        expect(
            error < 1,
            f"{_name(estimator)} has a gradient where there is nothing to gain: its mean gradient in {name} {found}",
        )


def check_saturation(make: MakeEstimator) -> None:
    """Sure presences, ``|logit| = 15``, give finite losses and gradients."""
    estimator = randomised(make)
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=NUM_STEPS)), dtype=torch.float64)
    toy = toy_problem(len(signs), estimator.num_particles)
    logits = (15 * signs).repeat_interleave(estimator.num_particles, 0).requires_grad_()
    for seed in range(10):
        problem = replace(toy.remake(1).problem, logits=logits)
        own = deepcopy(estimator).train(seed % 2 == 0)
        loss = own(problem, _generator(seed))
        expect(
            bool(loss.isfinite().all()), f"{_name(estimator)} returned a loss that is not finite where |logit| is 15"
        )
        found = torch.autograd.grad(loss.sum(), [logits, problem.scores, *own.parameters()], allow_unused=True)
        expect(
            all(gradient is None or bool(gradient.isfinite().all()) for gradient in found),
            f"{_name(estimator)} has a gradient that is not finite where |logit| is 15",
        )


def check_prefix(make: MakeEstimator) -> None:
    """One that needs the prefix only reads nothing beyond the counts it drew, and leaves the steps after them alone.

    Where it draws uniform numbers, logits that are all but sure say what the counts must be.
    """
    estimator = randomised(make)
    if estimator.needs != "prefix":
        return
    problem = toy_problem(1, estimator.num_particles).problem
    try:
        for drawn in outcomes(estimator, problem):
            _check_reads(estimator, problem, lambda seen, drawn=drawn: scripted(seen, *drawn.script), drawn.largest)
    except NotEnumerable:
        steps = torch.arange(NUM_STEPS)
        for n in range(NUM_STEPS + 1):
            logits = torch.where(steps < n, 40.0, -40.0).double().expand_as(problem.logits).requires_grad_()
            _check_reads(estimator, replace(problem, logits=logits), lambda seen: seen, torch.tensor([n]))


def _check_reads(
    estimator: Estimator, problem: StopProblem, draw: Callable[[StopProblem], StopProblem], largest: Tensor
) -> None:
    """Compares a loss with the one where all beyond the largest count is NaN."""
    largest = largest.repeat_interleave(problem.num_particles)[:, None]
    known = torch.arange(NUM_STEPS + 1) <= largest
    # The context of a step knows the likelihood of the objects before it.
    blind = replace(
        problem,
        scores=torch.where(known, problem.scores, math.nan),
        context=torch.where(known[:, :-1, None], problem.context, math.nan),
        log_q_latents=None if problem.log_q_latents is None else torch.where(known, problem.log_q_latents, math.nan),
    )
    losses = [deepcopy(estimator)(draw(seen), _generator()) for seen in (problem, blind)]
    expected, gradient = (output_gradient(loss, [problem.logits, problem.scores]) for loss in losses)
    counts = f"counts up to {largest.max()}"
    expect(
        torch.allclose(losses[1], losses[0]) and torch.allclose(gradient, expected),
        f"{_name(estimator)} says it needs the prefix only, but reads scores or context beyond the counts it drew: "
        f"{counts}, and loss {losses[1].tolist()} where it had been {losses[0].tolist()}",
    )
    later = gradient[:, :NUM_STEPS][torch.arange(NUM_STEPS).expand(len(known), -1) > largest]
    expect(
        not later.any(),
        f"{_name(estimator)} touches the graph of the next step: after {counts} its loss has a gradient in logits of "
        "steps that no episode came to decide; detach baselines, and mask them",
    )


CHECKS = (check_declarations, check_bias, check_nothing_to_gain, check_saturation, check_prefix)
"""All of them, in the order in which their messages help most."""


@dataclass(frozen=True)
class Toy:
    """A small problem, with the parameters it is a function of.

    Attributes:
        problem: The problem.
        leaves: ``where`` of the network, with a gradient through the latents, through the logits and through
            ``log q``; ``presence`` of the network; ``decoder`` of the model. ``[image, ...]``: every image has its own.
        remake: The problem again, with so many copies of every image.
    """

    problem: StopProblem
    leaves: dict[str, Tensor]
    remake: Callable[[int], "Toy"]


def toy_problem(num_images: int, num_particles: int = 1, *, flat: bool = False, copies: int = 1) -> Toy:
    """A problem in which, as in AIR, a step's latents depend on those before it and decide on later logits.

    Objects add up to a canvas of a few pixels, whose likelihood is no polynomial, so that relaxations are biased.

    Args:
        num_images: Different images.
        num_particles: Paths for each image.
        flat: Whether all counts explain an image alike.
        copies: How often the images are repeated, one after the other, with the same noise.
    """
    shapes = {"where": (NUM_STEPS, _LATENT), "presence": (_LATENT,), "decoder": (_LATENT, _PIXELS)}
    leaves = {
        name: _normal(i, num_images, *shape).repeat(copies, *[1] * len(shape)).requires_grad_()
        for i, (name, shape) in enumerate(shapes.items())
    }
    rows = {name: leaf.repeat_interleave(num_particles, 0) for name, leaf in leaves.items()}
    noise, image, context = (
        _normal(seed, num_images * num_particles, *shape).repeat(copies, *[1] * len(shape))
        for seed, shape in ((10, (NUM_STEPS, _LATENT)), (11, (_PIXELS,)), (12, (NUM_STEPS, CONTEXT)))
    )
    z = torch.ones_like(noise[:, 0])
    logits, objects, latents = [], [], []
    for i, where in enumerate(rows["where"].unbind(1)):
        logits.append((z * rows["presence"]).sum(1) + where.sum(1) / 4)
        z = torch.tanh(where + noise[:, i] + z / 2)
        objects.append(torch.einsum("rl,rlp->rp", z, rows["decoder"]))
        latents.append(-(z - where).square().sum(1))
    canvases = torch.stack(list(accumulate(objects, initial=torch.zeros_like(image))), 1)
    steps = torch.stack(latents, 1)
    gain = 0.0 if flat else 1.0

    def relaxed(extents: Tensor) -> Tensor:
        weights = -F.pad(F.pad(extents, (1, 0), value=1.0), (0, 1)).diff(dim=1)
        canvas = (weights[..., None] * canvases).sum(1)
        log_p_x = -10 * (canvas - image).cosh().log().sum(1) - 50
        return gain * (log_p_x + (extents * steps).sum(1))

    hard = torch.ones(NUM_STEPS + 1, NUM_STEPS, dtype=torch.float64).tril(-1)
    log_p_count = _normal(13, NUM_STEPS + 1).log_softmax(0)
    scores = torch.stack([relaxed(extents.expand(len(image), -1)) for extents in hard], 1) + log_p_count
    problem = StopProblem(
        torch.stack(logits, 1),
        scores,
        log_p_count,
        context,
        num_particles=num_particles,
        log_q_latents=F.pad(steps.cumsum(1), (1, 0)),
        relaxed=relaxed,
    )
    dreamt = torch.arange(len(image)) % (NUM_STEPS + 1)
    problem = replace(problem, dream=lambda generator: problem.log_q_at(dreamt)[::num_particles])
    return Toy(problem, leaves, lambda copies: toy_problem(num_images, num_particles, flat=flat, copies=copies))


def randomised(make: MakeEstimator, num_features: int = CONTEXT) -> Estimator:
    """An estimator in float64 whose networks do not begin at 0, with two particles where it wants several."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # noqa: TID251 (forked)
        estimator = make(num_features).double().eval()
        for parameter in estimator.parameters():
            nn.init.normal_(parameter)
    estimator.num_particles = min(estimator.num_particles, 2)
    return estimator


def _deviation(estimator: Estimator, toy: Toy) -> dict[str, tuple[float, str]]:
    """How far mean gradients are from the exact ones, in units of what is allowed, and the same in words."""
    exact = _gradients(-objective(toy.problem), toy.leaves)
    try:
        mean = _gradients(expected_loss(estimator, toy.problem), toy.leaves)
        allowed = {name: _TOLERANCE * gradient.abs().max().clamp_min(1) for name, gradient in exact.items()}
    except NotEnumerable:
        copies = toy.remake(_NUM_SAMPLES)
        drawn = _gradients(estimator(copies.problem, _generator()), copies.leaves)
        samples = {name: gradient.unflatten(0, (_NUM_SAMPLES, -1)) for name, gradient in drawn.items()}
        mean = {name: values.mean(0) for name, values in samples.items()}
        allowed = {name: _MAX_Z * values.std(0) / _NUM_SAMPLES**0.5 + 1e-9 for name, values in samples.items()}
    return {
        name: (
            ((mean[name] - exact[name]).abs() / allowed[name]).max().item(),
            f"is {_short(mean[name])}, the exact one {_short(exact[name])} (allowed {_short(allowed[name])})",
        )
        for name in exact
    }


def _gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def _short(values: Tensor) -> str:
    """The first few numbers."""
    return "[" + ", ".join(f"{value:.4g}" for value in values.flatten()[:4].tolist()) + ", ...]"


def _name(estimator: Estimator) -> str:
    return type(estimator).__name__


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float64)
