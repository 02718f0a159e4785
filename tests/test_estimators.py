"""Gradient estimators against enumeration: every registered one passes the same gate.

The reference is the objective ``sum_n q(n) (A_n - log q(n))``, written out below and differentiated. An estimator is
enumerated over all the counts it can draw, so that its expected gradient is known without Monte Carlo.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from itertools import product

import pytest
import torch
from tiny import (
    NUM_STEPS,
    assert_equal,
    count_probabilities,
    float64,
    generator,
    make_agent,
    make_images,
    normal,
    roll_out,
    z_score,
)
from torch import Tensor, nn

from agents.estimators import ESTIMATORS, Estimator, StopProblem, make_estimator
from agents.estimators.base import RETURN_SCALE
from agents.rollout import context_dim

CONTEXT = 4
UNBIASED = [name for name, kind in ESTIMATORS.items() if kind.unbiased]
PREFIX = [name for name, kind in ESTIMATORS.items() if kind.needs == "prefix"]
LEARNED = {"nvil": "baseline", "half_critic": "gain"}
EARLY, LATE, STUCK = (0.5, 0.5, 0.5), (0.98, 0.95, 0.05), (0.99, 0.99, 0.99)
RETURNS = (-700.0, -260.0, 110.0, 95.0)


class OutOfCounts(Exception):  # noqa: N818
    """The estimator draws more counts than the script has."""


@dataclass(frozen=True)
class Scripted(StopProblem):
    """A problem whose draws of n are prescribed."""

    script: Iterator[int] = field(default_factory=lambda: iter(()))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        try:
            return torch.full((len(self.logits),), next(self.script))
        except StopIteration:
            raise OutOfCounts from None


def scripted(problem: StopProblem, *counts: int) -> Scripted:
    return Scripted(**{f.name: getattr(problem, f.name) for f in fields(StopProblem)}, script=iter(counts))


def outcomes(estimator: Estimator, problem: StopProblem) -> Iterator[tuple[Tensor, Tensor]]:
    """Probability and loss ``[batch]`` of all sequences of counts that the estimator can draw."""
    q = count_probabilities(problem.logits).detach()
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        script = scripts.pop()
        try:
            # A copy: nothing that the estimator remembers may carry over.
            loss = deepcopy(estimator)(scripted(problem, *script))
        except OutOfCounts:
            scripts += [(*script, n) for n in range(q.shape[1])]
        else:
            yield q[:, list(script)].prod(1), loss


def expected_loss(estimator: Estimator, problem: StopProblem) -> Tensor:
    """Its gradient is the estimator's in expectation."""
    return sum(((weight * loss).sum() for weight, loss in outcomes(estimator, problem)), torch.zeros(()))


def objective(problem: StopProblem) -> Tensor:
    """The ELBO of each path, from its definition."""
    q = count_probabilities(problem.logits)
    return (q * (problem.scores - q.log())).sum(1)


def make_randomised(name: str, features: int = CONTEXT) -> Estimator:
    """An estimator in float64 whose networks do not begin at 0."""
    with float64(1):
        estimator = make_estimator(name, features)
        for parameter in estimator.parameters():
            nn.init.normal_(parameter)
        return estimator.eval()


def linked_problem(batch: int = 2) -> tuple[StopProblem, dict[str, Tensor]]:
    """A problem whose logits and scores are functions of the same leaves, as in AIR.

    The latents of a step depend on those before it and decide on later logits, so that ``where`` has a gradient
    through the latents, through the logits and through ``log q``; ``decoder`` belongs to the model alone.
    """
    shapes = {"where": (NUM_STEPS, 3), "presence": (3,), "decoder": (3,)}
    leaves = {name: normal(*shape, seed=i).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}
    noise = normal(batch, NUM_STEPS, 3, seed=10)
    z, logits, steps = torch.ones(batch, 3, dtype=torch.float64), [], []
    for i in range(NUM_STEPS):
        logits.append(z @ leaves["presence"] + leaves["where"][i].sum() / 4)
        z = torch.tanh(leaves["where"][i] + noise[:, i] + z / 2)
        steps.append(30 * torch.sin(z @ leaves["decoder"]) - (z - leaves["where"][i]).square().sum(1))
    log_p_stop = normal(NUM_STEPS + 1, seed=11)
    scores = torch.stack([torch.full((batch,), -100.0).double(), *steps], 1).cumsum(1) + log_p_stop
    context = normal(batch, NUM_STEPS, CONTEXT, seed=12)
    return StopProblem(torch.stack(logits, 1), scores, log_p_stop, context), leaves


def problem_of(probabilities: tuple[float, ...], returns: tuple[float, ...] = RETURNS) -> StopProblem:
    """A problem of one image with given ``p_i`` and ``L_n``; the logits are a leaf."""
    logits = torch.tensor([probabilities], dtype=torch.float64).logit().requires_grad_()
    log_q = count_probabilities(logits).detach().log()
    scores = torch.tensor([returns], dtype=torch.float64) + log_q
    log_p_stop = normal(len(returns), seed=1)
    return StopProblem(logits, scores, log_p_stop, torch.zeros(1, len(probabilities), 1, dtype=torch.float64))


def values_of_going_on(problem: StopProblem) -> Tensor:
    """``V_i = E[L_n | n >= i]``, ``[batch, N]``."""
    q = count_probabilities(problem.logits).detach()
    mass = q * (problem.scores.detach() - q.log())
    return torch.stack([mass[:, i:].sum(1) / q[:, i:].sum(1) for i in range(1, q.shape[1])], 1)


def with_perfect_critic(name: str, problem: StopProblem) -> tuple[Estimator, StopProblem]:
    """An estimator whose network hands through what the context tells it: the best baseline there is."""
    estimator = make_randomised(name, 1)
    best = values_of_going_on(problem) - problem.stop_values()
    if name == "nvil":
        best = torch.lerp(problem.stop_values(), values_of_going_on(problem), problem.logits.detach().sigmoid())
        best = best - problem.returns_so_far()
    if name in LEARNED:
        setattr(estimator, LEARNED[name], nn.Flatten(-2))
    return estimator, replace(problem, context=best[..., None] / RETURN_SCALE)


def added_variance(name: str, probabilities: tuple[float, ...]) -> float:
    """What the sampling of n adds to the variance of the gradient in the logits, enumerated."""
    estimator, problem = with_perfect_critic(name, problem_of(probabilities))
    weights, losses = zip(*outcomes(estimator, problem), strict=True)
    gradients = torch.stack([torch.autograd.grad(loss.sum(), problem.logits, retain_graph=True)[0] for loss in losses])
    weight = torch.stack(weights)[..., None]
    return (weight * (gradients - (weight * gradients).sum(0)).square()).sum().item()


def gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_is_the_exact_one_on_an_enumerable_problem(name):
    problem, leaves = linked_problem()
    exact = gradients(-objective(problem).sum(), leaves)
    assert all((gradient.abs() > 1e-3).all() for gradient in exact.values())
    assert_equal(gradients(expected_loss(make_randomised(name), problem), leaves), exact, 1e-8)


@pytest.mark.parametrize("analytic_kl", [True, False])
@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_is_the_exact_one_on_an_agents_rollout(name, analytic_kl):
    agent = make_agent()
    problem = roll_out(agent, make_images(3)).problem(analytic_kl=analytic_kl)
    exact = gradients(-objective(problem).sum(), dict(agent.named_parameters()))
    for part in ("embed", "core", "presence", "where", "encoder", "what", "model.renderer"):
        assert any(g.abs().max() > 1e-3 for parameter, g in exact.items() if parameter.startswith(part)), part
    estimated = gradients(
        expected_loss(make_randomised(name, context_dim(agent)), problem), dict(agent.named_parameters())
    )
    assert_equal(estimated, exact, 1e-8)


def test_a_biased_estimator_would_be_caught():
    class ReadsTheFuture(ESTIMATORS["stop_now"]):
        """A baseline that knows the presence of its own step."""

        def forward(self, problem, generator=None):
            n = problem.sample(generator)
            advantage = problem.log_q.detach() * problem.went_on(n).any()
            return super().forward(scripted(problem, int(n[0]))) + (advantage * problem.log_q).sum(1)

    problem, leaves = linked_problem()
    exact = gradients(-objective(problem).sum(), leaves)
    biased = gradients(expected_loss(ReadsTheFuture(CONTEXT), problem), leaves)
    assert (biased["presence"] - exact["presence"]).abs().max() > 1e-3


@pytest.mark.parametrize("probabilities", [EARLY, LATE, STUCK, (0.3,), (0.1, 0.9)])
@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_in_the_logits_is_the_hand_derived_formula(name, probabilities):
    problem = problem_of(probabilities, RETURNS[: len(probabilities) + 1])
    p = torch.tensor([probabilities], dtype=torch.float64)
    reached = torch.cat([torch.ones(1, 1).double(), p.cumprod(1)[:, :-1]], 1)
    stop = torch.tensor([RETURNS[: len(probabilities)]], dtype=torch.float64)
    by_hand = reached * p * (1 - p) * (values_of_going_on(problem) - stop)
    loss = expected_loss(make_randomised(name, 1), problem)
    assert_equal(-torch.autograd.grad(loss, problem.logits)[0], by_hand, 1e-8)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_constant_return_has_no_gradient_on_average(name):
    problem = problem_of((0.9, 0.3, 0.6), (500.0,) * 4)
    loss = expected_loss(make_randomised(name, 1), problem)
    assert_equal(torch.autograd.grad(loss, problem.logits)[0], torch.zeros(1, 3, dtype=torch.float64), 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [15.0, 40.0, 200.0])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_saturated_logits_give_finite_losses_and_gradients(name, logit, dtype):
    logits = logit * torch.tensor(list(product([-1, 1], repeat=3)), dtype=dtype)
    scores = (300 * normal(8, 4)).to(dtype).requires_grad_()
    problem = StopProblem(logits.requires_grad_(), scores, normal(4).to(dtype), normal(8, 3, CONTEXT).to(dtype))
    estimator = make_randomised(name).to(dtype)
    parameters = [logits, scores, *estimator.parameters()]
    for n in range(4):
        loss = estimator(scripted(problem, *[n] * 10))
        assert loss.isfinite().all()
        for gradient in torch.autograd.grad(loss.sum(), parameters, retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("n", range(NUM_STEPS + 1))
@pytest.mark.parametrize("name", PREFIX)
def test_scores_beyond_the_prefix_are_not_read(name, n):
    problem, leaves = linked_problem()
    known = torch.arange(NUM_STEPS + 1) <= n
    blind = replace(problem, scores=torch.where(known, problem.scores, math.nan))
    estimator = make_randomised(name)
    leaves |= dict(estimator.named_parameters())
    losses = [estimator(scripted(p, *[n] * 10)) for p in (problem, blind)]
    assert_equal(losses[1], losses[0])
    assert_equal(gradients(losses[1].sum(), leaves), gradients(losses[0].sum(), leaves), 1e-12)


@pytest.mark.parametrize("name", UNBIASED)
def test_a_batch_is_many_problems_of_one_image(name):
    problem, _ = linked_problem(batch=3)
    estimator = make_randomised(name)
    for n in range(NUM_STEPS + 1):
        whole = estimator(scripted(problem, *[n] * 10))
        for row in range(3):
            one = StopProblem(*(part[row : row + 1] for part in (problem.logits, problem.scores)), problem.log_p_stop,
                              problem.context[row : row + 1])  # fmt: skip
            assert_equal(estimator(scripted(one, *[n] * 10)), whole[row : row + 1], 1e-9)


@pytest.mark.parametrize("probabilities", [EARLY, LATE, STUCK])
def test_no_baseline_adds_less_variance_than_a_perfect_half_critic(probabilities):
    added = {name: added_variance(name, probabilities) for name in ("half_critic", "stop_now", "nvil", "reinforce")}
    assert min(added.values()) >= added["half_critic"] * (1 - 1e-9)
    assert added["stop_now"] < added["reinforce"]
    assert added_variance("exact", probabilities) == 0


def test_in_a_trained_model_stop_now_and_half_critic_add_next_to_no_variance():
    added = {name: added_variance(name, LATE) for name in ("half_critic", "stop_now", "nvil", "reinforce")}
    exact = torch.autograd.grad(objective(problem := problem_of(LATE)).sum(), problem.logits)[0]
    assert added["half_critic"] < added["stop_now"] < 0.1 * exact.square().sum()
    assert added["half_critic"] < 1e-3 * min(added["nvil"], added["reinforce"])
    assert added["stop_now"] < 1e-2 * min(added["nvil"], added["reinforce"])


def test_half_critic_adds_no_variance_at_the_last_decision():
    # With one step, both branches have the gradient p (1 - p) (V - S).
    estimator, problem = with_perfect_critic("half_critic", problem_of((0.3,), RETURNS[:2]))
    by_hand = 0.3 * 0.7 * (RETURNS[1] - RETURNS[0])
    for n in (0, 1):
        loss = estimator(scripted(problem, *[n] * 10))
        gradient = torch.autograd.grad(loss.sum(), problem.logits, retain_graph=True)[0]
        assert -gradient.item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", LEARNED)
def test_baselines_learn_from_their_regression_loss_alone(name):
    problem, _ = linked_problem()
    estimator = make_randomised(name)
    output = getattr(estimator, LEARNED[name])(problem.context) * RETURN_SCALE
    q = count_probabilities(problem.logits)
    returns = (problem.scores - q.log()).detach()
    steps = torch.arange(NUM_STEPS)
    for n in range(NUM_STEPS + 1):
        if name == "nvil":
            # Reward-to-go of the steps i <= n + 1.
            targets, decided = returns[:, n : n + 1] - problem.returns_so_far(), steps <= n
        else:
            # What going on gained over stopping, in the steps i <= n.
            targets, decided = returns[:, n : n + 1] - returns[:, :-1], steps < n
        regression = (((output - targets) / RETURN_SCALE).square() * decided).sum()
        parameters = dict(estimator.named_parameters())
        actual = gradients(estimator(scripted(problem, *[n] * 10)).sum(), parameters)
        assert_equal(actual, gradients(regression, parameters), 1e-8)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("probabilities", [EARLY, LATE])
def test_the_regression_of_a_baseline_ends_at_the_best_one(name, probabilities):
    estimator, problem = with_perfect_critic(name, problem_of(probabilities))
    context = problem.context.requires_grad_()
    loss = expected_loss(estimator, replace(problem, context=context))
    assert_equal(torch.autograd.grad(loss, context)[0], torch.zeros_like(context), 1e-9)


@pytest.mark.parametrize("name", ["nvil", "stop_now", "half_critic"])
def test_a_constant_of_the_image_changes_neither_gradient_nor_regression(name):
    # The constant log p(x | c_0) is hundreds of nats, and none of the agent's doing.
    problem, leaves = linked_problem()
    estimator = make_randomised(name)
    leaves = {"where": leaves["where"], "presence": leaves["presence"], **dict(estimator.named_parameters())}
    shifted = replace(problem, scores=problem.scores + 1000)
    for n in range(NUM_STEPS + 1):
        first, second = (gradients(estimator(scripted(p, *[n] * 10)).sum(), leaves) for p in (problem, shifted))
        assert_equal(second, first, 1e-8)


@pytest.mark.parametrize("name", ["nvil", "stop_now", "half_critic"])
def test_rewards_before_a_decision_do_not_change_its_gradient(name):
    problem = problem_of((0.6, 0.4, 0.7))
    paid_at_first_object = 1000 * (torch.arange(4) >= 1)
    later = replace(problem, scores=problem.scores + paid_at_first_object)
    estimator = make_randomised(name, 1)
    for n in range(1, 4):
        losses = [estimator(scripted(p, *[n] * 10)).sum() for p in (problem, later)]
        first, second = (torch.autograd.grad(loss, problem.logits)[0] for loss in losses)
        assert_equal(second[:, 1:], first[:, 1:], 1e-8)
        assert abs(second[0, 0] - first[0, 0]) > 1


def test_the_rewards_so_far_are_those_of_the_steps_before():
    problem, _ = linked_problem()
    log_p = problem.logits.sigmoid().log()
    for i in range(NUM_STEPS):
        # A_i without the prior of stopping there, and without the choices to go on.
        by_hand = problem.scores[:, i] - problem.log_p_stop[i] - log_p[:, :i].sum(1)
        assert_equal(problem.returns_so_far()[:, i], by_hand.detach(), 1e-9)


def test_the_posterior_of_the_count_sums_to_one_and_follows_its_definition():
    problem, _ = linked_problem(batch=20)
    assert_equal(problem.log_q.exp().sum(1), torch.ones(20, dtype=torch.float64), 1e-12)
    assert_equal(problem.log_q.exp(), count_probabilities(problem.logits), 1e-12)
    saturated = replace(problem, logits=problem.logits * 1e3)
    assert_equal(saturated.log_q.exp().sum(1), torch.ones(20, dtype=torch.float64), 1e-12)


def test_the_elbo_of_a_path_is_its_definition():
    problem, _ = linked_problem(batch=20)
    assert_equal(problem.elbo(), objective(problem), 1e-9)
    assert_equal(make_estimator("exact", CONTEXT)(problem), -objective(problem), 1e-9)


def test_sampled_counts_follow_the_posterior_and_the_generator_alone():
    logits = torch.tensor([[0.5, -0.5, 1.0]], dtype=torch.float64).expand(8000, 3)
    problem = StopProblem(logits, torch.zeros(8000, 4).double(), torch.zeros(4).double(), torch.zeros(8000, 3, 1))
    counts = problem.sample(generator())
    for n, probability in enumerate(count_probabilities(logits[:1])[0].tolist()):
        assert abs(z_score((counts == n).double(), probability)) < 4
    torch.manual_seed(5)
    assert_equal(problem.sample(generator()), counts)


def test_decisions_of_an_episode_are_those_up_to_the_stop():
    problem, _ = linked_problem(batch=4)
    n = torch.arange(4)
    assert problem.reached(n).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert problem.went_on(n).int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_declares_what_it_needs_and_draws_from_the_generator_alone(name):
    assert ESTIMATORS[name].needs in ("all", "prefix")
    assert isinstance(ESTIMATORS[name].unbiased, bool)
    problem, _ = linked_problem()
    estimator = make_randomised(name)
    torch.manual_seed(0)
    first = estimator(problem, generator(3))
    torch.manual_seed(1)
    assert_equal(estimator(problem, generator(3)), first)


def test_an_unknown_estimator_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=f"'nvill' is unknown; choose one of {', '.join(ESTIMATORS)}"):
        make_estimator("nvill", CONTEXT)


def test_vargrad_has_the_gradient_of_rloo():
    problem, leaves = linked_problem()
    for counts in [(0, 1, 2, 3), (2, 2, 0, 1), (3, 3, 3, 3)]:
        rloo, vargrad = (gradients(make_randomised(name)(scripted(problem, *counts)).sum(), leaves)
                         for name in ("rloo", "vargrad"))  # fmt: skip
        assert_equal(vargrad, rloo, 1e-9)


def test_the_moving_average_is_that_of_earlier_batches():
    estimator = make_randomised("moving_average").train()
    problem = problem_of((0.5, 0.5, 0.5))
    seen, expected = [], 0.0
    for n in (0, 3, 2):
        before = deepcopy(estimator)
        loss = estimator(scripted(problem, n))
        baseline = sum(0.95**k * value for k, value in enumerate(reversed(seen)))
        expected = 0.0 if not seen else baseline / sum(0.95**k for k in range(len(seen)))
        by_hand = -problem.at(torch.tensor([n])) - (RETURNS[n] - expected) * problem.log_q[:, n]
        assert_equal(loss, by_hand, 1e-4)
        assert_equal(before.eval()(scripted(problem, n)), loss, 1e-9)
        seen.append(RETURNS[n])


def test_a_balanced_trajectory_has_no_gradient():
    problem = problem_of((0.9, 0.3, 0.6), (77.0,) * 4)
    estimator = make_estimator("trajectory_balance", 1).double()
    nn.init.constant_(estimator.log_z[-2].bias, 0.77)
    for n in range(4):
        loss = estimator(scripted(problem, n))
        assert_equal(torch.autograd.grad(loss, problem.logits)[0], torch.zeros(1, 3, dtype=torch.float64), 1e-8)


def test_exact_wake_moves_q_towards_the_posterior_over_n():
    problem = problem_of((0.5, 0.5, 0.5), (10.0, 11.0, 12.0, 13.0))
    (gradient,) = torch.autograd.grad(make_randomised("exact_wake")(problem).sum(), problem.logits)
    posterior, q = problem.scores.softmax(1)[0], problem.log_q.exp()[0]
    # d KL(posterior || q) / d logit_i = P_q(go on at i) P(n >= i - 1) - P(n >= i), under the posterior.
    reached = posterior.flip(0).cumsum(0).flip(0)
    assert_equal(gradient[0], 0.5 * reached[:-1] - reached[1:], 1e-12)
    assert not torch.allclose(posterior, q)
