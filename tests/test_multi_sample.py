"""Estimators that weigh several paths of an image: importance-weighted bounds, wake phases, thermodynamics.

Expected gradients are enumerated over the counts of all paths, and compared with objectives written out here.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise, product

import pytest
import torch
import torch.distributions as td
from tiny import (
    AGENT,
    RECIPE,
    SIDE,
    assert_equal,
    count_probabilities,
    float64,
    generator,
    in_turn,
    make_agent,
    make_envs,
    make_images,
    make_scenes,
    normal,
    z_score,
)
from torch import Tensor, nn

from air_agents.estimators import ESTIMATORS, StopProblem, make_estimator
from air_agents.estimators.base import score_function_loss
from air_agents.estimators.enumeration import expected_loss, outcomes, scripted
from air_agents.estimators.multi_sample import leave_one_out, mean_signal
from air_agents.inference.air import AIR
from air_agents.inference.episodes import dream
from air_agents.inference.rollout import Rollout, context_dim, unstopped_rollout
from air_agents.training.trainer import Trainer
from air_env.explanation import Explanation
from air_env.model import SceneConfig
from air_env.priors import CountPrior
from air_env.renderers import SpriteConfig
from air_env.scenes import make_scene

BOUNDS = ["vimco", "ovis"]
WAKE = ["rws_wake_wake", "rws_wake_sleep", "rws_defensive"]
ALL = [*BOUNDS, *WAKE, "tvo"]
# Few nats, so that no path has all the weight.
SMOOTH = {"likelihood_scale": 2.0, "count_prior": CountPrior("geometric", 0.5)}
KINDS = 3


def make_sprite_agent() -> AIR:
    """An agent whose categories and presences depend on the image."""
    renderer = SpriteConfig(size=5)
    with float64():
        agent = AIR(SceneConfig(image_size=SIDE, num_steps=2, renderer=renderer, **SMOOTH), AGENT)
        nn.init.normal_(agent.presence.weight)
        nn.init.normal_(agent.what.linear.weight)
    return agent.eval()


def images_of(agent: AIR, num_images: int) -> Tensor:
    images, _ = agent.model.sample(num_images, generator())
    return images.clamp(0, 1)


def roll_out(agent: AIR, images: Tensor, num_particles: int, **options: bool) -> Rollout:
    noise = normal(len(images) * num_particles, agent.model.config.num_steps, agent.latent_dim)
    return unstopped_rollout(agent, make_envs(agent, images), noise, **options)


def toy(logits: Tensor, scores: Tensor, num_particles: int) -> StopProblem:
    """A problem in which there is nothing but the count."""
    context = torch.zeros(*logits.shape, 1, dtype=logits.dtype)
    log_p_count = normal(scores.shape[1], seed=9).log_softmax(0).to(logits.dtype)
    return StopProblem(
        logits,
        scores,
        log_p_count,
        context,
        num_particles=num_particles,
        log_q_latents=torch.zeros_like(scores),
        dream=lambda _: logits[::num_particles].sum(1),
    )


def random_toy(num_particles: int, num_steps: int = 3, spread: float = 1.0, seed: int = 0) -> StopProblem:
    logits = (spread * normal(num_particles, num_steps, seed=seed)).requires_grad_()
    return toy(logits, 2 * normal(num_particles, num_steps + 1, seed=seed + 100), num_particles)


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def bound(problem: StopProblem) -> Tensor:
    """``E log(1/K sum_k w_k)`` of each image, from its definition."""
    num_particles = problem.num_particles
    q = count_probabilities(problem.logits).unflatten(0, (-1, num_particles))
    log_w = problem.scores.unflatten(0, (-1, num_particles)) - q.log()
    total = torch.zeros(())
    for counts in product(range(q.shape[2]), repeat=num_particles):
        drawn = list(enumerate(counts))
        probability = torch.stack([q[:, k, n] for k, n in drawn]).prod(0)
        weights = torch.stack([log_w[:, k, n] for k, n in drawn])
        total = total + probability * (weights.logsumexp(0) - math.log(num_particles))
    return total


@pytest.mark.parametrize("num_particles", [2, 3])
@pytest.mark.parametrize("name", BOUNDS)
def test_the_expected_gradient_is_that_of_the_importance_weighted_bound(name, num_particles):
    agent = make_agent(**SMOOTH)
    problem = roll_out(agent, make_images(2), num_particles).problem(analytic_kl=False)
    leaves = dict(agent.named_parameters())
    exact = gradients(-bound(problem).sum(), leaves)
    for part in ("embed", "core", "presence", "where", "encoder", "what", "model.renderer"):
        assert any(g.abs().max() > 1e-3 for parameter, g in exact.items() if parameter.startswith(part)), part
    estimated = gradients(expected_loss(make_estimator(name, context_dim(agent)), problem).sum(), leaves)
    assert_equal(estimated, exact, 1e-8)


@pytest.mark.parametrize("name", BOUNDS)
def test_the_expected_gradient_with_sampled_categories_is_that_of_the_bound(name):
    agent = make_sprite_agent()
    every = roll_out(agent, images_of(agent, 1), 2, enumerate_categories=True).problem(analytic_kl=False)
    # Every pair of a path of the first particle and one of the second.
    sequences = KINDS**2
    rows = torch.tensor([(i, sequences + j) for i, j in product(range(sequences), repeat=2)]).flatten()
    logits, scores, context, log_q_what = (
        part[rows] for part in (every.logits, every.scores, every.context, every.log_q_what)
    )
    problem = StopProblem(logits, scores, every.log_p_count, context, log_q_what, num_particles=2)
    assert problem.samples_categories
    probability = log_q_what.sum(1).view(-1, 2).sum(1).exp()
    leaves = dict(agent.named_parameters())
    exact = gradients(-(probability * bound(problem)).sum(), leaves)
    assert exact["what.linear.weight"].abs().max() > 1e-3
    expected = expected_loss(make_estimator(name, context_dim(agent)), problem)
    assert_equal(gradients((probability.detach() * expected).sum(), leaves), exact, 1e-8)


def test_a_weight_is_replaced_by_the_geometric_mean_of_the_others():
    log_w = torch.tensor([[1.0, 2.0, 8.0], [3.0, 3.0, 3.0]], dtype=torch.float64).log()
    # sqrt(2 * 8) = 4, sqrt(1 * 8), sqrt(1 * 2)
    sums = [[4.0 + 2 + 8, 1 + 8**0.5 + 8, 1 + 2 + 2**0.5], [9.0, 9, 9]]
    assert_equal(leave_one_out(log_w), (torch.tensor(sums, dtype=torch.float64) / 3).log(), 1e-12)


def test_vimcos_learning_signal_is_what_a_path_adds_to_the_bound():
    # q = 1/2 twice; weights 1 and 3: log Z = log 2, with the other's weight for both log 3 and log 1.
    logits = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([[1.0, 5], [4, 3]], dtype=torch.float64).log() - math.log(2)
    loss = make_estimator("vimco", 1)(scripted(toy(logits, scores, 2), (0, 1)))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    # d log q(0) = -1/2, d log q(1) = 1/2; the bound itself has -v_k d log q(n_k), v = (1/4, 3/4).
    signal = torch.tensor([math.log(2 / 3) - 1 / 4, math.log(2) - 3 / 4], dtype=torch.float64)
    assert_equal(gradient[:, 0], -signal * torch.tensor([-0.5, 0.5]), 1e-12)


def test_ovis_takes_the_mean_of_the_signal_over_the_paths_own_count():
    problem = random_toy(num_particles=3, num_steps=2)
    q, log_w = count_probabilities(problem.logits), problem.scores - count_probabilities(problem.logits).log()
    for counts in product(range(3), repeat=3):
        drawn = torch.stack([log_w[k, n] for k, n in enumerate(counts)])
        by_hand = []
        for k in range(3):
            mean = torch.zeros(())
            for n in range(3):
                w = drawn.exp().index_fill(0, torch.tensor(k), log_w[k, n].exp().item())
                mean = mean + q[k, n] * (w.mean().log() - w[k] / w.sum())
            by_hand.append(mean)
        assert_equal(mean_signal(problem, drawn[None].detach())[0], torch.stack(by_hand).detach(), 1e-12)


def variance(name: str, problem: StopProblem) -> float:
    """Of the gradient in the logits, enumerated."""
    weights, found = [], []
    for drawn in outcomes(make_estimator(name, 1), problem):
        weights.append(drawn.probability)
        found.append(torch.autograd.grad(drawn.loss.sum(), problem.logits, retain_graph=True)[0])
    weight, gradient = torch.stack(weights)[..., None], torch.stack(found)
    return (weight * (gradient - (weight * gradient).sum(0)).square()).sum().item()


@pytest.mark.parametrize(
    ("num_particles", "num_steps", "seed"), [(5, 1, 0), (5, 1, 1), (5, 1, 2), (5, 2, 0), (5, 2, 1), (8, 1, 0)]
)
def test_ovis_has_less_variance_than_vimco_before_q_has_decided(num_particles, num_steps, seed):
    # Beyond that mostly, but not always: the mean of the signal is not quite the best baseline.
    problem = random_toy(num_particles, num_steps, spread=0.0, seed=seed)
    assert variance("ovis", problem) < 0.7 * variance("vimco", problem)


@pytest.mark.parametrize("n", range(4))
def test_with_one_particle_vimco_is_reinforce_and_ovis_has_the_elbo_as_baseline(n):
    problem = random_toy(num_particles=1)
    leaves = {"logits": problem.logits}
    q = count_probabilities(problem.logits).detach()
    elbo = (q * (problem.scores - q.log())).sum(1, keepdim=True).expand(1, 3)
    # The 1 is of no consequence on average: it is the derivative of -log q in the bound.
    for name, baseline in [("vimco", torch.ones(1, 3)), ("ovis", elbo)]:
        loss = make_estimator(name, 1)(scripted(problem, (n,)))
        by_hand = score_function_loss(problem, torch.tensor([n]), baseline)
        assert_equal(gradients(loss.sum(), leaves), gradients(by_hand.sum(), leaves), 1e-12)


@dataclass(frozen=True)
class Prescribed(StopProblem):
    """A problem whose counts and uniform numbers are prescribed, for each row."""

    counts: Tensor | None = None
    uniforms: Iterator[Tensor] = field(default_factory=lambda: iter(()))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        assert self.counts is not None
        return self.counts

    def uniform(self, generator: torch.Generator | None = None) -> Tensor:
        return next(self.uniforms)[:, None].expand_as(self.logits)


def prescribed(problem: StopProblem, counts: Tensor, *uniforms: Tensor) -> Prescribed:
    """Without uniform numbers, none but the counts from q."""
    if not uniforms:
        uniforms = (torch.full((len(counts),), 0.999, dtype=torch.float64),) * 2
    parts = {f.name: getattr(problem, f.name) for f in fields(StopProblem)}
    return Prescribed(**parts, counts=counts, uniforms=iter(uniforms))


def log_q_of(agent: AIR, images: Tensor, z: Explanation) -> Tensor:
    """``log q(z, n | x)``, choice by choice."""
    state, total, active = agent.initial(images), torch.zeros(()), torch.ones(len(images), dtype=torch.bool)
    for i in range(z.z_pres.shape[1]):
        state, logit, where = agent.decide(state)
        posterior = agent.describe(images, torch.zeros_like(images), z.z_where[:, i])
        what = (
            td.Categorical(logits=posterior.log_q)
            if agent.categorical
            else td.Independent(td.Normal(posterior.mean, posterior.sd), 1)
        )
        latents = td.Independent(td.Normal(where.mean, where.sd), 1).log_prob(z.z_where[:, i])
        latents = latents + what.log_prob(z.z_what[:, i])
        presence = td.Bernoulli(logits=logit).log_prob(z.z_pres[:, i])
        total = total + active * presence + z.z_pres[:, i] * latents
        active = z.z_pres[:, i] > 0
        state = agent.remember(state, z.z_where[:, i], z.z_what[:, i])
    return total


@dataclass(frozen=True)
class Wake:
    """Fixed latents and counts of several particles, scored by model and network without a rollout."""

    agent: AIR
    problem: Prescribed
    log_p: Tensor
    log_q: Tensor
    q: Tensor


@pytest.fixture(params=[lambda: make_agent(**SMOOTH), make_sprite_agent], ids=["patch", "sprites"])
def wake(request) -> Wake:
    agent = request.param()
    rollout = roll_out(agent, images_of(agent, 2), 4, reparameterised=False)
    num_steps = agent.model.config.num_steps
    n = torch.tensor([0, num_steps, 1, num_steps, num_steps, 1, 2, 0])
    z_pres = (torch.arange(num_steps) < n[:, None]).double()
    z = Explanation.of_objects(z_pres, rollout.z.z_where, rollout.z.z_what)
    log_p, log_q = agent.model.log_joint(rollout.images, z), log_q_of(agent, rollout.images, z)
    problem = rollout.problem(analytic_kl=False)
    drawn = count_probabilities(problem.logits).detach().gather(1, n[:, None])[:, 0]
    return Wake(agent, prescribed(problem, n), log_p.view(2, 4), log_q.view(2, 4), drawn.view(2, 4))


def share_of(weights: Tensor) -> Tensor:
    # No path has all the weight.
    assert (1 / weights.square().sum(1) > 1.05).all()
    return weights.detach()


def test_wake_wake_learns_model_and_network_from_the_weighted_paths(wake):
    v = share_of((wake.log_p - wake.log_q).softmax(1))
    by_hand = -(v * (wake.log_p + wake.log_q)).sum(1)
    loss = make_estimator("rws_wake_wake", 1)(wake.problem)
    assert_equal(loss, by_hand, 1e-8)
    leaves = dict(wake.agent.named_parameters())
    expected = gradients(by_hand.sum(), leaves)
    assert expected["presence.weight"].abs().max() > 1e-3
    assert_equal(gradients(loss.sum(), leaves), expected, 1e-8)


def test_the_wake_phase_of_wake_sleep_learns_the_model_alone(wake):
    problem = replace(wake.problem, dream=lambda _: torch.zeros(2, dtype=torch.float64))
    loss = make_estimator("rws_wake_sleep", 1)(problem)
    v = share_of((wake.log_p - wake.log_q).softmax(1))
    by_hand = -(v * wake.log_p).sum(1)
    assert_equal(loss, by_hand, 1e-8)
    leaves = dict(wake.agent.named_parameters())
    found = gradients(loss.sum(), leaves)
    # Sprites have nothing to learn.
    if by_hand.requires_grad:
        assert_equal(found, gradients(by_hand.sum(), leaves), 1e-8)
    for name, gradient in found.items():
        assert gradient.any() == name.startswith("model.renderer"), name


def test_the_sleep_phase_is_a_dream(wake):
    problem = wake.problem
    asleep, awake = (
        make_estimator("rws_wake_sleep", 1)(replace(problem, dream=dream), generator(3))
        for dream in (problem.dream, lambda _: torch.zeros(2, dtype=torch.float64))
    )
    assert_equal(awake - asleep, dream(wake.agent, 2, generator(3)), 1e-9)


@pytest.mark.parametrize("make", [lambda: make_agent(**SMOOTH), make_sprite_agent], ids=["patch", "sprites"])
def test_a_dream_is_the_networks_opinion_of_a_scene_of_the_model(make):
    agent = make()
    log_q = dream(agent, 50, generator(2))
    with torch.no_grad():
        images, z = agent.model.sample(50, generator(2))
    assert z.count.unique().numel() > 1
    by_hand = log_q_of(agent, images, z)
    assert_equal(log_q, by_hand, 1e-9)
    leaves = dict(agent.named_parameters())
    found = gradients(log_q.sum(), leaves)
    assert_equal(found, gradients(by_hand.sum(), leaves), 1e-8)
    assert not any(gradient.any() for name, gradient in found.items() if name.startswith("model"))


def test_without_a_model_there_are_no_dreams():
    problem = replace(random_toy(num_particles=2), dream=None)
    with pytest.raises(ValueError, match="rws_wake_sleep trains q on scenes drawn from the model, and this problem"):
        make_estimator("rws_wake_sleep", 1)(problem, generator())


@pytest.mark.parametrize("name", [*WAKE, "tvo"])
def test_reparameterised_latents_are_refused_where_fixed_ones_are_needed(name):
    problem = replace(random_toy(num_particles=2), log_q_latents=None)
    with pytest.raises(ValueError, match=r"learns from fixed latents .* reparameterised=False"):
        make_estimator(name, 1)(problem, generator())


def test_wake_weights_by_hand():
    # Weights 2 A: 2 and 6, that is 1/4 and 3/4; q = 1/2.
    logits = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([[1.0, 7], [7, 3]], dtype=torch.float64).log().requires_grad_()
    loss = make_estimator("rws_wake_wake", 1)(scripted(toy(logits, scores, 2), (0, 1)))
    assert_equal(loss, torch.tensor([-(math.log(3) * 3 / 4) + math.log(2)], dtype=torch.float64), 1e-12)
    slope, weights = torch.autograd.grad(loss.sum(), [logits, scores])
    assert_equal(weights, torch.tensor([[-0.25, 0], [0, -0.75]], dtype=torch.float64), 1e-12)
    assert_equal(slope, torch.tensor([[0.125], [-0.375]], dtype=torch.float64), 1e-12)


def test_with_more_paths_wake_wake_comes_to_fit_q_to_the_posterior():
    logit = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([0.2, 1.4], dtype=torch.float64)
    (target,) = torch.autograd.grad(-(scores.softmax(0) * count_probabilities(logit[None])[0].log()).sum(), logit)
    errors = []
    for num_particles in (2, 4, 8):
        problem = toy(logit.expand(num_particles, 1), scores.expand(num_particles, 2), num_particles)
        estimated = gradients(expected_loss(make_estimator("rws_wake_wake", 1), problem).sum(), {"logit": logit})
        errors.append((estimated["logit"] - target).abs().item())
    # The bias falls as 1 / K.
    for error, next_error in pairwise(errors):
        assert next_error / error == pytest.approx(0.5, abs=0.1)
    assert errors[-1] < 0.15 * target.abs().item()


def test_the_counts_of_defensive_are_those_of_the_mixture():
    problem = random_toy(num_particles=1, num_steps=2)
    q, share = count_probabilities(problem.logits).detach()[0], ESTIMATORS["rws_defensive"].share
    assert share == 0.2
    found = torch.zeros(3, dtype=torch.float64)
    scores = problem.scores.requires_grad_()
    # The mixture's choice, another count's, and q's own.
    for (decision, likely), pick, own in product([(0.19, 0.2), (0.21, 0.8)], range(3), range(3)):
        numbers = (torch.tensor([number], dtype=torch.float64) for number in (decision, (pick + 0.99) / 3))
        loss = make_estimator("rws_defensive", 1)(prescribed(problem, torch.tensor([own]), *numbers))
        (drawn,) = torch.autograd.grad(-loss.sum(), scores)
        found += likely / 3 * q[own] * drawn[0]
    assert_equal(found, 0.8 * q + 0.2 / 3, 1e-12)


@pytest.mark.parametrize("uniform", [False, True])
def test_the_weights_of_defensive_are_corrected_for_the_mixture(wake, uniform):
    n, num_counts = wake.problem.counts, wake.problem.scores.shape[1]
    problem = wake.problem
    if uniform:
        problem = prescribed(problem, torch.zeros_like(n), torch.full((8,), 0.1), (n + 0.5) / num_counts)
    log_mixture = wake.log_q - wake.q.log() + (0.8 * wake.q + 0.2 / num_counts).log()
    v = share_of((wake.log_p - log_mixture).softmax(1))
    by_hand = -(v * (wake.log_p + wake.log_q)).sum(1)
    loss = make_estimator("rws_defensive", 1)(problem)
    leaves = dict(wake.agent.named_parameters())
    assert_equal(loss, by_hand, 1e-8)
    assert_equal(gradients(loss.sum(), leaves), gradients(by_hand.sum(), leaves), 1e-8)


def thermodynamic_objective(logits: Tensor, scores: Tensor, points: tuple[float, ...]) -> Tensor:
    """The left Riemann sum with all counts summed out."""
    q = count_probabilities(logits)
    log_w, total = scores - q.log(), torch.zeros(())
    for b, end in pairwise((*points, 1.0)):
        pi = (q.log() + b * log_w).exp()
        total = total + (end - b) * (pi * log_w).sum(1) / pi.sum(1)
    return total


def test_the_parts_of_tvo_are_log_spaced():
    points = ESTIMATORS["tvo"].points
    assert points == pytest.approx((0, 0.01, 0.0316, 0.1, 0.316), rel=2e-3)
    # Finer parts give a tighter bound, between the ELBO and the evidence.
    logits, scores = normal(5, 3), 3 * normal(5, 4, seed=1)
    elbo, coarse, fine = (thermodynamic_objective(logits, scores, p) for p in ((0.0,), points, (*points, 0.56)))
    assert (elbo < coarse).all()
    assert (coarse < fine).all()
    assert (fine < scores.logsumexp(1)).all()


@pytest.mark.parametrize("num_particles", [2, 3])
def test_tvo_of_a_single_part_has_the_gradient_of_the_elbo(num_particles):
    problem = random_toy(num_particles)
    estimator = make_estimator("tvo", 1)
    estimator.points = (0.0,)
    scores = problem.scores.requires_grad_()
    leaves = {"logits": problem.logits, "scores": scores}
    q = count_probabilities(problem.logits)
    elbo = (q * (scores - q.log())).sum(1).mean()
    assert_equal(gradients(expected_loss(estimator, problem).sum(), leaves), gradients(-elbo, leaves), 1e-8)


def test_tvo_is_the_covariance_gradient_of_the_weighted_paths(wake):
    log_w = wake.log_p - wake.log_q
    by_hand = torch.zeros(())
    for b, end in pairwise((0.0, 0.01, 10**-1.5, 0.1, 10**-0.5, 1.0)):
        v = (b * log_w).softmax(1).detach()
        # The derivative of a softmax is a covariance: of log w with what it is tilted by.
        log_pi = b * wake.log_p + (1 - b) * wake.log_q
        tilted = (b * log_w.detach() + log_pi - log_pi.detach()).softmax(1)
        by_hand = by_hand - (end - b) * (v * log_w + 4 / 3 * tilted * log_w.detach()).sum(1)
    loss = make_estimator("tvo", 1)(wake.problem)
    leaves = dict(wake.agent.named_parameters())
    expected = gradients(by_hand.sum(), leaves)
    assert expected["presence.weight"].abs().max() > 1e-3
    assert_equal(gradients(loss.sum(), leaves), expected, 1e-8)


def test_with_many_paths_tvo_has_the_gradient_of_the_exact_objective():
    num_images, num_particles, step = 100, 2000, 1e-5
    point = {"logits": torch.tensor([0.5, -0.3, 0.8]).double(), "scores": torch.tensor([-2.0, 1.0, 2.5, 0.5]).double()}
    leaves = {name: value.repeat(num_images, 1).requires_grad_() for name, value in point.items()}
    rows = (leaf.repeat_interleave(num_particles, 0) for leaf in leaves.values())
    estimator = make_estimator("tvo", 1)
    found = gradients(estimator(toy(*rows, num_particles), generator()).sum(), leaves)
    for name, value in point.items():
        for i in range(len(value)):
            ends = []
            for sign in (1, -1):
                shifted = {**point, name: value + sign * step * torch.eye(len(value)).double()[i]}
                ends.append(thermodynamic_objective(*(part[None] for part in shifted.values()), estimator.points))
            exact = -((ends[0] - ends[1]) / (2 * step)).item()
            samples = found[name][:, i]
            assert abs(z_score(samples, exact)) < 4, (name, i)
            # Another objective would be noticed.
            assert samples.std() / num_images**0.5 < 0.02 * max(abs(exact), 0.1)


@pytest.mark.parametrize("name", ALL)
@in_turn("logit dtype", product((15.0, 40.0, 200.0), (torch.float32, torch.float64)))
def test_saturated_logits_give_finite_losses_and_gradients(name, logit, dtype):
    signs = torch.tensor(list(product([-1, 1], repeat=3)), dtype=dtype).repeat(5, 1)
    logits, scores = (logit * signs).requires_grad_(), (300 * normal(40, 4)).to(dtype).requires_grad_()
    problem, estimator = toy(logits, scores, num_particles=5), make_estimator(name, 1)
    drawn = [torch.full((40,), n) for n in range(4)] + [torch.arange(40) % 4, torch.arange(40) // 3 % 4]
    for n in drawn:
        loss = estimator(prescribed(problem, n))
        assert loss.shape == (8,)
        assert loss.dtype == dtype
        for part in (loss, *torch.autograd.grad(loss.sum(), [logits, scores], retain_graph=True)):
            assert part.isfinite().all()


@pytest.mark.parametrize("name", [name for name in ALL if ESTIMATORS[name].needs == "prefix"])
def test_no_path_is_read_beyond_its_own_count(name):
    logits, scores = normal(6, 3).requires_grad_(), normal(6, 4, seed=1).requires_grad_()
    problem, n = toy(logits, scores, num_particles=3), torch.tensor([0, 1, 2, 3, 0, 2])
    known = torch.arange(4) <= n[:, None]
    blind = replace(
        problem,
        scores=torch.where(known, scores, math.nan),
        log_q_latents=torch.where(known, problem.log_q_latents, math.nan),
    )
    losses = [make_estimator(name, 1)(prescribed(part, n)) for part in (problem, blind)]
    assert_equal(losses[1], losses[0])
    found = [gradients(loss.sum(), {"logits": logits, "scores": scores}) for loss in losses]
    assert_equal(found[1], found[0])
    assert found[1]["logits"].isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_images_do_not_mix(name):
    problem, n = random_toy(num_particles=6), torch.tensor([0, 1, 2, 3, 0, 2])
    problem = replace(problem, num_particles=3, dream=lambda _: torch.zeros(1, dtype=torch.float64))
    whole = make_estimator(name, 1)(prescribed(replace(problem, dream=lambda _: torch.zeros(2).double()), n))
    for i, rows in enumerate((slice(3), slice(3, 6))):
        parts = {part: getattr(problem, part)[rows] for part in ("logits", "scores", "context", "log_q_latents")}
        one = make_estimator(name, 1)(prescribed(replace(problem, **parts), n[rows]))
        assert_equal(one, whole[i : i + 1], 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_the_loss_follows_the_problem_to_its_device_and_reads_no_value(name):
    # Tensors without values: any that comes from another device, or is looked into, is an error.
    problem = toy(torch.zeros(6, 3), torch.zeros(6, 4), num_particles=3)
    parts = {f.name: getattr(problem, f.name) for f in fields(StopProblem)}
    moved = {name: part.to("meta") for name, part in parts.items() if isinstance(part, Tensor)}
    problem = replace(problem, **moved, log_q_what=torch.zeros(6, 3, device="meta"))
    problem = replace(problem, dream=lambda _: problem.logits[::3].sum(1))
    loss = make_estimator(name, 1)(problem)
    assert (loss.device.type, loss.dtype, loss.shape) == ("meta", torch.float32, (2,))


def sprite_trainer(name: str) -> Trainer:
    options = {"image_size": SIDE, "object_size": (4, 6)}
    scene = make_scene("sprites", **options)
    # Scenes of the model are to have objects, for those that learn from them.
    model = replace(scene.model, count_prior=SMOOTH["count_prior"])
    recipe = replace(RECIPE, scene="sprites", scene_options=options, model=model, estimator=name)
    return Trainer(recipe, scene.dataset("train", recipe.num_train, 0))


def digit_trainer(name: str) -> Trainer:
    model = replace(RECIPE.model, count_prior=SMOOTH["count_prior"])
    return Trainer(replace(RECIPE, estimator=name, model=model), make_scenes(RECIPE.num_train, "train"))


@pytest.mark.parametrize("make", [digit_trainer, sprite_trainer])
@pytest.mark.parametrize("name", ALL)
def test_the_trainer_trains_with_them(name, make: Callable[[str], Trainer]):
    trainer, losses = make(name), []
    assert trainer.estimator.num_particles == 5
    trainer.estimator.register_forward_hook(lambda module, inputs, loss: losses.append((inputs[0], loss)))
    before = {key: value.clone() for key, value in trainer.agent.state_dict().items()}
    for _ in range(3):
        assert trainer.step().isfinite()
    for problem, loss in losses:
        assert loss.shape == (trainer.recipe.batch_size,)
        assert loss.isfinite().all()
        assert len(problem.logits) == 5 * trainer.recipe.batch_size
        assert (problem.log_q_latents is None) == (name in BOUNDS)
    for key, value in trainer.agent.state_dict().items():
        assert value.isfinite().all(), key
        assert (value != before[key]).any() or not value.is_floating_point(), key


@pytest.mark.parametrize("name", ALL)
def test_several_paths_are_not_for_enumerated_categories(name):
    trainer = sprite_trainer(name)
    with pytest.raises(ValueError, match=f"estimator {name} weighs 5 sampled paths .* take categories"):
        Trainer(replace(trainer.recipe, categories="exact"), make_scenes(64, "train"))
