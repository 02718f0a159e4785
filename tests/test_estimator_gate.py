"""The gate for estimators: what is broken is refused, and the message names it and says why."""

import re
from pathlib import Path

import pytest
import torch
from tiny import assert_equal

from air_agents.estimators import ESTIMATORS, Estimator
from air_agents.estimators.base import logit_gradient_loss, score_function_loss
from air_agents.estimators.enumeration import NotEnumerable, draws, objective, outcomes
from air_agents.estimators.problem import count
from air_agents.estimators.testing import check_estimator, randomised, toy_problem


class Sound(Estimator):
    """Stop-now, to be broken."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem, generator=None):
        return self.loss_of(problem, problem.sample(generator))

    def loss_of(self, problem, n):
        return score_function_loss(problem, n, problem.stop_values())


class ReturnsNaN(Sound):
    def loss_of(self, problem, n):
        return super().loss_of(problem, n) * float("nan")


class ReturnsTheMean(Sound):
    def loss_of(self, problem, n):
        return super().loss_of(problem, n).mean()


class ForgetsToDeclare(Estimator):
    def forward(self, problem, generator=None):
        return -problem.elbo()


class NeedsTooMuch(Sound):
    needs = "everything"


class DrawsFromTheGlobalGenerator(Sound):
    def forward(self, problem, generator=None):
        return self.loss_of(problem, problem.sample(None))


class ReadsItsOwnPresence(Sound):
    """A baseline that knows the presence of its own step."""

    def loss_of(self, problem, n):
        return score_function_loss(problem, n, problem.stop_values() + 5 * problem.went_on(n))


class ForgetsTheModel(Sound):
    """The pathwise part is cut, so that the decoder learns nothing."""

    def loss_of(self, problem, n):
        return super().loss_of(problem, n) + problem.at(n) - problem.at(n).detach()


class ForgetsTheEntropy(Sound):
    """The value of stopping without ``log q``: the advantage is off."""

    def loss_of(self, problem, n):
        advantage = problem.at(n).detach()[:, None] - problem.scores.detach()[:, :-1]
        logs = torch.where(problem.went_on(n), problem.log_go, problem.log_stop)
        return -(problem.at(n) + torch.where(problem.reached(n), advantage * logs, 0.0).sum(1))


class ReadsAhead(Sound):
    """Unbiased, but its baseline is made of scores that no episode has seen."""

    def loss_of(self, problem, n):
        return score_function_loss(problem, n, problem.scores.detach()[:, -1:].expand_as(problem.logits))


class TouchesTheNextStep(Sound):
    """Adds scores of steps that were not reached, which are 0 on average."""

    def forward(self, problem, generator=None):
        z_pres = problem.presences(generator)
        n = count(z_pres)
        scores = (z_pres - problem.logits.detach().sigmoid()) * problem.logits
        return self.loss_of(problem, n) + torch.where(problem.reached(n), 0.0, scores).sum(1)


class ReadsTheNextContext(Sound):
    """The context of the last step knows the likelihoods of all objects before it."""

    def loss_of(self, problem, n):
        return score_function_loss(problem, n, problem.context[:, -1:, 0].expand_as(problem.logits))


class ReadsAheadOfUniformNumbers(Estimator):
    """Draws uniform numbers, and its baseline is the last score."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem, generator=None):
        n = count((problem.uniform(generator) < problem.logits.detach().sigmoid()).double())
        return score_function_loss(problem, n, problem.scores.detach()[:, -1:].expand_as(problem.logits))


class DrawsPastTheProblem(Estimator):
    """Its own coin, from the right generator."""

    needs = "all"
    unbiased = False

    def forward(self, problem, generator=None):
        return -problem.elbo() * torch.rand((), generator=generator)


class SilentInTraining(Sound):
    def loss_of(self, problem, n):
        return super().loss_of(problem, n) * (float("nan") if self.training else 1.0)


class ReturnsNothing(Sound):
    def loss_of(self, problem, n):
        return None


class CutsTheGraph(Sound):
    def loss_of(self, problem, n):
        return super().loss_of(problem, n).detach()


class TakesNoGenerator(Sound):
    def forward(self, problem):
        return self.loss_of(problem, problem.sample(None))


class Overflows(Sound):
    """Takes ``log q`` by way of probabilities."""

    def loss_of(self, problem, n):
        p = problem.logits.sigmoid()
        logs = torch.where(problem.went_on(n), p, 1 - p).pow(60).log() / 60
        advantage = problem.value(n)[:, None] - problem.stop_values()
        return -(problem.at(n) + torch.where(problem.reached(n), advantage * logs, 0.0).sum(1))


class GainsFromNothing(Estimator):
    """A relaxed estimator with a gradient where half objects are worth as much as whole ones."""

    needs = "soft"
    unbiased = False

    def forward(self, problem, generator=None):
        z_pres = problem.presences(generator)
        return logit_gradient_loss(problem, z_pres.long().cumprod(1).sum(1), z_pres) + problem.kl_count()


class SlightlyBiasedUniform(Estimator):
    """Draws uniform numbers, and is off by five per cent."""

    needs = "prefix"
    unbiased = True

    def forward(self, problem, generator=None):
        z_pres = (problem.uniform(generator) < problem.logits.detach().sigmoid()).long()
        n = z_pres.cumprod(1).sum(1)
        return score_function_loss(problem, n, problem.stop_values() - 0.05 * problem.value(n)[:, None])


BROKEN = {
    ReturnsNaN: "not finite",
    ReturnsTheMean: re.escape("a loss for each image, shape (3,), got"),
    NeedsTooMuch: "needs must be 'all', 'prefix' or 'soft', got 'everything'",
    DrawsFromTheGlobalGenerator: "must draw from the generator alone",
    ReadsItsOwnPresence: "is biased: its mean gradient in",
    ForgetsTheModel: "is biased: its mean gradient in",
    ForgetsTheEntropy: "is biased: its mean gradient in",
    ReadsAhead: "reads scores or context beyond the counts it drew",
    TouchesTheNextStep: "touches the graph of the next step",
    ReadsTheNextContext: "reads scores or context beyond the counts it drew",
    ReadsAheadOfUniformNumbers: "reads scores or context beyond the counts it drew",
    DrawsPastTheProblem: "draws past the problem",
    SilentInTraining: "not finite",
    ReturnsNothing: "must return a tensor, got None",
    CutsTheGraph: "its graph was cut",
    TakesNoGenerator: "failed: TypeError",
    Overflows: "not finite where|logit. is 15",
    GainsFromNothing: "has a gradient where there is nothing to gain",
    SlightlyBiasedUniform: "is biased: its mean gradient in",
}


def test_the_estimator_that_is_broken_below_is_sound():
    check_estimator(Sound)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_estimator_is_named_with_what_is_wrong(kind):
    with pytest.raises(AssertionError, match=BROKEN[kind]) as failure:
        check_estimator(kind)
    assert kind.__name__ in str(failure.value)


def test_an_estimator_that_declares_nothing_is_told_what_to_declare():
    with pytest.raises(AssertionError, match=r"ForgetsToDeclare.needs must be 'all', 'prefix' or 'soft', got None"):
        check_estimator(ForgetsToDeclare)


@pytest.mark.parametrize("num_particles", [1, 2])
def test_half_objects_of_the_toy_problem_are_whole_ones_where_gates_are_hard(num_particles):
    problem = toy_problem(3, num_particles).problem
    for n in range(4):
        gates = (torch.arange(3) < n).double().expand(3 * num_particles, 3)
        assert_equal(problem.soft(gates), problem.scores[:, n] - problem.log_p_count[n], 1e-12)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "muprop", "vimco"])
def test_outcomes_are_all_there_is(name):
    estimator = randomised(ESTIMATORS[name])
    problem = toy_problem(2, estimator.num_particles).problem
    found = list(outcomes(estimator, problem))
    assert len(found) == {"reinforce": 4, "rloo": 4**4, "muprop": 2**3, "vimco": 4**2}[name]
    assert len({drawn.script for drawn in found}) == len(found)
    assert_equal(torch.stack([drawn.probability for drawn in found]).sum(0), torch.ones(2).double(), 1e-12)


def test_samples_of_an_estimator_agree_with_its_outcomes():
    problem = toy_problem(2).problem
    estimator = randomised(ESTIMATORS["stop_now"])
    generator = torch.Generator().manual_seed(0)
    every, losses, enumerated = draws(estimator, problem, generator)
    assert enumerated
    mean = sum(q * loss for q, loss in zip(every, losses, strict=True)).detach()
    shares, samples, enumerated = draws(estimator, problem, generator, most=0, num_samples=2000)
    assert not enumerated
    values = torch.stack(samples).detach()
    error = (values.mean(0) - mean) / (values.std(0) / 2000**0.5)
    assert_equal(shares.sum(0), torch.ones(2).double(), 1e-9)
    assert error.abs().max() < 4


def test_uniform_numbers_and_too_many_outcomes_are_not_enumerated():
    problem = toy_problem(1).problem
    for kind, most in ((SlightlyBiasedUniform, 100), (ESTIMATORS["rloo"], 200)):
        with pytest.raises(NotEnumerable):
            list(outcomes(randomised(kind), problem, most))


def test_the_objective_of_several_samples_is_the_expected_importance_weighted_bound():
    problem = toy_problem(2, 2).problem
    q, weight = problem.log_q.exp(), (problem.scores - problem.log_q).exp()
    by_hand = [
        sum(
            q[2 * i, n] * q[2 * i + 1, m] * ((weight[2 * i, n] + weight[2 * i + 1, m]) / 2).log()
            for n in range(4)
            for m in range(4)
        )
        for i in range(2)
    ]
    assert_equal(objective(problem), torch.stack(by_hand), 1e-9)


def test_the_example_of_adding_an_estimator_is_short():
    code = (Path(__file__).parent / "plugin" / "air_env_example" / "estimator.py").read_text()
    assert len(code.strip().splitlines()) < 40
