"""What an estimator does on a problem: its gradient's mean and covariance, and how many likelihoods it takes.

    Var[g] = Var_path[exact gradient] + E_path Var[g | path]

The first term is that of the path, the same for every estimator; the second is what an estimator adds, and is measured
here: by enumeration of what it can draw, or where that is too much, by a sample.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..estimators import Estimator, StopProblem
from ..estimators.enumeration import draws, objective, output_gradient


@dataclass(frozen=True)
class Moments:
    """Moments of an estimator's gradient in what the rows of an image put out, given their paths.

    Attributes:
        exact: ``[image, output]``, the gradient of what is to be minimised (`objective`).
        mean: ``[image, output]``, the estimator's.
        covariance: ``[image, output, output]``.
        chance: ``[image, output, output]``, the covariance of the mean itself: 0, unless it is one of samples.
        enumerated: Whether mean and covariance are exact.
        num_draws: Of how many outcomes or samples they are made.
    """

    exact: Float[Tensor, "image output"]
    mean: Float[Tensor, "image output"]
    covariance: Float[Tensor, "image output output"]
    chance: Float[Tensor, "image output output"]
    enumerated: bool
    num_draws: int


def moments(
    estimator: Estimator,
    problem: StopProblem,
    outputs: Sequence[Tensor],
    generator: torch.Generator,
    *,
    most: int = 300,
    num_samples: int = 100,
) -> Moments:
    """Mean and covariance of an estimator's gradient.

    Where the problem has a path for each sequence of categories, the estimator is one that draws a path.

    Args:
        estimator: The estimator; nothing that it remembers changes.
        problem: The problem.
        outputs: Tensors ``[row, ...]`` with graph, such as logits and scores, to take the gradient in.
        generator: Source of samples, where outcomes are too many to enumerate.
        most: Outcomes to enumerate.
        num_samples: How many samples.
    """
    rows_per_image = problem.num_particles * problem.num_paths

    def by_image(loss: Tensor) -> Tensor:
        return output_gradient(loss, outputs).unflatten(0, (-1, rows_per_image)).flatten(1)

    exact = by_image(-objective(problem))
    sampled = replace(problem, num_paths=1)
    probability, losses, enumerated = draws(estimator, sampled, generator, most=most, num_samples=num_samples)
    if problem.num_paths == 1:
        gradients = torch.stack([by_image(loss) for loss in losses])
        mean = torch.einsum("di,dio->io", probability, gradients)
        covariance = _second_moment(probability, gradients - mean)
        if not enumerated:
            covariance = covariance * (num_samples / (num_samples - 1))
        chance = covariance / num_samples
    else:
        # Every path is one more thing that can be drawn, with outputs of its own.
        gradients = torch.stack([output_gradient(loss, outputs) for loss in losses])
        share = problem.path_probabilities().detach()
        means = torch.einsum("dr,dro->ro", probability, gradients)
        within = _second_moment(probability, gradients - means)
        mean = (share[:, None] * means).unflatten(0, (-1, problem.num_paths)).flatten(1)
        second = share[:, None, None] * (within + means[:, :, None] * means[:, None, :])
        covariance = _by_blocks(second, problem.num_paths) - mean[:, :, None] * mean[:, None, :]
        chance = _by_blocks(share[:, None, None] ** 2 * within, problem.num_paths) / num_samples
    return Moments(exact, mean, covariance, chance * (not enumerated), enumerated, len(losses))


def _second_moment(probability: Tensor, gradients: Tensor) -> Tensor:
    return torch.einsum("dr,dro,drp->rop", probability, gradients, gradients)


def _by_blocks(of_rows: Float[Tensor, "row output output"], num_paths: int) -> Tensor:
    """Block-diagonal matrices, with a block for each path of an image."""
    return torch.stack([torch.block_diag(*blocks) for blocks in of_rows.unflatten(0, (-1, num_paths))])


def count_likelihoods(
    estimator: Estimator, problem: StopProblem, seed: int = 0, num_passes: int | None = None
) -> float:
    """Likelihood evaluations for an image, averaged over the images.

    They are found out, not declared: a score that the estimator reads makes its loss NaN where it is NaN itself, and so
    does the context that knows the same likelihood; and `StopProblem.soft` is watched. An online agent would have to
    compute just these.

    Args:
        estimator: The estimator.
        problem: The problem.
        seed: Of what it draws.
        num_passes: How many passes over a batch are counted; by default all, as in an iteration of training.
    """
    soft_calls = 0
    relaxed = problem.relaxed

    def watched(extents: Tensor) -> Tensor:
        nonlocal soft_calls
        soft_calls += 1
        assert relaxed is not None
        return relaxed(extents)

    def loss(num_pass: int, seen: StopProblem) -> Tensor:
        """The loss of a pass; those before it have seen everything."""
        generator = torch.Generator(problem.logits.device).manual_seed(seed)
        own = deepcopy(estimator).train(estimator.num_passes > 1)
        for _ in range(num_pass):
            own(problem, generator)
        return own(seen, generator)

    particles, (num_rows, num_counts) = problem.num_particles, problem.scores.shape
    # Of the first particle; the others read as much.
    first = torch.arange(num_rows, device=problem.scores.device) % particles == 0
    num_read = 0.0
    for num_pass in range(estimator.num_passes if num_passes is None else num_passes):
        loss(num_pass, replace(problem, relaxed=None if relaxed is None else watched))
        for n in range(num_counts):
            hidden = first[:, None] & (torch.arange(num_counts, device=first.device) == n)
            scores = problem.scores.masked_fill(hidden, math.nan)
            context = problem.context.masked_fill(hidden[:, :-1, None], math.nan)
            num_read += loss(num_pass, replace(problem, scores=scores, context=context)).isnan().double().mean().item()
    return particles * (num_read + soft_calls)


def logit_variance(
    estimator: Estimator, problem: StopProblem, generator: torch.Generator, num_samples: int = 32
) -> tuple[Float[Tensor, "image"], Float[Tensor, "image"]]:
    """The variance that an estimator adds in the logits of each image, and the square of the exact gradient there."""
    found = moments(estimator, problem, [problem.logits], generator, num_samples=num_samples)
    return found.covariance.diagonal(dim1=1, dim2=2).sum(1), found.exact.square().sum(1)
