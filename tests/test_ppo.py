"""Proximal policy optimisation: rewards and advantages against the environment's, both passes by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny import (
    NUM_STEPS,
    RECIPE,
    assert_equal,
    count_probabilities,
    float64,
    make_agent,
    make_envs,
    make_images,
    make_scenes,
    normal,
)
from torch import Tensor, nn

from air_agents.estimators import StopProblem
from air_agents.estimators.base import RETURN_SCALE
from air_agents.estimators.enumeration import expected_loss, scripted
from air_agents.estimators.ppo import PPO
from air_agents.inference.rollout import Rollout, context_dim, unstopped_rollout
from air_agents.training.trainer import Trainer


def make_ppo(features: int, *, training: bool = False) -> PPO:
    """In float64, with a critic that has an opinion."""
    with float64(1):
        estimator = PPO(features)
        for parameter in estimator.parameters():
            nn.init.normal_(parameter, std=0.3)
    return estimator.train(training)


def roll_out(num_images: int = 3) -> Rollout:
    agent, images = make_agent(), make_images(num_images)
    return unstopped_rollout(agent, make_envs(agent, images), normal(num_images, NUM_STEPS, agent.latent_dim))


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def one_step(probability: float, gain: float = 10.0, stop: float = 0.8) -> StopProblem:
    """One decision on one image.

    Taken with probability 1/2, going on pays the gain, and stopping the log of twice the prior's probability.
    """
    logits = torch.tensor([[probability]], dtype=torch.float64).logit().requires_grad_()
    log_p_count = torch.tensor([stop, 1 - stop], dtype=torch.float64).log()
    scores = torch.tensor([[math.log(stop), gain - math.log(2)]], dtype=torch.float64)
    return StopProblem(logits, scores, log_p_count, torch.zeros(1, 1, 1, dtype=torch.float64))


def rewards_of(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """What the environment pays for going on at each step, and for stopping there, less log q."""
    problem = rollout.problem(analytic_kl=False)
    latents = rollout.where.log_prob(rollout.z.z_where) + rollout.what.log_prob(rollout.z.z_what)
    p = problem.logits.sigmoid()
    return rollout.rewards.total - latents - p.log(), rollout.agent.model.log_p_stop[:-1] - (1 - p).log()


@pytest.mark.parametrize("lambda_", [0.95, 0.0, 1.0])
@pytest.mark.parametrize("n", range(NUM_STEPS + 1))
def test_the_first_pass_is_the_policy_gradient_with_generalised_advantages(n, lambda_):
    rollout = roll_out()
    problem, estimator = rollout.problem(analytic_kl=False), make_ppo(context_dim(rollout.agent))
    estimator.lambda_ = lambda_
    go, stop = rewards_of(rollout)
    expected = RETURN_SCALE * estimator.critic(problem.context).detach()
    by_hand, advantage = -problem.at(torch.full((3,), n)), torch.zeros(())
    for i in reversed(range(min(n + 1, NUM_STEPS))):
        reward = go[:, i] if i < n else stop[:, i]
        later = expected[:, i + 1] if i < n and i + 1 < NUM_STEPS else 0.0
        advantage = (reward + later - expected[:, i] + lambda_ * advantage).detach()
        p = problem.logits[:, i].sigmoid()
        by_hand = by_hand - advantage * (p if i < n else 1 - p).log()
    leaves = dict(rollout.agent.named_parameters())
    assert_equal(gradients(estimator(scripted(problem, (n,))), leaves), gradients(by_hand, leaves), 1e-8)


@pytest.mark.parametrize("n", range(NUM_STEPS + 1))
def test_the_critic_learns_what_is_still_to_come(n):
    rollout = roll_out()
    problem, estimator = rollout.problem(analytic_kl=False), make_ppo(context_dim(rollout.agent))
    go, stop = rewards_of(rollout)
    output, regression = estimator.critic(problem.context), torch.zeros(())
    for i in range(min(n + 1, NUM_STEPS)):
        to_go = go[:, i:n].sum(1) + (stop[:, n] if n < NUM_STEPS else 0.0)
        regression = regression + (output[:, i] - to_go.detach() / RETURN_SCALE).square()
    leaves = dict(estimator.named_parameters())
    assert_equal(gradients(estimator(scripted(problem, (n,))), leaves), gradients(regression, leaves), 1e-8)


def test_with_lambda_1_the_expected_gradient_is_that_of_the_elbo_whatever_the_critic():
    rollout = roll_out()
    problem, estimator = rollout.problem(), make_ppo(context_dim(rollout.agent))
    leaves = dict(rollout.agent.named_parameters())
    q = count_probabilities(problem.logits)
    exact = gradients(-(q * (problem.scores - q.log())).sum(1), leaves)
    biased = gradients(expected_loss(estimator, problem), leaves)
    assert (biased["presence.weight"] - exact["presence.weight"]).abs().max() > 1e-3
    estimator.lambda_ = 1.0
    assert_equal(gradients(expected_loss(estimator, problem), leaves), exact, 1e-8)


def test_a_perfect_critic_has_no_bias_at_any_lambda():
    # V_i - U_i: what is to come from step i on, on average.
    problem = roll_out().problem()
    q = count_probabilities(problem.logits).detach()
    returns = problem.scores.detach() - q.log()
    value = torch.stack([(q * returns)[:, i:].sum(1) / q[:, i:].sum(1) for i in range(NUM_STEPS)], 1)
    problem = replace(problem, context=(value - problem.returns_so_far())[..., None] / RETURN_SCALE)
    estimator = make_ppo(1)
    estimator.critic = nn.Flatten(-2)
    leaves = {"logits": problem.logits}
    exact = gradients(-(count_probabilities(problem.logits) * (returns - problem.log_q + q.log())).sum(1), leaves)
    for lambda_ in (0.0, 0.95):
        estimator.lambda_ = lambda_
        assert_equal(gradients(expected_loss(estimator, problem), leaves), exact, 1e-7)


LIKELY, UNLIKELY = {"stop": 0.8}, {"stop": 0.2}


@pytest.mark.parametrize(
    ("n", "options", "new", "advantage", "surrogate", "slope"),
    [
        # The old probability is 1/2. d ratio / d logit = ratio (1 - p) where it goes on, -ratio p where it stops.
        (1, {"gain": 10.0}, 0.55, 10.0, 1.1 * 10, 1.1 * 0.45 * 10),  # within the clip
        (1, {"gain": 10.0}, 0.75, 10.0, 1.2 * 10, 0.0),  # gained enough
        (1, {"gain": 10.0}, 0.25, 10.0, 0.5 * 10, 0.5 * 0.75 * 10),  # lost: won back
        (1, {"gain": -10.0}, 0.75, -10.0, -1.5 * 10, -1.5 * 0.25 * 10),  # a bad choice, more probable
        (1, {"gain": -10.0}, 0.25, -10.0, -0.8 * 10, 0.0),  # less probable: enough
        (0, LIKELY, 0.25, math.log(1.6), 1.2 * math.log(1.6), 0.0),
        (0, LIKELY, 0.75, math.log(1.6), 0.5 * math.log(1.6), -0.5 * 0.75 * math.log(1.6)),
        (0, UNLIKELY, 0.25, math.log(0.4), 1.5 * math.log(0.4), -1.5 * 0.25 * math.log(0.4)),
        (0, UNLIKELY, 0.75, math.log(0.4), 0.8 * math.log(0.4), 0.0),
    ],
)
def test_the_second_pass_is_clipped(n, options, new, advantage, surrogate, slope):
    estimator = PPO(1).double()  # a new critic expects nothing
    first, second = one_step(0.5, **options), one_step(new, **options)
    loss = estimator(scripted(first, (n,)))
    by_hand = -first.scores[0, n].item() + (advantage / RETURN_SCALE) ** 2
    assert loss.item() == pytest.approx(by_hand - advantage, rel=1e-12)
    loss = estimator(scripted(second))  # without a draw
    assert loss.item() == pytest.approx(by_hand - surrogate, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), second.logits)
    assert gradient.item() == pytest.approx(-slope, rel=1e-12)


def test_the_third_pass_is_a_first_one_again():
    estimator, problem = PPO(1).double(), one_step(0.5)
    for n in (1, 0):
        first = estimator(scripted(problem, (n,)))
        assert_equal(first, PPO(1).double()(scripted(problem, (n,))))
        # The same numbers again, without a draw.
        assert_equal(estimator(scripted(problem)), first)


def test_without_training_every_pass_is_a_first_one():
    estimator, problem = make_ppo(1, training=True), one_step(0.5)
    first, eval_first = estimator(scripted(problem, (1,))), estimator.eval()(scripted(problem, (0,)))
    assert (first != eval_first).all()
    assert_equal(estimator(scripted(problem, (0,))), eval_first)
    # Nor does it disturb the training between its passes.
    assert_equal(estimator.train()(scripted(problem)), first)


def test_the_second_pass_learns_the_pathwise_gradient_of_its_own_latents():
    estimator = make_ppo(context_dim(make_agent()), training=True)
    rollout = roll_out()
    problem, n = rollout.problem(), torch.tensor([2, 2, 2])
    estimator(scripted(problem, (2,)))
    leaves = {"scores": problem.scores}
    assert_equal(gradients(estimator(scripted(problem)), leaves), gradients(-problem.at(n), leaves))


def both_passes(estimator: PPO, first: StopProblem, second: StopProblem, n: Tensor) -> list[Tensor]:
    script = tuple(n.tolist())
    # The script is for one image: each row is one.
    losses = []
    for row, count in enumerate(script):
        parts = [
            replace(p, logits=p.logits[row : row + 1], scores=p.scores[row : row + 1], context=p.context[row : row + 1])
            for p in (first, second)
        ]
        losses += [estimator(scripted(parts[0], (count,))), estimator(scripted(parts[1]))]
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("old", "new"), [(15.0, 15.0), (40.0, -40.0), (200.0, 200.0), (200.0, -200.0)])
def test_saturated_logits_give_finite_losses_and_gradients(old, new, dtype):
    signs = torch.tensor(list(product([-1, 1], repeat=3)), dtype=dtype)
    logits, moved = ((scale * signs).requires_grad_() for scale in (old, new))
    scores = (300 * normal(8, 4)).to(dtype).requires_grad_()
    estimator = make_ppo(2, training=True).to(dtype)
    first, second = (
        StopProblem(each, scores, normal(4).log_softmax(0).to(dtype), normal(8, 3, 2).to(dtype))
        for each in (logits, moved)
    )
    leaves = {"logits": logits, "moved": moved, "scores": scores, **dict(estimator.named_parameters())}
    for n in range(4):
        for loss in both_passes(estimator, first, second, torch.full((8,), n)):
            assert loss.dtype == dtype
            assert loss.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in gradients(loss, leaves).values())


def test_neither_pass_reads_scores_beyond_the_count():
    logits, scores = normal(4, 3).requires_grad_(), normal(4, 4, seed=1).requires_grad_()
    n = torch.arange(4)
    blind = torch.where(torch.arange(4) <= n[:, None], scores, math.nan)
    first, second = (
        StopProblem(logits, part, normal(4).log_softmax(0), normal(4, 3, 2, seed=2)) for part in (scores, blind)
    )
    found = []
    for problem in (first, second):
        estimator = make_ppo(2, training=True)
        moved = replace(problem, logits=problem.logits + 0.3)
        leaves = {"logits": logits, "scores": scores, **dict(estimator.named_parameters())}
        losses = both_passes(estimator, problem, moved, n)
        found.append([(loss, gradients(loss, leaves)) for loss in losses])
        assert all(loss.isfinite().all() for loss in losses)
    assert_equal(found[1], found[0])


def test_the_loss_follows_the_problem_to_its_device_and_reads_no_value():
    # Tensors without values: any that comes from another device, or is looked into, is an error.
    shapes = {"logits": (2, 3), "scores": (2, 4), "log_p_count": (4,), "context": (2, 3, 5), "log_q_what": (2, 3)}
    problem = StopProblem(**{name: torch.zeros(shape, device="meta") for name, shape in shapes.items()})
    estimator = PPO(5).to("meta")
    for loss in (estimator(problem), estimator(problem)):
        assert (loss.device.type, loss.dtype, loss.shape) == ("meta", torch.float32, (2,))


def trained(trainer: Trainer, iterations: int) -> Trainer:
    for _ in range(iterations):
        assert trainer.step().isfinite()
    return trainer


@pytest.fixture
def make_trainer() -> Callable[[], Trainer]:
    return lambda: Trainer(replace(RECIPE, estimator="ppo"), make_scenes(RECIPE.num_train, "train"))


def test_the_trainer_learns_twice_from_every_batch(make_trainer):
    trainer, seen = make_trainer(), []
    trainer.estimator.register_forward_hook(lambda module, inputs, loss: seen.append((inputs[0], loss)))
    before = {key: value.clone() for key, value in trainer.agent.state_dict().items()}
    trained(trainer, 3)
    assert len(seen) == 6
    assert all(loss.isfinite().all() for _, loss in seen)
    assert all(state["step"] == 6 for state in trainer.optimizer.state.values())
    for key, value in trainer.agent.state_dict().items():
        assert (value != before[key]).any(), key
    for (first, _), (second, _) in zip(seen[::2], seen[1::2], strict=True):
        # The same images, seen by another network.
        assert_equal(second.scores[:, 0], first.scores[:, 0])
        assert (second.scores[:, -1] != first.scores[:, -1]).all()


def test_what_is_kept_between_passes_is_no_part_of_the_state(make_trainer):
    whole, first, second = trained(make_trainer(), 6), trained(make_trainer(), 3), make_trainer()
    assert set(first.estimator.state_dict()) == {name for name, _ in first.estimator.named_parameters()}
    second.load_state_dict(first.state_dict())
    assert_equal(trained(second, 3).state_dict(), whole.state_dict())
