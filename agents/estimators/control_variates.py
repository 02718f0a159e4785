"""Score functions less what half objects know of them: unbiased, whatever half objects are worth.

With ``f(b) = A - log p(n)``, its relaxation `StopProblem.soft` and ``s_i = b_i - p_i``, the score,

    muprop   g_i = (f(b) - f(p) - f'(p) (b - p)) s_i + f'_i(p) p_i (1 - p_i)    Gu et al. (2016), Section 3
    rebar    g_i = (f(b) - c(z)) s_i + dc/dz_i (1 - dz~_i/dlogit_i)             Tucker et al. (2017), Section 3
             with c(z) = scale f(sigmoid(z / temperature)), both learned
    relax    the same, with more of c learned                                   Grathwohl et al. (2018), Section 3

REBAR's z~ is z drawn again, given its sign b. With common random numbers (Tucker et al., appendix) both are the same
number, but z~ keeps to its side of 0 as the logit changes:

    dz_i/dlogit_i = 1,    dz~_i/dlogit_i = q(b_i) (1 - exp(-|z_i|))

so that one evaluation of c serves both. Deviation: a step that the episode does not come to has gradient 0, its mean.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .base import RETURN_SCALE, Estimator, logit_gradient_loss, soft_and_slope, value_network
from .problem import StopProblem
from .relaxed import logistic

TEMPERATURE = 1.0
"""Temperature of the relaxation before it is learned (our choice)."""

LEAST_GATE = 1e-15
"""Of an object that is hardly there: nothing that can be seen, and its square is not 0 in single precision."""


class MuProp(Estimator):
    """The first-order Taylor expansion at the mean field, gates ``p``, as a control variate."""

    needs = "soft"
    unbiased = True

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sample of the presences."""
        presences = problem.presences(generator)
        n = problem.count(presences)
        anchor, slope = soft_and_slope(problem, problem.log_go.exp())
        # Of the steps that were reached: the later ones say nothing about f.
        score = torch.where(problem.reached(n), score_of(problem, presences), 0.0)
        residual = hard(problem, n) - anchor - (slope * score).sum(1)
        expected = torch.where(problem.reached(n), slope * (problem.log_go + problem.log_stop).exp(), 0.0)
        return logit_gradient_loss(problem, n, residual[:, None] * score + expected) + problem.kl_count()


class REBAR(Estimator):
    """The relaxation as a control variate, ``c(z) = scale f(sigmoid(z / temperature))``, less what presences explain.

    Scale and temperature learn from the gradient of ``sum_i g_i ** 2``, one sample of the variance (Section 3.2).
    """

    needs = "soft"
    unbiased = True

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of one sample of the presences, and the control variate's loss."""
        z = problem.logits.detach() + logistic(problem, generator)
        gradient = controlled_gradient(problem, z, *self.control_variate(problem, z))
        variance = (gradient / RETURN_SCALE).square().sum(1)
        loss = logit_gradient_loss(problem, problem.count((z > 0).to(z.dtype)), gradient)
        return loss + problem.kl_count() + variance

    def control_variate(
        self, problem: StopProblem, z: Float[Tensor, "batch step"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch step"]]:
        """``c`` and its gradient in z, with graphs to the parameters of c alone."""
        y, y_slope = self.relaxed(z)
        value, slope = self._soft_and_slope(problem, z, y)
        return self.scale * value, self.scale * slope * y_slope

    def relaxed(
        self, z: Float[Tensor, "batch step"]
    ) -> tuple[Float[Tensor, "batch step"], Float[Tensor, "batch step"]]:
        """``y = sigmoid(z / temperature)`` and dy/dz."""
        temperature = self.log_temperature.exp()
        # Second derivatives of products divide by squares of y.
        y = torch.sigmoid(z / temperature).clamp_min(LEAST_GATE)
        return y, y * (1 - y) / temperature

    def _soft_and_slope(
        self, problem: StopProblem, z: Float[Tensor, "batch step"], y: Float[Tensor, "batch step"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch step"]]:
        """`StopProblem.soft` and its gradient at y, to first order in the temperature; their graph has the model."""
        gates = y.detach().requires_grad_()
        value = problem.soft(gates)
        (slope,) = torch.autograd.grad(value.sum(), gates, create_graph=True)
        along = -z * (y * (1 - y) / self.log_temperature.exp()).detach()  # dy / dlog temperature
        (curvature,) = torch.autograd.grad((slope * along).sum(), gates)
        value, slope, step = value.detach(), slope.detach(), self.log_temperature - self.log_temperature.detach()
        return value + (slope * along).sum(1) * step, slope + curvature * step


class RELAX(REBAR):
    """`REBAR` with ``sum_i r(context_i, prod_{j <= i} y_j)`` added to c; r learns as scale and temperature do.

    Before any learning this is `REBAR`.
    """

    def __init__(self, context_dim: int) -> None:
        super().__init__(context_dim)
        self.network = value_network(context_dim + 1)

    def control_variate(
        self, problem: StopProblem, z: Float[Tensor, "batch step"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch step"]]:
        """``c`` and its gradient in z, with graphs to the parameters of c alone."""
        value, slope = super().control_variate(problem, z)
        y, y_slope = self.relaxed(z)
        learned = RETURN_SCALE * self.network(torch.cat([problem.context, y.cumprod(1)[..., None]], 2)).sum(1)
        (learned_slope,) = torch.autograd.grad(learned.sum(), y, create_graph=True)
        return value + learned, slope + learned_slope * y_slope


def hard(problem: StopProblem, n: Tensor) -> Float[Tensor, "batch"]:
    """``f`` of whole objects, ``A_n - log p(n)``, detached."""
    return problem.at(n).detach() - problem.log_p_at(n)


def score_of(problem: StopProblem, presences: Float[Tensor, "batch step"]) -> Float[Tensor, "batch step"]:
    """``b - p``, detached: the gradient of the presences' log-probability in the logits."""
    return torch.where(presences > 0, problem.log_stop.exp(), -problem.log_go.exp()).detach()


def controlled_gradient(
    problem: StopProblem,
    z: Float[Tensor, "batch step"],
    value: Float[Tensor, "batch"],
    slope: Float[Tensor, "batch step"],
) -> Float[Tensor, "batch step"]:
    """REBAR's ``g`` of the presences ``1[z > 0]``, with a control variate ``c(z)`` and its gradient in z."""
    presences = (z > 0).to(z.dtype)
    n = problem.count(presences)
    score = score_of(problem, presences)
    # 1 - q(b) (1 - exp(-|z|)), without cancellation.
    follows = torch.lerp(score.abs(), torch.ones_like(z), (-z.abs()).exp())
    gradient = (hard(problem, n) - value)[:, None] * score + slope * follows
    return torch.where(problem.reached(n), gradient, 0.0)
