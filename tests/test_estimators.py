"""Gradient estimators against enumeration: every registered one passes the same gate.

The reference is the objective ``sum_n q(n) (A_n - log q(n))``, written out below and differentiated. An estimator is
enumerated over all the counts it can draw, so that its expected gradient is known without Monte Carlo.
"""

from copy import deepcopy
from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny import (
    NUM_STEPS,
    assert_equal,
    count_probabilities,
    generator,
    in_turn,
    make_agent,
    make_images,
    normal,
    roll_out,
    z_score,
)
from torch import Tensor, nn

from air_agents.estimators import ESTIMATORS, Estimator, StopProblem, make_estimator
from air_agents.estimators.base import RETURN_SCALE
from air_agents.estimators.enumeration import NotEnumerable, expected_loss, outcomes, scripted
from air_agents.estimators.testing import check_estimator, randomised, toy_problem
from air_agents.inference.rollout import context_dim

CONTEXT = 4
LEARNED = {"nvil": "baseline", "half_critic": "gain"}
EARLY, LATE, STUCK = (0.5, 0.5, 0.5), (0.98, 0.95, 0.05), (0.99, 0.99, 0.99)
RETURNS = (-700.0, -260.0, 110.0, 95.0)
COMPARED = ("half_critic", "stop_now", "nvil", "reinforce", "reinforce_whole_return")


def loss_at(estimator: Estimator, problem: StopProblem, *counts: int) -> Tensor:
    """The loss if these counts are drawn, one after the other and the last one again and again."""
    return estimator(scripted(problem, *((n,) for n in counts), *[(counts[-1],)] * 10))


def objective(problem: StopProblem) -> Tensor:
    """The ELBO of each path, from its definition."""
    q = count_probabilities(problem.logits)
    return (q * (problem.scores - q.log())).sum(1)


def problem_of(probabilities: tuple[float, ...], returns: tuple[float, ...] = RETURNS) -> StopProblem:
    """A problem of one image with given ``p_i`` and ``L_n``; the logits are a leaf."""
    logits = torch.tensor([probabilities], dtype=torch.float64).logit().requires_grad_()
    log_q = count_probabilities(logits).detach().log()
    scores = torch.tensor([returns], dtype=torch.float64) + log_q
    log_p_count = normal(len(returns), seed=1).log_softmax(0)
    context = torch.zeros(1, len(probabilities), 1, dtype=torch.float64)
    return with_linear_objects(StopProblem(logits, scores, log_p_count, context))


def with_linear_objects(problem: StopProblem) -> StopProblem:
    """The problem, with half objects worth half of whole ones."""
    gains = problem.scores - problem.log_p_count

    def relaxed(extents: Tensor) -> Tensor:
        return gains[:, 0] + (extents * gains.diff(dim=1)).sum(1)

    return replace(problem, relaxed=relaxed)


def randomised_estimator(name: str, features: int = CONTEXT) -> Estimator:
    return randomised(ESTIMATORS[name], features)


def linked_problem(batch: int = 2) -> tuple[StopProblem, dict[str, Tensor]]:
    toy = toy_problem(batch)
    return toy.problem, toy.leaves


def draws_counts(name: str) -> bool:
    """Whether what it draws can be enumerated, on one path."""
    try:
        return (
            ESTIMATORS[name].num_particles == 1
            and len(list(outcomes(randomised_estimator(name, 1), problem_of(EARLY)))) > 0
        )
    except NotEnumerable:
        return False


def values_of_going_on(problem: StopProblem) -> Tensor:
    """``V_i = E[L_n | n >= i]``, ``[batch, N]``."""
    q = count_probabilities(problem.logits).detach()
    mass = q * (problem.scores.detach() - q.log())
    return torch.stack([mass[:, i:].sum(1) / q[:, i:].sum(1) for i in range(1, q.shape[1])], 1)


def with_perfect_critic(name: str, problem: StopProblem) -> tuple[Estimator, StopProblem]:
    """An estimator whose network hands through what the context tells it: the best baseline there is."""
    estimator = randomised_estimator(name, 1)
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
    weights, losses = zip(*((d.probability, d.loss) for d in outcomes(estimator, problem)), strict=True)
    gradients = torch.stack([torch.autograd.grad(loss.sum(), problem.logits, retain_graph=True)[0] for loss in losses])
    weight = torch.stack(weights)[..., None]
    return (weight * (gradients - (weight * gradients).sum(0)).square()).sum().item()


def gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


ENUMERABLE = [name for name in ESTIMATORS if draws_counts(name)]
UNBIASED = [name for name in ENUMERABLE if ESTIMATORS[name].unbiased]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_registered_estimator_passes_the_gate(name):
    check_estimator(ESTIMATORS[name])


@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_is_the_exact_one_on_an_enumerable_problem(name):
    problem, leaves = linked_problem()
    exact = gradients(-objective(problem).sum(), leaves)
    assert all((gradient.abs() > 1e-3).all() for gradient in exact.values())
    assert_equal(gradients(expected_loss(randomised_estimator(name), problem).sum(), leaves), exact, 1e-8)


@pytest.mark.parametrize("analytic_kl", [True, False])
@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_is_the_exact_one_on_an_agents_rollout(name, analytic_kl):
    agent = make_agent()
    problem = roll_out(agent, make_images(3)).problem(analytic_kl=analytic_kl)
    exact = gradients(-objective(problem).sum(), dict(agent.named_parameters()))
    for part in ("embed", "core", "presence", "where", "encoder", "what", "model.renderer"):
        assert any(g.abs().max() > 1e-3 for parameter, g in exact.items() if parameter.startswith(part)), part
    estimated = gradients(
        expected_loss(randomised_estimator(name, context_dim(agent)), problem).sum(), dict(agent.named_parameters())
    )
    assert_equal(estimated, exact, 1e-8)


@pytest.mark.parametrize("name", UNBIASED)
@in_turn("probabilities", [(EARLY,), (LATE,), (STUCK,), ((0.3,),), ((0.1, 0.9),)])
def test_the_expected_gradient_in_the_logits_is_the_hand_derived_formula(name, probabilities):
    problem = problem_of(probabilities, RETURNS[: len(probabilities) + 1])
    p = torch.tensor([probabilities], dtype=torch.float64)
    reached = torch.cat([torch.ones(1, 1).double(), p.cumprod(1)[:, :-1]], 1)
    stop = torch.tensor([RETURNS[: len(probabilities)]], dtype=torch.float64)
    by_hand = reached * p * (1 - p) * (values_of_going_on(problem) - stop)
    loss = expected_loss(randomised_estimator(name, 1), problem)
    assert_equal(-torch.autograd.grad(loss, problem.logits)[0], by_hand, 1e-8)


@pytest.mark.parametrize("name", [*UNBIASED, "exact_wake"])
def test_a_constant_return_has_no_gradient_on_average(name):
    problem = problem_of((0.9, 0.3, 0.6), (500.0,) * 4)
    loss = expected_loss(randomised_estimator(name, 1), problem)
    assert_equal(torch.autograd.grad(loss, problem.logits)[0], torch.zeros(1, 3, dtype=torch.float64), 1e-8)


@pytest.mark.parametrize("name", ESTIMATORS)
@in_turn("logit dtype", product((15.0, 40.0, 200.0), (torch.float32, torch.float64)))
def test_saturated_logits_give_finite_losses_and_gradients(name, logit, dtype):
    estimator = randomised_estimator(name).to(dtype)
    particles = estimator.num_particles
    signs = torch.tensor(list(product([-1, 1], repeat=3)), dtype=dtype).repeat_interleave(particles, 0)
    logits = (logit * signs).requires_grad_()
    scores = (300 * normal(len(signs), 4)).to(dtype).requires_grad_()
    log_p_count, context = normal(4).log_softmax(0).to(dtype), normal(len(signs), 3, CONTEXT).to(dtype)
    parameters = [logits, scores, *estimator.parameters()]
    for seed in range(5):
        problem = with_linear_objects(StopProblem(logits, scores, log_p_count, context, num_particles=particles))
        log_q_latents = normal(len(signs), 4).to(dtype)
        problem = replace(problem, log_q_latents=log_q_latents, dream=lambda _: logits[::particles].sum(1))
        loss = estimator(problem, generator(seed))
        assert loss.dtype == dtype
        assert loss.isfinite().all()
        for gradient in torch.autograd.grad(loss.sum(), parameters, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("name", ENUMERABLE)
def test_a_batch_is_many_problems_of_one_image(name):
    problem = with_linear_objects(linked_problem(batch=3)[0])
    estimator = randomised_estimator(name)
    whole = list(outcomes(estimator, problem))
    for row in range(3):
        parts = (part[row : row + 1] for part in (problem.logits, problem.scores))
        one = StopProblem(*parts, problem.log_p_count, problem.context[row : row + 1])
        for drawn, alone in zip(whole, outcomes(estimator, with_linear_objects(one)), strict=True):
            assert_equal(alone.probability, drawn.probability[row : row + 1], 1e-12)
            assert_equal(alone.loss, drawn.loss[row : row + 1], 1e-9)


@pytest.mark.parametrize("probabilities", [EARLY, LATE, STUCK])
def test_no_baseline_adds_less_variance_than_a_perfect_half_critic(probabilities):
    added = {name: added_variance(name, probabilities) for name in COMPARED}
    assert min(added.values()) >= added["half_critic"] * (1 - 1e-9)
    assert added["reinforce"] < added["reinforce_whole_return"]
    assert added["stop_now"] < added["reinforce_whole_return"]
    assert added_variance("exact", probabilities) == 0


def test_in_a_trained_model_stop_now_and_half_critic_add_next_to_no_variance():
    added = {name: added_variance(name, LATE) for name in COMPARED}
    exact = torch.autograd.grad(objective(problem := problem_of(LATE)).sum(), problem.logits)[0]
    assert added["half_critic"] < added["stop_now"] < 0.1 * exact.square().sum()
    assert added["half_critic"] < 1e-3 * min(added["nvil"], added["reinforce_whole_return"])
    assert added["stop_now"] < 1e-2 * min(added["nvil"], added["reinforce_whole_return"])
    # What was paid before a decision is nearly all the noise that there is.
    assert added["reinforce"] < 1e-2 * added["reinforce_whole_return"]


def test_half_critic_adds_no_variance_at_the_last_decision():
    # With one step, both branches have the gradient p (1 - p) (V - S).
    estimator, problem = with_perfect_critic("half_critic", problem_of((0.3,), RETURNS[:2]))
    by_hand = 0.3 * 0.7 * (RETURNS[1] - RETURNS[0])
    for n in (0, 1):
        loss = loss_at(estimator, problem, n)
        gradient = torch.autograd.grad(loss.sum(), problem.logits, retain_graph=True)[0]
        assert -gradient.item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", LEARNED)
def test_baselines_learn_from_their_regression_loss_alone(name):
    problem, _ = linked_problem()
    estimator = randomised_estimator(name)
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
        actual = gradients(loss_at(estimator, problem, n).sum(), parameters)
        assert_equal(actual, gradients(regression, parameters), 1e-8)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("probabilities", [EARLY, LATE])
def test_the_regression_of_a_baseline_ends_at_the_best_one(name, probabilities):
    estimator, problem = with_perfect_critic(name, problem_of(probabilities))
    context = problem.context.requires_grad_()
    loss = expected_loss(estimator, replace(problem, context=context))
    assert_equal(torch.autograd.grad(loss, context)[0], torch.zeros_like(context), 1e-9)


SCORE_FUNCTIONS = ["reinforce", "moving_average", "nvil", "stop_now", "half_critic"]
"""All with the environment's own return."""


@pytest.mark.parametrize("name", SCORE_FUNCTIONS)
def test_a_constant_of_the_image_changes_neither_gradient_nor_regression(name):
    # The constant log p(x | c_0) is hundreds of nats, and none of the agent's doing.
    problem, leaves = linked_problem()
    estimator = randomised_estimator(name)
    leaves = {"where": leaves["where"], "presence": leaves["presence"], **dict(estimator.named_parameters())}
    shifted = replace(problem, scores=problem.scores + 1000)
    for n in range(NUM_STEPS + 1):
        first, second = (gradients(loss_at(estimator, p, n).sum(), leaves) for p in (problem, shifted))
        assert_equal(second, first, 1e-8)


@pytest.mark.parametrize("name", SCORE_FUNCTIONS)
def test_rewards_before_a_decision_do_not_change_its_gradient(name):
    problem = problem_of((0.6, 0.4, 0.7))
    paid_at_first_object = 1000 * (torch.arange(4) >= 1)
    later = replace(problem, scores=problem.scores + paid_at_first_object)
    estimator = randomised_estimator(name, 1)
    for n in range(1, 4):
        losses = [loss_at(estimator, p, n).sum() for p in (problem, later)]
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


def test_an_unknown_estimator_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=f"'nvill' is unknown; choose one of {', '.join(ESTIMATORS)}"):
        make_estimator("nvill", CONTEXT)


def test_vargrad_has_the_gradient_of_rloo():
    problem, leaves = linked_problem()
    for counts in [(0, 1, 2, 3), (2, 2, 0, 1), (3, 3, 3, 3)]:
        rloo, vargrad = (gradients(loss_at(randomised_estimator(name), problem, *counts).sum(), leaves)
                         for name in ("rloo", "vargrad"))  # fmt: skip
        assert_equal(vargrad, rloo, 1e-9)


def test_the_moving_average_is_that_of_earlier_batches():
    estimator = randomised_estimator("moving_average").train()
    problem = problem_of((0.5, 0.5, 0.5))
    seen, expected = [], 0.0
    for n in (0, 3, 2):
        before = deepcopy(estimator)
        loss = loss_at(estimator, problem, n)
        baseline = sum(0.95**k * value for k, value in enumerate(reversed(seen)))
        expected = 0.0 if not seen else baseline / sum(0.95**k for k in range(len(seen)))
        to_go = RETURNS[n] - problem.returns_so_far()[0, : n + 1]
        log_choices = [problem.log_go[0, i] if i < n else problem.log_stop[0, i] for i in range(min(n + 1, NUM_STEPS))]
        by_hand = -problem.at(torch.tensor([n])) - ((to_go - expected) * torch.stack(log_choices)).sum()
        assert_equal(loss, by_hand, 1e-4)
        assert_equal(loss_at(before.eval(), problem, n), loss, 1e-9)
        seen.append(to_go.mean())


def test_a_balanced_trajectory_has_no_gradient():
    problem = problem_of((0.9, 0.3, 0.6), (77.0,) * 4)
    estimator = make_estimator("trajectory_balance", 1).double()
    nn.init.constant_(estimator.log_z[-2].bias, 0.77)
    for n in range(4):
        loss = loss_at(estimator, problem, n)
        assert_equal(torch.autograd.grad(loss, problem.logits)[0], torch.zeros(1, 3, dtype=torch.float64), 1e-8)


def test_exact_wake_moves_q_towards_the_posterior_over_n():
    problem = problem_of((0.5, 0.5, 0.5), (10.0, 11.0, 12.0, 13.0))
    (gradient,) = torch.autograd.grad(randomised_estimator("exact_wake")(problem).sum(), problem.logits)
    posterior, q = problem.scores.softmax(1)[0], problem.log_q.exp()[0]
    # d KL(posterior || q) / d logit_i = P_q(go on at i) P(n >= i - 1) - P(n >= i), under the posterior.
    reached = posterior.flip(0).cumsum(0).flip(0)
    assert_equal(gradient[0], 0.5 * reached[:-1] - reached[1:], 1e-12)
    assert not torch.allclose(posterior, q)
