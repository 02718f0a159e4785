"""Rollouts: the ELBO identity of the design, and what an estimator is told, against the environment itself."""

import pytest
import torch
from tiny import (
    WHAT,
    WHERE,
    assert_equal,
    generator,
    make_agent,
    make_envs,
    make_images,
    normal,
    roll_out,
    z_score,
)
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from air_agents.inference.air import AIR
from air_agents.inference.cores import CORES
from air_agents.inference.episodes import sample_episodes
from air_agents.inference.posteriors import Gaussian
from air_agents.inference.rollout import Rollout, context_dim, unstopped_rollout
from air_env.priors import CountPrior

BATCH = 4
# A likelihood of few nats, so that Monte Carlo tells a missing term from noise.
SMOOTH = {"likelihood_scale": 1.0, "count_prior": CountPrior("geometric", 0.5)}


def posterior(part: Gaussian) -> Independent:
    return Independent(Normal(part.mean, part.sd), 1)


def step_through(agent: AIR, images: Tensor, rollout: Rollout, count: int) -> tuple[Tensor, list[Tensor]]:
    """An episode of the rollout's first latents through `step`: the constant, and the rewards."""
    envs = make_envs(agent, images)
    constant, rewards = envs.state.log_p_x, []
    for i in range(agent.model.config.num_steps):
        present = torch.full((len(images),), int(i < count))
        action = {"z_pres": present, "z_where": rollout.z.z_where[:, i], "z_what": rollout.z.z_what[:, i]}
        rewards.append(envs.step(action)[1])
    return constant, rewards


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_scores_are_the_rewards_of_an_episode_less_the_log_density_of_its_latents(num_steps, core):
    agent, images = make_agent(core=core, num_steps=num_steps), make_images(BATCH)
    rollout = roll_out(agent, images)
    scores = rollout.problem(analytic_kl=False).scores
    log_q = posterior(rollout.where).log_prob(rollout.z.z_where) + posterior(rollout.what).log_prob(rollout.z.z_what)
    for n in range(num_steps + 1):
        constant, rewards = step_through(agent, images, rollout, n)
        assert_equal(scores[:, n], constant + sum(rewards) - log_q[:, :n].sum(1), 1e-9)


def test_the_return_so_far_is_that_of_the_steps_before():
    agent, images = make_agent(), make_images(BATCH)
    rollout = roll_out(agent, images)
    log_q = posterior(rollout.where).log_prob(rollout.z.z_where) + posterior(rollout.what).log_prob(rollout.z.z_what)
    steps = log_q + rollout.logits.sigmoid().log()
    constant, rewards = step_through(agent, images, rollout, 3)
    so_far = rollout.problem(analytic_kl=False).returns_so_far()
    for i in range(3):
        assert_equal(so_far[:, i], constant + sum(rewards[:i]) - steps[:, :i].sum(1), 1e-9)


def test_returns_less_log_q_average_to_the_elbo():
    agent = make_agent(num_steps=2, **SMOOTH)
    images = make_images(4).repeat(1000, 1, 1, 1)
    with torch.no_grad():
        episodes = sample_episodes(agent, make_envs(agent, images), generator(1))
        elbo = roll_out(agent, images, noise=2).problem().elbo()
    assert set(episodes.count.tolist()) == {0, 1, 2}
    samples = episodes.returns - episodes.log_q + episodes.log_p_x_empty
    assert abs(z_score(samples - elbo)) < 4
    # One nat would be noticed.
    assert abs(z_score(samples - elbo + 1)) > 4


def test_sampled_episodes_stop_as_often_as_the_posterior_says():
    agent = make_agent(num_steps=2, **SMOOTH)
    images = make_images(4).repeat(1000, 1, 1, 1)
    with torch.no_grad():
        count = sample_episodes(agent, make_envs(agent, images), generator(1)).count
        q = roll_out(agent, images, noise=2).problem().log_q.exp()
    for n in range(3):
        assert abs(z_score((count == n).double() - q[:, n])) < 4


def test_sampled_episodes_follow_the_generator_alone():
    agent, images = make_agent(), make_images(BATCH)
    torch.manual_seed(0)
    first = sample_episodes(agent, make_envs(agent, images), generator(3))
    torch.manual_seed(1)
    second = sample_episodes(agent, make_envs(agent, images), generator(3))
    assert_equal(second.returns, first.returns)
    assert_equal(second.log_q, first.log_q)


def test_the_divergence_of_gaussians_is_that_of_torch():
    agent = make_agent()
    rollout = roll_out(agent, make_images(BATCH))
    for part, prior, kl in [
        (rollout.where, agent.model.prior_where, rollout.kl_where),
        (rollout.what, agent.model.prior_what, rollout.kl_what),
    ]:
        expected = kl_divergence(posterior(part), Independent(Normal(prior.mean, prior.sd).expand(part.mean.shape), 1))
        assert_equal(kl, expected, 1e-9)


def test_the_analytic_divergence_is_the_mean_of_the_sampled_one():
    agent = make_agent(**SMOOTH)
    images = make_images(4).repeat(1000, 1, 1, 1)
    with torch.no_grad():
        rollout = roll_out(agent, images, noise=1)
        difference = rollout.problem().scores - rollout.problem(analytic_kl=False).scores
    assert_equal(difference[:, 0], torch.zeros(4000, dtype=torch.float64))
    for n in range(1, 4):
        assert difference[:, n].std() > 0.1
        assert abs(z_score(difference[:, n])) < 4


@pytest.mark.parametrize("core", CORES)
def test_logits_and_context_of_a_step_do_not_know_its_latents_nor_those_after(core):
    agent, images = make_agent(core=core), make_images(BATCH)
    noise = normal(BATCH, 3, WHERE + WHAT)
    problem = roll_out(agent, images, noise).problem()
    for i in range(3):
        changed = noise.clone()
        changed[:, i:] += 1
        other = roll_out(agent, images, changed).problem()
        for first, second in [(problem.logits, other.logits), (problem.context, other.context)]:
            assert_equal(second[:, : i + 1], first[:, : i + 1])
            assert i == 2 or (second[:, i + 1] != first[:, i + 1]).any()


def test_the_context_is_detached_and_as_long_as_announced():
    agent = make_agent()
    problem = roll_out(agent, make_images(BATCH)).problem()
    assert not problem.context.requires_grad
    assert problem.context.shape == (BATCH, 3, context_dim(agent))


def test_a_rollout_without_noise_follows_the_posterior_means():
    agent, images = make_agent(), make_images(BATCH)
    rollout = roll_out(agent, images, torch.zeros(BATCH, 3, WHERE + WHAT, dtype=torch.float64))
    assert_equal(rollout.z.z_where, rollout.where.mean)
    assert_equal(rollout.z.z_what, rollout.what.mean)


def test_a_rollout_leaves_the_episodes_where_they_are():
    agent, images = make_agent(), make_images(BATCH)
    envs = make_envs(agent, images)
    before = envs.state

    unstopped_rollout(agent, envs, normal(BATCH, 3, WHERE + WHAT))
    assert envs.state is before
    assert envs.state.active.all()
