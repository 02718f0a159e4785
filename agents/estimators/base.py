"""The interface of estimators, and the score-function surrogate that most of them share."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.precision import Head

from .problem import StopProblem

RETURN_SCALE = 100.0
"""Nats per unit of a baseline network's output: returns are hundreds of nats, networks like units."""


class Estimator(nn.Module):
    """Turns a `StopProblem` into a loss whose gradient estimates that of the negative ELBO.

    Args:
        context_dim: Number of features in `StopProblem.context`, for baselines that learn.
    """

    needs: ClassVar[Literal["all", "prefix", "soft"]]
    """What it reads: every ``A_n``; those up to the largest n it sampled; or half objects (`StopProblem.soft`)."""
    unbiased: ClassVar[bool]
    """Whether the expected gradient is exactly that of the negative ELBO, or, with several particles, of the negative
    importance-weighted bound."""
    num_particles: int = 1
    """Independent paths for each image; with more than one, `forward` gives a loss for each image."""
    reparameterised: ClassVar[bool] = True
    """Whether latents carry the gradient of the network that drew them."""
    num_passes: ClassVar[int] = 1
    """How often a batch is learned from."""

    def __init__(self, context_dim: int) -> None:
        super().__init__()
        del context_dim

    def refuse_impossible(self, name: str, *, differentiable: bool, enumerates: bool) -> None:
        """Refuses a renderer and a treatment of categories that the estimator cannot work with.

        Args:
            name: Name of the estimator in the error message.
            differentiable: Whether the renderer draws half objects.
            enumerates: Whether categories are summed out, so that there are no sampled paths.

        Raises:
            ValueError: The estimator needs what there is not.
        """
        if self.needs == "soft" and not differentiable:
            raise ValueError(
                f"estimator {name} relaxes presences, and this renderer draws whole objects only; choose one that "
                "samples the count, such as half_critic"
            )
        if self.num_particles > 1 and enumerates:
            raise ValueError(
                f"estimator {name} weighs {self.num_particles} sampled paths against each other, and categories = "
                "'exact' samples none; take categories = 'score_function', or another estimator"
            )

    def forward(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """The surrogate loss of each path; its value means nothing, its gradient does."""
        raise NotImplementedError

    def loss(self, problem: StopProblem, generator: torch.Generator | None = None) -> Float[Tensor, "image"]:
        """The surrogate loss of each image.

        Where an image has a path for every sequence of categories, these are summed out:
        ``d sum_w q_w L_w = sum_w q_w dL_w + L_w dq_w``.
        """
        losses = self(problem, generator)
        wanted = (len(problem.scores) // problem.num_particles,)
        if losses.shape != wanted:
            raise ValueError(
                f"{type(self).__name__} must return a loss for each {'image' if problem.num_particles > 1 else 'path'} "
                f"(shape {wanted}), got shape {tuple(losses.shape)}; do not average over the batch"
            )
        if problem.num_paths == 1:
            return losses
        q = problem.path_probabilities()
        summed = q.detach() * losses - q * problem.elbo().detach()
        return summed.unflatten(0, (-1, problem.num_paths)).sum(1)


def value_network(context_dim: int, hidden: int = 128) -> nn.Sequential:
    """A small network from context to a value in units of `RETURN_SCALE`, 0 at first."""
    output = Head(hidden, 1)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(nn.Linear(context_dim, hidden), nn.ReLU(), output, nn.Flatten(-2))


def score_function_loss(
    problem: StopProblem,
    n: Int[Tensor, "batch"],
    baseline: Float[Tensor, "batch step"],
    baseline_what: Float[Tensor, "batch step"] | None = None,
) -> Float[Tensor, "batch"]:
    """The likelihood-ratio surrogate of Section 2.2 with one baseline per decision.

        -[ A_n + sum_{i <= n+1} sg(L_n - b_i) log Bernoulli(z_pres_i; p_i)
               + sum_{i <= n} sg(L_n - b'_i) log q(z_what_i) ]

    The last sum is there where categories were sampled. Any baseline that does not depend on the decision
    of its own step leaves it unbiased. Values of the baseline beyond the steps reached are not read.

    Args:
        problem: The rollout.
        n: The sampled count.
        baseline: ``b``, of the presences.
        baseline_what: ``b'``, of the categories; by default ``b``.
    """
    advantage = torch.where(problem.reached(n), problem.value(n)[:, None] - baseline.detach(), 0.0)
    log_bernoulli = torch.where(problem.went_on(n), problem.log_go, problem.log_stop)
    presences = (advantage * log_bernoulli).sum(1)
    categories = category_surrogate(problem, n, baseline if baseline_what is None else baseline_what)
    return -(problem.at(n) + presences + categories)


def logit_gradient_loss(
    problem: StopProblem,
    n: Int[Tensor, "batch"],
    gradient: Float[Tensor, "batch step"],
) -> Float[Tensor, "batch"]:
    """``-[A_n + sum_i sg(g_i) logit_i]``: the surrogate of an estimate ``g`` of the ELBO's gradient in the logits.

    Where categories were sampled their gradient is that of `score_function_loss`, with the value of stopping before
    them as baseline.
    """
    categories = category_surrogate(problem, n, problem.stop_values())
    return -(problem.at(n) + (gradient.detach() * problem.logits).sum(1) + categories)


def soft_and_slope(
    problem: StopProblem, gates: Float[Tensor, "batch step"]
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch step"]]:
    """`StopProblem.soft` and its gradient in the gates, detached."""
    with torch.enable_grad():
        gates = gates.detach().requires_grad_()
        value = problem.soft(gates)
        (slope,) = torch.autograd.grad(value.sum(), gates)
    return value.detach(), slope


def category_surrogate(
    problem: StopProblem, n: Int[Tensor, "batch"], baseline: Float[Tensor, "batch step"]
) -> Float[Tensor, "batch"]:
    """``sum_{i <= n} sg(L_n - b_i) log q(z_what_i)`` where categories were sampled, else 0.

    The baseline of a step must not depend on its own category, nor on what follows from it.
    """
    if not problem.samples_categories:
        return torch.zeros_like(problem.scores[:, 0])
    went_on = problem.went_on(n)
    advantage = torch.where(went_on, problem.value(n)[:, None] - baseline.detach(), 0.0)
    return _score_categories(problem, advantage, went_on.to(advantage.dtype))


def expected_categories(problem: StopProblem) -> Float[Tensor, "batch"]:
    """The surrogate of sampled categories with n summed out, 0 where there are none.

    The choice of step i is weighed by ``sum_{n >= i} q(n) (L_n - L_{i-1})``: what it leads to, less what was to be
    had before it.
    """
    if not problem.samples_categories:
        return torch.zeros_like(problem.scores[:, 0])
    q = problem.log_q.exp()[:, 1:]
    paid = q * (problem.scores - problem.log_q)[:, 1:]
    reached = _from_step(q).detach()
    return _score_categories(problem, _from_step(paid).detach() - reached * problem.stop_values(), reached)


def _score_categories(
    problem: StopProblem, advantage: Float[Tensor, "batch step"], reached: Float[Tensor, "batch step"]
) -> Float[Tensor, "batch"]:
    """``sum_i advantage_i log q(z_what_i)`` of what was reached with such a probability.

    What the categories were found to be worth, ``b``, is a control variate: ``reached (E_q[b] + sg(-b_i) log q_i)``
    has a gradient of 0 on average.
    """
    assert problem.log_q_what is not None
    if (values := problem.what_values) is None:
        return (advantage * problem.log_q_what).sum(1)
    advantage = advantage - reached * values.chosen
    return (advantage * problem.log_q_what + reached * values.expected).sum(1)


def _from_step(values: Tensor) -> Tensor:
    """Sums over this and all later steps."""
    return values.flip(1).cumsum(1).flip(1)


def squared_error(
    problem: StopProblem, n: Int[Tensor, "batch"], values: Float[Tensor, "batch step"], mask: Tensor
) -> Float[Tensor, "batch"]:
    """The regression of values to the return ``L_n`` where the mask holds, in units of `RETURN_SCALE`."""
    error = torch.where(mask, problem.value(n)[:, None] - values, 0.0) / RETURN_SCALE
    return error.square().sum(1)
