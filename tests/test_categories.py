"""Agents whose ``z_what`` is a category: its gradient against enumeration, and what they report."""

from dataclasses import replace

import pytest
import torch
import torch.distributions as td
from test_estimators import UNBIASED, gradients, objective, randomised_estimator
from tiny import (
    AGENT,
    SIDE,
    WHERE,
    assert_equal,
    float64,
    generator,
    make_envs,
    normal,
)
from torch import Tensor, nn

from air_agents.estimators.enumeration import expected_loss
from air_agents.inference.air import AIR
from air_agents.inference.episodes import sample_episodes
from air_agents.inference.exploration import Exploration
from air_agents.inference.posteriors import Categorical
from air_agents.inference.rollout import Rollout, context_dim, unstopped_rollout
from air_env.model import SceneConfig
from air_env.priors import CategoricalPrior
from air_env.renderers import SpriteConfig

NUM_STEPS, NUM_KINDS, BATCH = 2, 3, 2
SCENE = SceneConfig(image_size=SIDE, num_steps=NUM_STEPS, likelihood_scale=1.0, renderer=SpriteConfig(size=5))


@pytest.fixture(params=["air", "air_canvas"])
def agent(request) -> AIR:
    """An agent whose categories and presences depend on the image, or on the image and the canvas."""
    with float64():
        agent = AIR(SCENE, replace(AGENT, core=request.param))
        nn.init.normal_(agent.presence.weight)
        nn.init.normal_(agent.what.linear.weight)
    return agent.eval()


@pytest.fixture
def images(agent) -> Tensor:
    images, _ = agent.model.sample(BATCH, generator())
    return images.clamp(0, 1)


def roll_out(agent: AIR, images: Tensor, seed: int = 0, *, enumerate_categories: bool = False) -> Rollout:
    noise = normal(len(images), NUM_STEPS, WHERE + NUM_KINDS, seed=seed)
    return unstopped_rollout(agent, make_envs(agent, images), noise, enumerate_categories=enumerate_categories)


def exact_gradients(agent: AIR, rollout: Rollout) -> dict[str, Tensor]:
    """Of the ELBO with count and categories summed out, from its definition."""
    log_q = torch.stack([part.log_prob(rollout.z.z_what[:, i]) for i, part in enumerate(steps_of(rollout.what))], 1)
    value = -(log_q.sum(1).exp() * objective(rollout.problem())).sum()
    return gradients(value, dict(agent.named_parameters()))


def steps_of(what: Categorical) -> list[Categorical]:
    return [Categorical(log_q) for log_q in what.log_q.unbind(1)]


def test_every_sequence_of_categories_has_one_path_and_their_probabilities_sum_to_one(agent, images):
    rollout = roll_out(agent, images, enumerate_categories=True)
    sequences = rollout.z.z_what.unflatten(0, (BATCH, -1))
    assert sequences.tolist() == [[[i, j] for i in range(3) for j in range(3)]] * BATCH
    problem = rollout.problem()
    assert_equal(problem.per_image(torch.ones(BATCH * 9).double()), torch.ones(BATCH).double(), 1e-12)


def test_a_sampled_path_is_one_of_the_enumerated(agent, images):
    sampled, branches = roll_out(agent, images), roll_out(agent, images, enumerate_categories=True)
    rows = torch.arange(BATCH) * 9 + sampled.z.z_what[:, 0] * 3 + sampled.z.z_what[:, 1]
    for name in ("logits", "scores", "context", "log_q_what"):
        assert_equal(getattr(branches.problem(), name)[rows], getattr(sampled.problem(), name), 1e-12)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_with_sampled_categories_is_the_exact_one(agent, images, name):
    rollout = roll_out(agent, images, enumerate_categories=True)
    exact = exact_gradients(agent, rollout)
    assert exact["what.linear.weight"].abs().max() > 1e-3
    problem, estimator = rollout.problem(), randomised_estimator(name, context_dim(agent))
    weights = problem.path_probabilities().detach()

    class Weighted(type(estimator)):
        def forward(self, problem, generator=None):
            return weights * super().forward(problem, generator)

    estimator.__class__ = Weighted
    estimated = gradients(expected_loss(estimator, replace(problem, num_paths=1)).sum(), dict(agent.named_parameters()))
    assert_equal(estimated, exact, 1e-8)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_expected_gradient_with_categories_summed_out_is_the_exact_one(agent, images, name):
    rollout = roll_out(agent, images, enumerate_categories=True)
    problem, estimator = rollout.problem(), randomised_estimator(name, context_dim(agent))
    expected = expected_loss(estimator, problem)
    estimator.forward = lambda problem, generator: expected
    estimated = gradients(estimator.loss(problem).sum(), dict(agent.named_parameters()))
    assert_equal(estimated, exact_gradients(agent, rollout), 1e-8)


def test_returns_less_log_q_average_to_the_elbo(agent, images):
    with torch.no_grad():
        problem = roll_out(agent, images.repeat(50, 1, 1, 1), seed=2, enumerate_categories=True).problem()
        elbo = problem.per_image(problem.elbo()).view(50, BATCH)
        envs = make_envs(agent, images.repeat(2000, 1, 1, 1))
        episodes = sample_episodes(agent, envs, generator(1))
    samples = (episodes.returns - episodes.log_q + episodes.log_p_x_empty).view(-1, BATCH)
    error = (samples.var(0) / len(samples) + elbo.var(0) / len(elbo)).sqrt()
    assert ((samples.mean(0) - elbo.mean(0)).abs() < 4 * error).all()
    assert (error < 0.3).all()


def test_the_distribution_agrees_with_torch():
    logits = normal(5, 4)
    what, reference = Categorical(logits.log_softmax(-1)), td.Categorical(logits=logits)
    value = torch.tensor([0, 1, 2, 3, 0])
    assert_equal(what.log_prob(value), reference.log_prob(value), 1e-12)
    with float64():
        prior = CategoricalPrior(4)
    uniform = td.Categorical(logits=torch.zeros(5, 4, dtype=torch.float64))
    assert_equal(what.kl(prior), td.kl_divergence(reference, uniform), 1e-12)
    assert_equal(what.sample(torch.zeros_like(logits)), what.mode)
    draws = what.sample(normal(20_000, 5, 4, seed=1))
    frequencies = torch.stack([(draws == k).double().mean(0) for k in range(4)], -1)
    assert (frequencies - reference.probs).abs().max() < 4 * 0.5 / 20_000**0.5


def test_exploration_tries_every_category(agent, images):
    plain = roll_out(agent, images).what.log_q[:, 0]
    agent.exploration = Exploration(1.0, categories=0.0)
    assert_equal(roll_out(agent, images).what.log_q[:, 0], plain)
    agent.exploration = Exploration(1.0, categories=1.0)
    assert_equal(
        roll_out(agent, images).what.log_q.exp(), torch.full((BATCH, NUM_STEPS, 3), 1 / 3, dtype=torch.float64), 1e-12
    )
    agent.exploration = Exploration(0.5, categories=0.5)
    mixed = roll_out(agent, images).what.log_q[:, 0].exp()
    agent.exploration = Exploration()
    assert_equal(mixed, roll_out(agent, images).what.log_q[:, 0].exp() * 0.75 + 0.25 / 3, 1e-12)


def test_an_explanation_names_categories_and_draws_them(agent, images):
    z = agent.explain(images)
    assert z.z_what.dtype == torch.long
    assert_equal(z.reconstruction, agent.model.render(z))
