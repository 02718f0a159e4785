"""Concrete relaxations: presences between 0 and 1, whose noise is reparameterised.

    z_i = logit_i + logit(u_i),    b_i = 1[z_i > 0],    y_i = sigmoid(z_i / temperature)

    concrete                f(y), differentiated                        Maddison et al. (2017), Jang et al. (2017)
    st_gumbel               df/db_i at b, times dy_i/dlogit_i           Jang et al. (2017), Section 2.2
    rao_blackwell_st_gumbel the same, with the mean of dy_i/dlogit_i    Paulus, Maddison and Krause (2021)
                            over K noises that lead to the same b

with ``f(b) = A - log p(n)`` where b are gates (`StopProblem.soft`). Deviation: the divergence of q(n) from p(n) is that
of whole counts, and exact.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import Estimator, category_surrogate
from .problem import StopProblem
from .straight_through import straight_through_loss


class Concrete(Estimator):
    """Half objects in training, whole ones in use. The model, too, learns from half objects."""

    needs = "soft"
    unbiased = False
    temperature = 1.0

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The negative relaxed ELBO; categories learn from the count that the same noise leads to."""
        z = problem.logits + logistic(problem, generator)
        categories = category_surrogate(problem, problem.count((z > 0).to(z.dtype)), problem.stop_values())
        return problem.kl_count() - problem.soft(torch.sigmoid(z / self.temperature)) - categories


class STGumbel(Estimator):
    """Whole objects, and the derivative of half ones."""

    needs = "soft"
    unbiased = False
    temperature = 1.0

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sample of the presences."""
        z = problem.logits.detach() + logistic(problem, generator)
        return straight_through_loss(problem, (z > 0).to(z.dtype), relaxation_slope(z, self.temperature))


class RaoBlackwellSTGumbel(Estimator):
    """`STGumbel` of the same mean and less variance, at the price of arithmetic alone."""

    needs = "soft"
    unbiased = False
    temperature = 1.0
    num_noises = 10

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sample of the presences."""
        presences = problem.presences(generator)
        noises = [conditional_z(problem, presences, generator) for _ in range(self.num_noises)]
        slopes = torch.stack([relaxation_slope(z, self.temperature) for z in noises])
        return straight_through_loss(problem, presences, slopes.mean(0))


def logistic(problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch step"]:
    """Draws logistic noise for every presence, finite."""
    u = problem.uniform(generator)
    limits = torch.finfo(u.dtype)
    return u.clamp(limits.tiny, 1 - limits.eps / 2).logit()


def conditional_z(
    problem: StopProblem, presences: Float[Tensor, "batch step"], generator: torch.Generator | None = None
) -> Float[Tensor, "batch step"]:
    """Draws z given its sign (Tucker et al., 2017, appendix on the reparameterisation)."""
    noise = logistic(problem, generator)
    log_go, log_stop = problem.log_go.detach(), problem.log_stop.detach()
    return torch.where(presences > 0, F.softplus(noise - log_stop), -F.softplus(-noise - log_go))


def relaxation_slope(z: Float[Tensor, "batch step"], temperature: float) -> Float[Tensor, "batch step"]:
    """``d sigmoid(z / temperature) / dz``."""
    y = torch.sigmoid(z / temperature)
    return y * (1 - y) / temperature
