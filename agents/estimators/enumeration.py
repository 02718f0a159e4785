"""The oracle: everything that an estimator can draw on a problem, with its probability.

An estimator draws through `StopProblem.sample` and `StopProblem.presences`, whose outcomes are few. With each of them
prescribed in turn its expected gradient and its variance are sums, with no Monte Carlo. One that draws through
`StopProblem.uniform` has to be sampled (`draws`).
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .base import Estimator
from .problem import StopProblem

Outcome = tuple[int, ...]
"""What one draw came to, for the particles of an image: their counts, or the presences of all their steps."""


_MOST_TERMS = 100_000


class NotEnumerable(Exception):  # noqa: N818 (an answer, not an error)
    """The estimator draws uniform numbers, or too many counts: its outcomes cannot be enumerated."""


class _Undecided(Exception):  # noqa: N818
    """The estimator draws once more than the script says."""

    def __init__(self, values: range, size: int) -> None:
        super().__init__()
        self.number, self.outcomes = len(values) ** size, product(values, repeat=size)


@dataclass(frozen=True)
class ScriptedProblem(StopProblem):
    """A problem whose draws are prescribed: the same for every image of the batch.

    Attributes:
        script: The outcomes of the draws to come.
        drawn: What was drawn: counts and their probability, each ``[batch]``.
    """

    script: Iterator[Outcome] = field(default_factory=lambda: iter(()))
    drawn: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def uniform(self, generator: torch.Generator | None = None) -> Tensor:
        """Gives up."""
        raise NotEnumerable

    def presences(self, generator: torch.Generator | None = None) -> Tensor:
        """The next outcome of the script, of ``2 ** N`` for each particle."""
        num_steps = self.logits.shape[1]
        bits = self._next(range(2), num_steps).view(-1, num_steps).to(self.logits.dtype)
        z_pres = bits.repeat(len(self.logits) // len(bits), 1)
        log_q = torch.where(z_pres > 0, self.log_go, self.log_stop).sum(1)
        self.drawn.append((self.count(z_pres), log_q.detach().exp()))
        return z_pres

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The next outcome of the script, of ``N + 1`` for each particle."""
        counts = self._next(range(self.scores.shape[1]), 1)
        n = counts.repeat(len(self.logits) // len(counts))
        self.drawn.append((n, self.log_q_at(n).detach().exp()))
        return n

    def _next(self, values: range, size: int) -> Tensor:
        try:
            outcome = next(self.script)
        except StopIteration:
            raise _Undecided(values, size * self.num_particles) from None
        return torch.tensor(outcome, device=self.logits.device)


def scripted(problem: StopProblem, *script: Outcome) -> ScriptedProblem:
    """The problem, with prescribed draws."""
    parts = {f.name: getattr(problem, f.name) for f in fields(StopProblem)}
    return ScriptedProblem(**parts, script=iter(script))


@dataclass(frozen=True)
class Drawn:
    """One thing that an estimator can draw for every image of a problem.

    Attributes:
        probability: ``[image]``.
        loss: ``[image]``, the estimator's, with graph.
        script: The draws.
        largest: ``[image]``, the largest of the counts drawn: what an episode had to try.
    """

    probability: Float[Tensor, "image"]
    loss: Float[Tensor, "image"]
    script: tuple[Outcome, ...]
    largest: Int[Tensor, "image"]


def outcomes(estimator: Estimator, problem: StopProblem, most: int = 5_000) -> Iterator[Drawn]:
    """Everything that the estimator can draw.

    Raises:
        NotEnumerable: That are more than `most` things, or infinitely many.
    """
    # With the number of outcomes that there are if all branch as these did.
    scripts: list[tuple[tuple[Outcome, ...], int]] = [((), 1)]
    while scripts:
        script, size = scripts.pop()
        attempt = scripted(problem, *script)
        try:
            # A copy: nothing that the estimator remembers may carry over.
            loss = deepcopy(estimator)(attempt)
        except _Undecided as undecided:
            size *= undecided.number
            if size > most:
                raise NotEnumerable from None
            scripts += [((*script, outcome), size) for outcome in undecided.outcomes]
        else:
            counts, probabilities = (
                torch.stack([start, *parts]).unflatten(1, (-1, problem.num_particles)).movedim(2, 0).flatten(0, 1)
                for start, parts in (
                    (torch.zeros_like(attempt.scores[:, 0], dtype=torch.long), [n for n, _ in attempt.drawn]),
                    (torch.ones_like(attempt.scores[:, 0]), [q for _, q in attempt.drawn]),
                )
            )
            yield Drawn(probabilities.prod(0), loss, script, counts.amax(0))


def draws(
    estimator: Estimator, problem: StopProblem, generator: torch.Generator, *, most: int = 300, num_samples: int = 100
) -> tuple[Float[Tensor, "draw image"], list[Tensor], bool]:
    """Everything that the estimator can draw, or a sample of it.

    Args:
        estimator: The estimator.
        problem: The problem.
        generator: Source of samples.
        most: Outcomes to enumerate; where there are more, or infinitely many, they are sampled.
        num_samples: How many samples.

    Returns:
        Probabilities (shares, of samples), losses ``[image]`` with their graph, and whether this is all there is.
    """
    try:
        found = list(outcomes(estimator, problem, most))
    except NotEnumerable:
        losses = [deepcopy(estimator)(problem, generator) for _ in range(num_samples)]
        return losses[0].new_full((num_samples, len(losses[0])), 1 / num_samples), losses, False
    return torch.stack([drawn.probability for drawn in found]), [drawn.loss for drawn in found], True


def expected_loss(estimator: Estimator, problem: StopProblem) -> Float[Tensor, "image"]:
    """The expectation of the loss with the probabilities held fixed: its gradient is the estimator's on average."""
    return torch.stack([drawn.probability * drawn.loss for drawn in outcomes(estimator, problem)]).sum(0)


def objective(problem: StopProblem) -> Float[Tensor, "image"]:
    """What is to be maximised, with all counts summed out: the ELBO, or with K particles the importance-weighted bound.

    ``sum_{n_1..n_K} prod_k q(n_k) log(1/K sum_k exp(L_{n_k}))``, of ``(N + 1) ** K`` terms. Where there is a path for
    each sequence of categories these are summed out, too.

    Raises:
        NotEnumerable: There are too many terms.
    """
    if problem.num_particles == 1:
        return problem.per_image(problem.elbo())
    num_particles, num_counts = problem.num_particles, problem.scores.shape[1]
    if num_counts**num_particles > _MOST_TERMS:
        raise NotEnumerable
    counts = torch.tensor(list(product(range(num_counts), repeat=num_particles)), device=problem.scores.device)
    log_q, log_w = (
        values.unflatten(0, (-1, num_particles))[:, torch.arange(num_particles, device=counts.device), counts]
        for values in (problem.log_q, problem.scores - problem.log_q)
    )
    bound = log_w.logsumexp(2) - torch.tensor(num_particles, dtype=log_w.dtype, device=log_w.device).log()
    return (log_q.sum(2).exp() * bound).sum(1)


def output_gradient(loss: Tensor, outputs: Sequence[Tensor]) -> Float[Tensor, "row output"]:
    """The gradient of a loss ``[image]`` in what the rows of a problem put out, side by side; 0 where it reads none."""
    found = torch.autograd.grad(loss.sum(), outputs, retain_graph=True, allow_unused=True)
    parts = [
        torch.zeros_like(output) if gradient is None else gradient
        for output, gradient in zip(outputs, found, strict=True)
    ]
    return torch.cat([part.flatten(1) for part in parts], 1)
