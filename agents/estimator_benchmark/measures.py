"""What an estimator does on a problem: its gradient's mean and covariance, and how many likelihoods it takes.

    Var[g] = Var_path[exact gradient] + E_path Var[g | path]

The first term is that of the path, the same for every estimator; the second is what an estimator adds, and is measured
here: by enumeration of what it can draw, or where that is too much, by a sample.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from agents.estimators import Estimator, StopProblem
from agents.estimators.enumeration import draws, objective, output_gradient


@dataclass(frozen=True)
class Moments:
    """Of an estimator's gradient in what the rows of an image put out, given their paths.

    Attributes:
        exact: ``[image, output]``, the gradient of what is to be minimised (`objective`).
        mean: ``[image, output]``, the estimator's.
        covariance: ``[image, output, output]``.
        enumerated: Whether mean and covariance are exact.
        num_draws: Of how many outcomes or samples they are made.
    """

    exact: Float[Tensor, "image output"]
    mean: Float[Tensor, "image output"]
    covariance: Float[Tensor, "image output output"]
    enumerated: bool
    num_draws: int


def moments(
    estimator: Estimator,
    problem: StopProblem,
    outputs: Sequence[Tensor],
    generator: torch.Generator,
    *,
    num_samples: int = 100,
) -> Moments:
    """Mean and covariance of an estimator's gradient.

    Where the problem has a path for each sequence of categories, the estimator is one that draws a path.

    Args:
        estimator: The estimator; nothing that it remembers changes.
        problem: The problem.
        outputs: Tensors ``[row, ...]`` with graph, such as logits and scores, to take the gradient in.
        generator: Source of samples, where outcomes are too many to enumerate.
        num_samples: How many of them.
    """
    rows_per_image = problem.num_particles * problem.num_paths

    def by_image(loss: Tensor) -> Tensor:
        return output_gradient(loss, outputs).unflatten(0, (-1, rows_per_image)).flatten(1)

    exact = by_image(-objective(problem))
    sampled = replace(problem, num_paths=1)
    probability, losses, enumerated = draws(estimator, sampled, generator, num_samples=num_samples)
    if problem.num_paths == 1:
        gradients = torch.stack([by_image(loss) for loss in losses])
        mean = torch.einsum("di,dio->io", probability, gradients)
        second = torch.einsum("di,dio,dip->iop", probability, gradients, gradients)
    else:
        # Every path is one more thing that can be drawn, with outputs of its own.
        gradients = torch.stack([output_gradient(loss, outputs) for loss in losses])
        probability = probability * problem.path_probabilities().detach()
        mean = torch.einsum("dr,dro->ro", probability, gradients).unflatten(0, (-1, problem.num_paths)).flatten(1)
        by_path = torch.einsum("dr,dro,drp->rop", probability, gradients, gradients)
        second = torch.stack([torch.block_diag(*blocks) for blocks in by_path.unflatten(0, (-1, problem.num_paths))])
    covariance = second - mean[:, :, None] * mean[:, None, :]
    if not enumerated:
        covariance = covariance * (num_samples / (num_samples - 1))
    return Moments(exact, mean, covariance, enumerated, len(losses))


def count_likelihoods(estimator: Estimator, problem: StopProblem, seed: int = 0) -> float:
    """Likelihood evaluations for an image and iteration, averaged over the images.

    They are found out, not declared: a score that the estimator reads makes its loss NaN where it is NaN itself; and
    `StopProblem.soft` is watched. An online agent would have to compute just these.
    """
    soft_calls = 0
    relaxed = problem.relaxed

    def watched(extents: Tensor) -> Tensor:
        nonlocal soft_calls
        soft_calls += 1
        assert relaxed is not None
        return relaxed(extents)

    def loss(scores: Tensor, relaxed: Callable[[Tensor], Tensor] | None) -> Tensor:
        generator = torch.Generator(problem.logits.device).manual_seed(seed)
        return deepcopy(estimator)(replace(problem, scores=scores, relaxed=relaxed), generator)

    particles, num_counts = problem.num_particles, problem.scores.shape[1]
    first = torch.arange(len(problem.scores), device=problem.scores.device) % particles == 0
    loss(problem.scores, None if relaxed is None else watched)
    num_read = 0.0
    for n in range(num_counts):
        # Of the first particle; the others read as much.
        hidden = first[:, None] & (torch.arange(num_counts, device=first.device) == n)
        num_read += loss(problem.scores.masked_fill(hidden, math.nan), relaxed).isnan().double().mean().item()
    return estimator.num_passes * particles * (num_read + soft_calls)


def logit_variance(estimator: Estimator, problem: StopProblem, generator: torch.Generator) -> tuple[float, float]:
    """The variance that an estimator adds in the logits, and the square of the exact gradient; means over images."""
    found = moments(estimator, problem, [problem.logits], generator, num_samples=32)
    added = found.covariance.diagonal(dim1=1, dim2=2).sum(1).mean()
    return added.item(), found.exact.square().sum(1).mean().item()
