"""The thermodynamic variational objective (Masrani, Le and Wood, 2019).

From q to the posterior leads a path of distributions ``pi_b`` proportional to ``p^b q^(1 - b)`` (Eq. 7). Along it

    log p(x) = integral_0^1 E_{pi_b}[log w] db,    log w = log p(x, z, n) - log q(z, n | x),

and as the integrand grows with b, its left Riemann sum is a lower bound, with a single part the ELBO.

    tvo   covariance gradient of that sum, from K self-normalised paths
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Estimator
from .multi_sample import NUM_PARTICLES, per_particle
from .problem import StopProblem
from .wake_sleep import log_joint, log_posterior


class TVO(Estimator):
    """``sum_j (b_{j+1} - b_j) (E[d log w] + Cov[log w, d log(p^b q^(1 - b))])``, with the moments of ``pi_b`` (Eq. 12).

    They are those of the K paths with weights proportional to ``w^b`` (Eq. 13). A covariance of K paths is too small;
    ``K / (K - 1)``, as in the authors' code, puts it right at b = 0.
    """

    needs = "prefix"
    unbiased = False
    num_particles = NUM_PARTICLES
    reparameterised = False
    points: tuple[float, ...] = (0.0, 0.01, 0.01**0.75, 0.1, 0.01**0.25)
    """``b_0 < b_1 < ...``, where parts begin: 0, and from 0.01 on evenly spaced logarithms (our choice); the last part
    ends at 1."""

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The surrogate loss of one sampled count on each path."""
        n = problem.sample(generator)
        log_p, log_q = (per_particle(problem, log(problem, n)) for log in (log_joint, log_posterior))
        log_w = log_p - log_q
        correction = problem.num_particles / max(problem.num_particles - 1, 1)
        loss = torch.zeros_like(log_w[:, 0])
        for b, end in pairwise((*self.points, 1.0)):
            weights = (b * log_w.detach()).softmax(1)
            deviation = log_w.detach() - (weights * log_w.detach()).sum(1, keepdim=True)
            covariance = correction * deviation * (b * log_p + (1 - b) * log_q)
            loss = loss - (end - b) * (weights * (log_w + covariance)).sum(1)
        return loss
