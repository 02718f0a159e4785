"""The importance-weighted bound of K paths (Burda et al., 2016), on each of which a count is sampled.

    log Z = log 1/K sum_k w_k,    log w_k = A_{n_k} - log q(n_k)

Reparameterised latents keep the pathwise gradient through ``log Z``. Counts and categories have none and get a score
function besides, ``sum_k sg(log Z - b_k) log q(choices of path k)``. (What ``log w_k`` itself owes to them is in the
gradient of ``log Z`` already.) The estimators differ in ``b_k``, a function of all but the choice itself:

    vimco    log Z with the geometric mean of the other weights for w_k    Mnih and Rezende (2016)
    ovis     the mean of  log Z - w_k / sum_j w_j  over the count n_k      Liévin et al. (2020), Eq. 12
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .base import Estimator
from .problem import StopProblem

NUM_PARTICLES = 5
"""K (our choice, the least of the 5 to 50 that are usual)."""


class VIMCO(Estimator):
    """Every path's baseline is the bound as the other paths would have it."""

    needs = "prefix"
    unbiased = True
    num_particles = NUM_PARTICLES

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The surrogate loss of one sampled count on each path."""
        n = problem.sample(generator)
        baseline = leave_one_out(log_weights(problem, n).detach())
        return bound_loss(problem, n, baseline, baseline)


class OVIS(Estimator):
    """A path's learning signal ``d_k = log Z - v_k`` less its mean over n_k, which N + 1 counts let us sum.

    ``v_k`` is the normalised weight: minus what n_k gets through ``log w_k``. The paper estimates the mean from more
    samples. A category is known to its own path, so that categories have the baseline of `VIMCO`.
    """

    needs = "all"
    unbiased = True
    num_particles = NUM_PARTICLES

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The surrogate loss of one sampled count on each path."""
        n = problem.sample(generator)
        log_w = log_weights(problem, n).detach()
        return bound_loss(problem, n, mean_signal(problem, log_w), leave_one_out(log_w))


def per_particle(problem: StopProblem, values: Float[Tensor, "batch *rest"]) -> Float[Tensor, "image particle *rest"]:
    """The values of each image's paths."""
    return values.unflatten(0, (-1, problem.num_particles))


def log_weights(problem: StopProblem, n: Int[Tensor, "batch"]) -> Float[Tensor, "image particle"]:
    """``log w_k``, with graph."""
    return per_particle(problem, problem.at(n) - problem.log_q_at(n))


def bound_loss(
    problem: StopProblem,
    n: Int[Tensor, "batch"],
    baseline: Float[Tensor, "image particle"],
    baseline_what: Float[Tensor, "image particle"],
) -> Float[Tensor, "image"]:
    """``-[log Z + sum_k sg(log Z - b_k) log q(n_k) + sum_k sg(log Z - b'_k) log q(z_what of path k)]``.

    Args:
        problem: The rollout of all paths.
        n: The count sampled on each.
        baseline: ``b``, of the counts.
        baseline_what: ``b'``, of the categories; not read where there are none.
    """
    bound = log_weights(problem, n).logsumexp(1) - math.log(problem.num_particles)
    signal = bound.detach()[:, None] - baseline
    choices = signal * per_particle(problem, problem.log_q_at(n))
    if problem.samples_categories:
        assert problem.log_q_what is not None
        log_q_what = torch.where(problem.went_on(n), problem.log_q_what, 0.0).sum(1)
        choices = choices + (bound.detach()[:, None] - baseline_what) * per_particle(problem, log_q_what)
    return -(bound + choices.sum(1))


def leave_one_out(log_w: Float[Tensor, "image particle"]) -> Float[Tensor, "image particle"]:
    """``log Z`` with each weight in turn replaced by the geometric mean of the others (0 nats if there are none)."""
    num_particles = log_w.shape[1]
    mean = (log_w.sum(1, keepdim=True) - log_w) / max(num_particles - 1, 1)
    replaced = torch.where(_own(log_w), mean[:, :, None], log_w[:, None])
    return replaced.logsumexp(2) - math.log(num_particles)


def mean_signal(problem: StopProblem, log_w: Float[Tensor, "image particle"]) -> Float[Tensor, "image particle"]:
    """``sum_n q(n) (log Z - v_k)`` with the count n on path k and all other weights as they are, detached."""
    others = torch.where(_own(log_w), -math.inf, log_w[:, None]).logsumexp(2)
    log_q, own = (per_particle(problem, part.detach()) for part in (problem.log_q, problem.scores - problem.log_q))
    total = torch.logaddexp(others[..., None], own)
    signal = total - math.log(problem.num_particles) - (own - total).exp()
    return (log_q.exp() * signal).sum(2)


def _own(log_w: Tensor) -> Tensor:
    return torch.eye(log_w.shape[1], dtype=torch.bool, device=log_w.device)
