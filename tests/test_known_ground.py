"""Estimators on the literature's problems: closed forms, enumeration, and the orderings that were published."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import assert_equal, generator
from torch import nn

from air_agents.estimator_benchmark.binary import MOST_LATENTS, TARGET, bernoulli, binary_problem
from air_agents.estimator_benchmark.known_ground import (
    CLAIMS,
    NAMES,
    TOY,
    BinarisedDigits,
    make,
    on_toy,
    on_vae,
    variance_ratio,
    write_page,
)
from air_agents.estimators import ESTIMATORS
from air_agents.estimators.base import RETURN_SCALE

UNBIASED = [name for name in NAMES if ESTIMATORS[name.removesuffix("_of_2")].unbiased]
LOGITS = torch.tensor([[0.3, -1.0, 0.8]], dtype=torch.float64)
PRIOR = torch.tensor([[-0.5, 0.2, 0.1]], dtype=torch.float64)


def curved(b):
    """No quadratic function of three latents, in nats."""
    weights = torch.tensor([[1.0, -2.0], [3.0, 0.5], [-1.5, 2.5]], dtype=torch.float64)
    return -(3 * (b @ weights).cos() - 1).square().sum(1)


def problem_of(rows):
    logits = LOGITS.expand(rows, 3).clone().requires_grad_()
    return binary_problem(logits, curved, PRIOR, torch.zeros(rows, 2, dtype=torch.float64))


def gradients(estimator, problem):
    return torch.autograd.grad(estimator(problem, generator()).sum(), problem.logits)[0]


def test_the_elbo_of_binary_latents_is_a_sum_over_all_of_them():
    problem = problem_of(1)
    p, prior = LOGITS.sigmoid()[0], PRIOR.sigmoid()[0]
    total = 0.0
    for code in range(8):
        b = torch.tensor([[code & 1, code >> 1 & 1, code >> 2 & 1]], dtype=torch.float64)
        q, p_b = (torch.where(b[0] > 0, each, 1 - each).prod() for each in (p, prior))
        total += (q * (curved(b)[0] + p_b.log() - q.log())).item()
        n = torch.tensor([code])
        assert problem.count(b).tolist() == [code]
        assert_equal(problem.log_q_at(n)[0].exp(), q, 1e-12)
        assert_equal(problem.soft(b), curved(b), 1e-12)
    assert problem.elbo().item() == pytest.approx(total, rel=1e-12)
    expected = sum(
        (p[k] * (p[k] / prior[k]).log() + (1 - p[k]) * ((1 - p[k]) / (1 - prior[k])).log()).item() for k in range(3)
    )
    assert problem.kl_count().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_estimators_have_the_enumerated_gradient_on_average(name):
    one = problem_of(1)
    (exact,) = torch.autograd.grad(-one.elbo().sum(), one.logits)
    estimator = make(name, 2)
    for parameter in estimator.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator(3))
    found = gradients(estimator, problem_of(40_000))
    assert ((found.mean(0) - exact[0]).abs() < 4.5 * found.std(0) / 200).all()


def test_reinforce_has_the_variance_of_its_closed_form_on_the_toy_problem():
    found = gradients(make("reinforce", 1), bernoulli(torch.zeros(40_000, 1).double().requires_grad_())) / RETURN_SCALE
    # g = f(b) (b - p), at p = 1/2: f(1)/2 or -f(0)/2.
    high, low = (1 - TARGET) ** 2 / 2, -(TARGET**2) / 2
    assert found.var().item() == pytest.approx((high - low) ** 2 / 4, rel=1e-3)


def test_disarm_has_no_variance_where_its_two_episodes_always_differ():
    found = gradients(make("disarm", 1), bernoulli(torch.zeros(1000, 1).double().requires_grad_())) / RETURN_SCALE
    # The gradient of E (b - t)^2 at p = 1/2.
    assert_equal(found, torch.full_like(found, ((1 - TARGET) ** 2 - TARGET**2) / 4), 1e-12)


def test_too_many_latents_for_a_whole_number_are_refused():
    logits = torch.zeros(1, MOST_LATENTS + 1)
    with pytest.raises(ValueError, match="at most 62 binary latents, got 63; take fewer"):
        binary_problem(logits, lambda b: b.sum(1), logits, logits)


@pytest.fixture(scope="module")
def spreads(data_dir):
    toy, vae = (
        [name for name in NAMES if name in {n for c in CLAIMS if (c.problem == TOY) is toy for n in (c.less, c.more)}]
        for toy in (True, False)
    )
    digits = BinarisedDigits(data_dir)
    return [
        *on_toy(toy, fit_steps=150),
        *on_vae(digits, vae, train_steps=60, fit_steps=60, num_samples=200),
    ]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.problem}: {claim.less} < {claim.more}")
def test_the_ordering_that_was_published_is_found_again(spreads, claim):
    assert variance_ratio(pd.DataFrame(spreads), claim) < claim.ratio, claim.source


def test_the_page_says_which_orderings_hold(spreads, tmp_path):
    spoiled = [replace(s, variance=9e9) if (s.problem, s.estimator) == (TOY, "relax") else s for s in spreads]
    for given, wrong in ((spreads, 0), (spoiled, 2)):
        paths = write_page(given, tmp_path, "page", "A note.")
        assert [path.name for path in paths] == ["page.md", "page.csv"]
        text = paths[0].read_text()
        assert text.count("**no**") == wrong
        assert text.count("| yes |") == len(CLAIMS) - wrong
