"""Count priors against closed forms and their hazards, annealing, Gaussian priors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny import assert_equal, float64, generator, in_turn, make_model, normal, z_score
from torch.distributions import Independent, Normal

from air_env.priors import COUNT_PRIORS, CountPrior, GaussianPrior, gaussian_log_prob, hazards

priors = st.builds(CountPrior, st.sampled_from(sorted(COUNT_PRIORS)), st.floats(1e-6, 0.999))


@given(priors, st.integers(1, 12))
def test_count_priors_sum_to_one(prior, num_steps):
    log_p = prior.log_p(num_steps)
    assert log_p.dtype == torch.float64
    assert log_p.shape == (num_steps + 1,)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)


@given(priors, st.integers(1, 12))
def test_hazards_of_an_episode_multiply_to_the_count_prior(prior, num_steps):
    log_p = prior.log_p(num_steps)
    go, stop = hazards(log_p)
    for n in range(num_steps + 1):
        assert (go[:n].sum() + stop[n]).item() == pytest.approx(log_p[n].item(), rel=1e-9, abs=1e-9)
    assert stop[num_steps] == 0


@given(priors, st.integers(1, 12))
def test_hazards_of_a_step_sum_to_one(prior, num_steps):
    go, stop = hazards(prior.log_p(num_steps))
    assert_equal(go.exp() + stop[:-1].exp(), torch.ones(num_steps, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize(
    ("name", "closed_form"),
    [
        ("geometric", lambda n, most, p: (1 - p) * p**n / (1 - p ** (most + 1))),
        ("binomial", lambda n, most, p: stats.binom.pmf(n, most, p)),
        ("uniform", lambda n, most, p: 1 / (most + 1)),
    ],
)
@pytest.mark.parametrize("parameter", [0.01, 0.3, 0.9])
def test_count_priors_have_their_closed_form(name, parameter, closed_form):
    probabilities = CountPrior(name, parameter).log_p(4).exp()
    expected = [closed_form(n, 4, parameter) for n in range(5)]
    assert probabilities.tolist() == pytest.approx(expected, rel=1e-12)


def test_annealing_is_geometric_and_ends_exactly():
    prior = CountPrior("geometric", parameter=1e-4, initial_parameter=1e-2, anneal_steps=10)
    plain = [CountPrior("geometric", 10 ** (-2 - 2 * min(i, 10) / 10)).log_p(3) for i in range(13)]
    for i in range(10):
        assert_equal(prior.log_p(3, i), plain[i], 1e-12)
    for iteration in (10, 11, 1_000_000, None):
        assert_equal(prior.log_p(3, iteration), CountPrior("geometric", 1e-4).log_p(3))


@pytest.mark.parametrize("prior", [CountPrior(parameter=0.3), CountPrior(parameter=0.3, anneal_steps=10)])
def test_a_prior_without_an_initial_parameter_is_not_annealed(prior):
    assert_equal(prior.log_p(3, 0), prior.log_p(3, None))


def test_annealing_the_model_changes_its_counts_and_hazards():
    prior = CountPrior("geometric", parameter=1e-4, initial_parameter=1e-2, anneal_steps=10)
    model = make_model(count_prior=prior)
    for iteration in (0, 5, 10, None):
        model.anneal(iteration)
        go, stop = hazards(prior.log_p(3, iteration))
        assert_equal((model.log_p_count, model.log_p_go, model.log_p_stop), (prior.log_p(3, iteration), go, stop))


@pytest.mark.parametrize(("name", "parameter"), [("geometric", 1e-5), ("binomial", 0.5), ("uniform", 0.3)])
def test_a_count_prior_chosen_by_name_has_its_own_parameter(name, parameter):
    assert_equal(CountPrior(name).log_p(3), CountPrior(name, parameter).log_p(3))
    annealed = CountPrior(name, initial_parameter=0.2, anneal_steps=10)
    assert_equal(annealed.log_p(3, 5), CountPrior(name, parameter, 0.2, 10).log_p(3, 5), 1e-12)


@in_turn("steps", [(-1,), (2.5,), ("ten",), (None,)])
def test_a_number_of_annealing_steps_that_makes_no_sense_is_refused(steps):
    with pytest.raises(ValueError, match=f"anneal_steps must be a whole number of at least 0, got {steps!r}"):
        CountPrior(anneal_steps=steps)


def test_an_unknown_count_prior_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'geometrical' is unknown; choose one of geometric, binomial, uniform"):
        CountPrior("geometrical")


@pytest.mark.parametrize("parameter", [0, 1, -0.5, 2, math.nan])
@pytest.mark.parametrize("name", ["parameter", "initial_parameter"])
def test_a_parameter_out_of_range_is_refused(name, parameter):
    with pytest.raises(ValueError, match=rf"parameter must lie in \(0, 1\), got {parameter}"):
        CountPrior(**{name: parameter})


def test_gaussian_log_density_is_that_of_torch():
    value, mean, sd = normal(5, 2, 3), normal(5, 2, 3, seed=1), normal(5, 2, 3, seed=2).exp()
    expected = Independent(Normal(mean, sd), 1).log_prob(value)
    assert_equal(gaussian_log_prob(value, mean, sd), expected, 1e-12)


def test_gaussian_prior_has_the_density_and_the_samples_of_its_parameters():
    with float64():
        prior = GaussianPrior((-0.9, 2.0), (0.25, 3.0))
    value = normal(7, 3, 2)
    expected = Normal(torch.tensor([-0.9, 2.0]).double(), torch.tensor([0.25, 3.0]).double()).log_prob(value).sum(-1)
    # -0.9 is rounded to float32 above.
    assert_equal(prior.log_prob(value), expected, 1e-6)
    samples = prior.sample(100, 100, generator=generator())
    assert samples.shape == (100, 100, 2)
    for i, (mean, sd) in enumerate([(-0.9, 0.25), (2.0, 3.0)]):
        assert abs(z_score(samples[..., i].flatten(), mean)) < 4
        assert abs(z_score((samples[..., i].flatten() - mean).square(), sd**2)) < 4


def test_samples_of_a_gaussian_prior_follow_the_generator_alone():
    with float64():
        prior = GaussianPrior((0.0,), (1.0,))
    torch.manual_seed(0)
    first = prior.sample(4, generator=generator(3))
    torch.manual_seed(1)
    assert_equal(prior.sample(4, generator=generator(3)), first)
    assert not torch.equal(prior.sample(4, generator=generator(4)), first)
