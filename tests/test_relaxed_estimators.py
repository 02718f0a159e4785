"""Antithetic and relaxed estimators: what is theirs alone, beside the gate that every estimator passes.

They draw uniform numbers. With these prescribed, rows of a batch are the nodes of a quadrature over them, cell by cell
between the thresholds p and 1 - p, so that means and variances need no Monte Carlo.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from itertools import product

import numpy as np
import pytest
import torch
from tiny import (
    NUM_STEPS,
    assert_equal,
    count_probabilities,
    float64,
    generator,
    in_turn,
    make_agent,
    make_images,
    normal,
    roll_out,
    z_score,
)
from torch import Tensor, nn

from air_agents.estimators import Estimator, StopProblem, make_estimator
from air_agents.estimators.base import RETURN_SCALE, logit_gradient_loss
from air_agents.estimators.control_variates import REBAR
from air_agents.estimators.problem import count
from air_agents.estimators.relaxed import conditional_z
from air_agents.inference.rollout import context_dim

CONTEXT = 4
ANTITHETIC = ["arm", "disarm"]
STRAIGHT = ["straight_through", "reinmax", "st_gumbel", "rao_blackwell_st_gumbel"]
CONTROLLED = ["muprop", "rebar", "relax"]
SOFT = [*STRAIGHT, "concrete", *CONTROLLED]
PROBABILITIES = [(0.5, 0.5), (0.3, 0.9), (0.98, 0.05), (0.8, 0.2, 0.6)]
RETURNS = (-700.0, -260.0, 110.0, 95.0)
F = Callable[[Tensor], Tensor]
"""``A - log p(n)`` as a function of the extents to which objects are there."""


@dataclass(frozen=True)
class Prescribed(StopProblem):
    """A problem whose uniform numbers, ``[batch, N]``, are prescribed; presences too, if any."""

    numbers: Tensor = field(default_factory=lambda: torch.zeros(0))
    z_pres: Tensor | None = None

    def uniform(self, generator: torch.Generator | None = None) -> Tensor:
        return self.numbers

    def presences(self, generator: torch.Generator | None = None) -> Tensor:
        return super().presences(generator) if self.z_pres is None else self.z_pres


def prescribed(problem: StopProblem, numbers: Tensor, z_pres: Tensor | None = None) -> Prescribed:
    """The problem of one image, with one row for each of the numbers."""
    parts = {f.name: getattr(problem, f.name) for f in fields(StopProblem)}
    for name in ("logits", "scores", "context"):
        parts[name] = parts[name].expand(len(numbers), *parts[name].shape[1:])
    return Prescribed(**parts, numbers=numbers, z_pres=z_pres)


def quadrature(probabilities: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Nodes ``[row, N]`` and weights ``[row]`` of Gauss and Legendre, between each step's thresholds."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(order))
    steps = []
    for p in probabilities.tolist():
        edges = torch.tensor(sorted({0.0, p, 1 - p, 1.0}), dtype=torch.float64)
        width = edges.diff()[:, None]
        steps.append(((edges[:-1, None] + width * (nodes + 1) / 2).flatten(), (width * weights / 2).flatten()))
    numbers = torch.cartesian_prod(*(numbers for numbers, _ in steps))
    weight = torch.cartesian_prod(*(weight for _, weight in steps))
    return numbers.reshape(-1, len(steps)), weight.reshape(-1, len(steps)).prod(1)


def power(exponent: int) -> F:
    """``a e + (c e) ** k``: in each gate a polynomial of degree k."""
    a, c = torch.tensor([40.0, -30, 25]).double(), torch.tensor([3.0, -2, 4]).double()
    return lambda extents: extents @ a[: extents.shape[1]] + (extents @ c[: extents.shape[1]]) ** exponent


def cosh(extents: Tensor) -> Tensor:
    """No polynomial."""
    c = torch.tensor([3.0, -2, 4]).double()
    return -20 * (extents @ c[: extents.shape[1]] - 1).cosh().log()


def problem_of(f: F, *probabilities: float, rows: int = 1) -> StopProblem:
    """A problem with given probabilities and f, whose logits are a leaf."""
    logits = torch.tensor([probabilities], dtype=torch.float64).logit().repeat(rows, 1).requires_grad_()
    num_steps = len(probabilities)
    log_p_count = normal(num_steps + 1, seed=1).log_softmax(0)
    hard = torch.ones(num_steps + 1, num_steps, dtype=torch.float64).tril(-1)
    context = normal(1, num_steps, CONTEXT, seed=2).expand(rows, -1, -1)
    return StopProblem(logits, (f(hard) + log_p_count).expand(rows, -1), log_p_count, context, relaxed=f)


def returning(returns: tuple[float, ...], *probabilities: float) -> StopProblem:
    """A problem with given probabilities and ``L_n``."""
    problem = problem_of(cosh, *probabilities)
    scores = torch.tensor([returns], dtype=torch.float64) + problem.log_q.detach()
    return replace(problem, scores=scores, relaxed=None)


def make(name: str, features: int = CONTEXT, *, randomised: bool = True) -> Estimator:
    """An estimator in float64, whose parameters are not as at first."""
    with float64(1):
        estimator = make_estimator(name, features)
        for parameter in estimator.parameters() if randomised else ():
            nn.init.normal_(parameter, std=0.3)
        return estimator.eval()


def estimates(estimator: Estimator, problem: StopProblem, seed: int = 0) -> Tensor:
    """Each row's gradient in the logits: of the ELBO, or, where that has the divergence of q(n), without it."""
    value = -estimator(problem, generator(seed))
    if estimator.needs == "soft":
        value = value + problem.kl_count()
    return torch.autograd.grad(value.sum(), problem.logits, retain_graph=True)[0]


def exact(problem: StopProblem, estimator: Estimator) -> Tensor:
    """What `estimates` should be on average, from the definition."""
    q = count_probabilities(problem.logits)
    cost = problem.log_p_count if estimator.needs == "soft" else q.log()
    return torch.autograd.grad((q * (problem.scores - cost)).sum(), problem.logits)[0]


def over_presences(problem: StopProblem) -> tuple[Prescribed, Tensor]:
    """The problem of one image, with one row for each of the presences that can be drawn, and their probabilities."""
    num_steps = problem.logits.shape[1]
    z_pres = torch.tensor(list(product([0.0, 1.0], repeat=num_steps)), dtype=torch.float64)
    p = problem.logits.detach().sigmoid()
    return prescribed(problem, z_pres, z_pres), torch.where(z_pres > 0, p, 1 - p).prod(1)


def enumerated(name: str, problem: StopProblem) -> Tensor:
    """The mean of `estimates` over all presences."""
    rows, weight = over_presences(problem)
    return (weight @ estimates(make(name), rows))[None]


def moments(estimator: Estimator, problem: StopProblem, order: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of `estimates` over all uniform numbers."""
    numbers, weight = quadrature(problem.logits.sigmoid()[0], order)
    found = estimates(estimator, prescribed(problem, numbers))
    mean = weight @ found
    return mean[None], weight @ (found - mean).square()


def gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def at(problem: StopProblem, *numbers: float) -> Prescribed:
    return prescribed(problem, torch.tensor([numbers], dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "probability", "expected"),
    [("arm", 0.3, [176, 0, 176]), ("disarm", 0.3, [154, 0, 154]), ("arm", 0.8, [176, 0, 176]),
     ("disarm", 0.8, [176, 0, 176])],
)  # fmt: skip
def test_an_antithetic_pair_of_one_step_by_hand(name, probability, expected):
    # u = 0.1 and 0.9 lead to (0, 1) and (1, 0): 440 nats, times 0.4, or max(p, 1 - p) / 2. u = 0.5 has no difference.
    problem = returning((-700, -260), probability)
    found = [estimates(make(name), at(problem, u)).item() for u in (0.1, 0.5, 0.9)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.1, 0.2), (283.5, 162)),  # n = 0, 2: 810 nats; 0.7 / 2, and (1 - 0.6) / 2 of the longer episode alone
        ((0.1, 0.7), (154, -132)),  # n = 0, 1: 440 nats; 0.7 / 2, and (0 - 0.6) / 2
        ((0.9, 0.2), (154, -132)),  # n = 1, 0: the mirror image
        ((0.5, 0.2), (0, 0)),  # n = 0, 0
    ],
)
def test_disarm_of_two_steps_by_hand(numbers, expected):
    found = estimates(make("disarm"), at(returning((-700, -260, 110), 0.3, 0.6), *numbers))
    assert found[0].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("probabilities", PROBABILITIES)
@pytest.mark.parametrize("name", ANTITHETIC)
def test_antithetic_pairs_integrate_to_the_exact_gradient(name, probabilities):
    problem, estimator = returning(RETURNS[: len(probabilities) + 1], *probabilities), make(name)
    assert_equal(moments(estimator, problem, 2)[0], exact(problem, estimator), 1e-9)


@pytest.mark.parametrize("name", ANTITHETIC)
def test_antithetic_pairs_integrate_to_the_exact_gradient_of_an_agent(name):
    agent = make_agent()
    problem = roll_out(agent, make_images(1)).problem()
    numbers, weight = quadrature(problem.logits[0].sigmoid(), 2)
    loss = make(name, context_dim(agent))(prescribed(problem, numbers))
    q = count_probabilities(problem.logits)
    leaves = dict(agent.named_parameters())
    expected = gradients(-(q * (problem.scores - q.log())).sum(), leaves)
    assert_equal(gradients(weight @ loss, leaves), expected, 1e-8)


@pytest.mark.parametrize("probabilities", PROBABILITIES)
def test_disarm_is_the_mean_of_arm_over_what_leads_to_the_same_decisions(probabilities):
    problem = returning(RETURNS[: len(probabilities) + 1], *probabilities)
    numbers, weight = quadrature(problem.logits.sigmoid()[0], 2)
    rows = prescribed(problem, numbers)
    arm, disarm = (estimates(make(name), rows) for name in ANTITHETIC)
    p = torch.tensor(probabilities, dtype=torch.float64)
    pair = [(numbers > 1 - p).double(), (numbers < p).double()]
    decisions = torch.cat([torch.where(problem.reached(count(z)), z, -1.0) for z in pair], 1)
    for decision in decisions.unique(dim=0):
        same = (decisions == decision).all(1)
        mean = (weight[same] @ arm[same]) / weight[same].sum()
        assert_equal(disarm[same], mean.expand_as(disarm[same]), 1e-9)


@pytest.mark.parametrize("probabilities", [(0.5, 0.5, 0.5), (0.98, 0.95, 0.05), (0.99, 0.99, 0.99)])
def test_disarm_has_less_variance_than_arm(probabilities):
    problem = returning(RETURNS, *probabilities)
    arm, disarm = (moments(make(name), problem, 2)[1] for name in ANTITHETIC)
    assert (disarm < arm).all()
    assert disarm.sum() < 0.7 * arm.sum()


@pytest.mark.parametrize("name", ANTITHETIC)
def test_antithetic_pairs_have_no_noise_where_q_is_the_posterior(name):
    problem = returning((77.0,) * 4, 0.8, 0.2, 0.6)
    numbers, _ = quadrature(problem.logits.sigmoid()[0], 2)
    assert estimates(make(name), prescribed(problem, numbers)).abs().max() < 1e-12


@pytest.mark.parametrize("name", ANTITHETIC)
def test_antithetic_pairs_read_nothing_beyond_the_longer_episode(name):
    problem = returning(RETURNS, 0.8, 0.2, 0.6)
    numbers, _ = quadrature(problem.logits.sigmoid()[0], 1)
    p = problem.logits.detach().sigmoid()
    longest = torch.maximum(count((numbers > 1 - p).double()), count((numbers < p).double()))[:, None]
    rows = prescribed(problem, numbers)
    blind = replace(rows, scores=torch.where(torch.arange(4) <= longest, rows.scores, math.nan))
    found = estimates(make(name), blind)
    assert_equal(found, estimates(make(name), rows))
    assert not found[torch.arange(3) > longest].any()
    assert_equal(make(name)(blind), make(name)(rows))


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("straight_through", 0.1, 0.21 * 17),
        ("straight_through", 0.9, 0.21 * 3),
        ("reinmax", 0.1, 0.7 * 17 / 2),
        ("reinmax", 0.9, 0.3 * 3 / 2),
        # z = log(3/7 * 9), y = 27/34; and z = log(3/7 / 9), y = 1/22.
        ("concrete", 0.9, (14 * 27 / 34 + 3) * 27 * 7 / 34**2),
        ("concrete", 0.1, (14 / 22 + 3) * 21 / 22**2),
        ("st_gumbel", 0.9, 17 * 27 * 7 / 34**2),
        ("st_gumbel", 0.1, 3 * 21 / 22**2),
        # Given b = 1, u = 0.7 + 0.3 * 0.1 = 0.73: odds 3/7 * 73/27, y = 73/136. Given b = 0, u = 0.7 * 0.9 = 0.63.
        ("rao_blackwell_st_gumbel", 0.1, 17 * 73 * 63 / 136**2),
        ("rao_blackwell_st_gumbel", 0.9, 3 * 27 * 37 / 64**2),
        # f(p) = 1.53, f'(p) = 7.2; f(1) = 10, f(0) = 0.
        ("muprop", 0.1, (10 - 1.53 - 7.2 * 0.7) * 0.7 + 7.2 * 0.21),
        ("muprop", 0.9, (0 - 1.53 + 7.2 * 0.3) * -0.3 + 7.2 * 0.21),
    ],
)
def test_one_step_with_a_quadratic_f_by_hand(name, number, expected):
    problem = problem_of(lambda e: (7 * e**2 + 3 * e).sum(1), 0.3)
    assert estimates(make(name), at(problem, number)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "exponent", "is_exact"),
    [("straight_through", 1, True), ("straight_through", 2, False), ("reinmax", 2, True), ("reinmax", 3, False)],
)
def test_straight_through_is_exact_to_first_order_and_reinmax_to_second(name, exponent, is_exact):
    problem = problem_of(power(exponent), 0.3, 0.9, 0.6)
    error = (enumerated(name, problem) - exact(problem, make(name))).abs()
    assert (error < 1e-9).all() if is_exact else (error > 0.1).any()


@pytest.mark.parametrize(("likelihood", "is_exact"), [("gaussian", True), ("bernoulli", False)])
def test_reinmax_is_exact_for_an_agent_with_a_gaussian_likelihood(likelihood, is_exact):
    agent = make_agent(likelihood=likelihood)
    problem = roll_out(agent, make_images(1)).problem()
    leaves = dict(agent.named_parameters())
    rows, weight = over_presences(problem)
    found = gradients(weight @ make("reinmax")(rows), leaves)
    q = count_probabilities(problem.logits)
    expected = gradients(-(q * (problem.scores - q.log())).sum(), leaves)
    errors = {name: (found[name] - expected[name]).abs().max() for name in leaves}
    if is_exact:
        assert max(errors.values()) < 1e-8
    else:
        assert errors["presence.weight"] > 1e-2
    # The model has no part in the bias.
    assert max(error for name, error in errors.items() if name.startswith("model")) < 1e-8


@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "bernoulli"])
def test_soft_at_whole_objects_is_what_they_score(likelihood, num_images):
    agent = make_agent(likelihood=likelihood)
    problem = roll_out(agent, make_images(num_images)).problem()
    for bits in product([0.0, 1.0], repeat=NUM_STEPS):
        gates = torch.tensor([bits], dtype=torch.float64).expand(num_images, -1)
        n = count(gates)
        assert_equal(problem.soft(gates), problem.at(n) - problem.log_p_count[n], 1e-9)


def test_soft_has_the_gradient_in_the_gates_that_it_should_have():
    problem = roll_out(make_agent(), make_images(2)).problem()
    gates = normal(2, NUM_STEPS).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(problem.soft, gates)
    assert torch.autograd.gradgradcheck(problem.soft, gates)
    whole = torch.tensor([[1.0, 0, 1], [1, 1, 0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(problem.soft, whole)


@pytest.mark.parametrize("name", SOFT)
def test_a_renderer_without_half_objects_is_refused(name):
    problem = returning((-700, -260), 0.3)
    with pytest.raises(ValueError, match="this renderer draws whole objects only, and a relaxed estimator needs half"):
        make(name)(problem, generator())


def test_the_loss_of_cold_concrete_presences_is_that_of_whole_ones():
    numbers = torch.rand(50, 3, generator=generator(), dtype=torch.float64)
    problem = prescribed(problem_of(cosh, 0.3, 0.9, 0.6), numbers)
    n = count((numbers > 1 - problem.logits.sigmoid()).double())
    whole = problem.kl_count() - (problem.at(n) - problem.log_p_count[n])
    concrete = make("concrete")
    distances = []
    for temperature in (1.0, 0.1, 1e-5):
        concrete.temperature = temperature
        distances.append((concrete(problem) - whole).abs().mean().item())
    assert distances[0] > 2 * distances[1] > 0
    assert distances[2] < 1e-9


def test_concrete_differentiates_its_relaxed_objective():
    numbers, weight = quadrature(torch.tensor([0.3, 0.9]), 40)

    def objective(logits: Tensor) -> Tensor:
        gates = (logits + numbers.logit()).sigmoid()
        return weight @ cosh(gates.cumprod(1))

    logits = torch.tensor([0.3, 0.9], dtype=torch.float64).logit()
    steps = 1e-4 * torch.eye(2, dtype=torch.float64)
    by_differences = torch.stack([objective(logits + step) - objective(logits - step) for step in steps]) / 2e-4
    found, _ = moments(make("concrete"), problem_of(cosh, 0.3, 0.9), 40)
    assert_equal(found[0], by_differences, 1e-6)


@pytest.mark.parametrize("presence", [0.0, 1.0])
@pytest.mark.parametrize("probability", [0.02, 0.3, 0.9])
def test_noise_given_a_presence_is_the_noise_that_leads_to_it(probability, presence):
    v = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)[:, None]
    problem = prescribed(problem_of(cosh, probability), v)
    found = conditional_z(problem, torch.full_like(v, presence))
    u = 1 - probability + probability * v if presence else (1 - probability) * v
    assert_equal(found, (problem.logits + u.logit()).detach(), 1e-9)
    assert ((found > 0) == (presence > 0)).all()


def test_rao_blackwellised_gradients_have_the_mean_of_st_gumbel():
    # Averaging the noises is linear: all of them equal have the same mean.
    problem = problem_of(cosh, 0.3, 0.9)
    found, _ = moments(make("st_gumbel"), problem, 40)
    numbers, weight = quadrature(torch.full((2,), 0.5), 40)
    mean = torch.zeros(1, 2, dtype=torch.float64)
    p = problem.logits.detach().sigmoid()[0]
    for bits in product([0.0, 1.0], repeat=2):
        z_pres = torch.tensor(bits, dtype=torch.float64)
        probability = torch.where(z_pres > 0, p, 1 - p).prod()
        rows = prescribed(problem, numbers, z_pres.expand(len(numbers), -1))
        mean += probability * weight @ estimates(make("rao_blackwell_st_gumbel"), rows)
    assert_equal(mean, found, 1e-6)


def test_rao_blackwellised_gradients_have_less_variance_than_st_gumbel():
    problem = problem_of(cosh, 0.3, 0.9, 0.6, rows=20_000)
    st_gumbel, averaged = (estimates(make(name), problem) for name in ("st_gumbel", "rao_blackwell_st_gumbel"))
    assert (averaged.var(0) < 0.9 * st_gumbel.var(0)).all()
    for first, second in zip(st_gumbel.unbind(1), averaged.unbind(1), strict=True):
        assert abs(z_score(first - second)) < 4


@pytest.mark.parametrize("probabilities", PROBABILITIES)
def test_muprop_is_unbiased_whatever_half_objects_are_worth(probabilities):
    problem = problem_of(cosh, *probabilities)
    assert_equal(enumerated("muprop", problem), exact(problem, make("muprop")), 1e-9)
    nonsense = replace(problem, relaxed=lambda e: 300 * torch.sin(5 * e).sum(1))
    assert_equal(enumerated("muprop", nonsense), exact(problem, make("muprop")), 1e-9)


def test_muprop_has_no_noise_where_f_is_linear_and_nothing_follows():
    problem = problem_of(lambda e: 40 * e.sum(1), 0.3)
    found = [estimates(make("muprop"), at(problem, u)).item() for u in (0.1, 0.9)]
    assert found == pytest.approx([40 * 0.21] * 2, rel=1e-12)


@pytest.mark.parametrize("probabilities", [(0.3,), (0.5, 0.5), (0.3, 0.9), (0.95, 0.2)])
@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_rebar_and_relax_integrate_to_the_exact_gradient(name, probabilities):
    problem, estimator = problem_of(cosh, *probabilities), make(name)
    nonsense = replace(problem, relaxed=lambda e: 30 * torch.sin(5 * e).sum(1))
    for relaxation in (problem, nonsense):
        found, _ = moments(estimator, relaxation, 60)
        assert_equal(found, exact(problem, estimator), 1e-5 if name == "rebar" else 1e-2)


@pytest.mark.parametrize("name", CONTROLLED)
def test_control_variates_have_the_exact_gradient_on_average_over_samples(name):
    problem = problem_of(cosh, 0.8, 0.3, 0.6, rows=40_000)
    estimator = make(name)
    found = estimates(estimator, problem)
    expected = exact(problem, estimator)[0]
    for samples, mean in zip(found.unbind(1), expected.unbind(), strict=True):
        assert abs(z_score(samples, mean.item())) < 4


def test_rebar_is_its_definition_with_coupled_noise():
    numbers = torch.rand(200, 3, generator=generator(), dtype=torch.float64)
    problem = prescribed(problem_of(cosh, 0.8, 0.3, 0.6), numbers)
    logits = problem.logits.detach().clone().requires_grad_()
    p = logits.sigmoid()
    z = logits + numbers.logit()
    b = (z > 0).double()
    v = torch.where(b > 0, (numbers - (1 - p)) / p, numbers / (1 - p)).detach()
    z_given_b = logits + torch.where(b > 0, 1 - p + v * p, v * (1 - p)).logit()
    assert_equal(z_given_b.detach(), z.detach(), 1e-9)
    rebar = make("rebar")
    assert isinstance(rebar, REBAR)
    temperature, scale = rebar.log_temperature.exp().detach(), rebar.scale.detach()
    first, second = (scale * cosh((part / temperature).sigmoid().cumprod(1)) for part in (z, z_given_b))
    n = count(b)
    f = problem.at(n) - problem.log_p_count[n]
    log_q = torch.where(b > 0, p.log(), (1 - p).log()).sum(1)
    (by_definition,) = torch.autograd.grad(((f - second).detach() * log_q + first - second).sum(), logits)
    reached = problem.reached(n)
    found = estimates(rebar, problem)
    assert_equal(found[reached], by_definition[reached], 1e-8)
    assert not found[~reached].any()


def test_relax_begins_as_rebar():
    problem = problem_of(cosh, 0.8, 0.3, 0.6, rows=100)
    relax, rebar = (estimates(make(name, randomised=False), problem) for name in ("relax", "rebar"))
    assert_equal(relax, rebar, 1e-9)


@pytest.mark.parametrize("name", ["rebar", "relax"])
@pytest.mark.parametrize(("f", "probabilities"), [(power(1), (0.3,)), (power(2), (0.8, 0.3)), (cosh, (0.8, 0.3))])
def test_relaxed_control_variates_learn_from_the_gradient_of_their_squared_estimates(name, f, probabilities):
    relax = make(name)
    numbers = torch.rand(20, len(probabilities), generator=generator(), dtype=torch.float64)
    problem = prescribed(problem_of(f, *probabilities), numbers)
    parameters = dict(relax.named_parameters())
    found = gradients(relax(problem).sum(), parameters)

    def squares() -> float:
        return (estimates(relax, problem) / RETURN_SCALE).square().sum().item()

    for name, parameter in parameters.items():
        flat = parameter.data.view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 5)):
            before, values = flat[i].item(), []
            for step in (1e-5, -1e-5):
                flat[i] = before + step
                values.append(squares())
            flat[i] = before
            by_differences = (values[0] - values[1]) / 2e-5
            assert found[name].view(-1)[i].item() == pytest.approx(by_differences, rel=1e-4, abs=1e-6), (name, i)


def test_the_variance_of_relax_teaches_the_model_nothing():
    agent = make_agent()
    problem = roll_out(agent, make_images(3)).problem()
    numbers = torch.rand(3, NUM_STEPS, generator=generator(), dtype=torch.float64)
    problem = prescribed(problem, numbers)
    relax = make("relax", context_dim(agent))
    leaves = dict(agent.named_parameters())
    n = count((numbers > 1 - problem.logits.sigmoid()).double())
    without = logit_gradient_loss(problem, n, estimates_of_an_agent(relax, problem)) + problem.kl_count()
    assert_equal(gradients(relax(problem).sum(), leaves), gradients(without.sum(), leaves), 1e-9)


def estimates_of_an_agent(estimator: Estimator, problem: Prescribed) -> Tensor:
    """`estimates` where scores depend on the logits' graph: of the logits alone."""
    alone = replace(problem, logits=problem.logits.detach().requires_grad_(), scores=problem.scores.detach())
    return estimates(estimator, alone)


def test_relax_comes_to_have_less_variance_than_rebar_and_rebar_less_than_untuned():
    test = problem_of(cosh, 0.8, 0.3, 0.6, rows=2000)
    squares = {"untuned": estimates(make("rebar", randomised=False), test).square().mean()}
    for name in ("rebar", "relax"):
        estimator = make(name, randomised=False)
        adam = torch.optim.Adam(estimator.parameters(), 1e-2)
        for seed in range(1, 101):
            adam.zero_grad()
            estimator(problem_of(cosh, 0.8, 0.3, 0.6, rows=200), generator(seed)).mean().backward()
            adam.step()
        squares[name] = estimates(estimator, test).square().mean()
    assert squares["relax"] < squares["rebar"] < squares["untuned"]


@pytest.mark.parametrize("name", [*ANTITHETIC, *SOFT])
@in_turn("logit dtype", product((15.0, 40.0, 200.0), (torch.float32, torch.float64)))
def test_saturated_logits_and_extreme_numbers_give_finite_losses_and_gradients(name, logit, dtype):
    largest = 1 - torch.finfo(dtype).eps / 2
    signs, numbers = (
        torch.tensor(values, dtype=dtype)
        for values in zip(*product(product([-1, 1], repeat=3), product([0.0, 0.5, largest], repeat=3)), strict=True)
    )
    problem = problem_of(cosh, 0.5, 0.5, 0.5, rows=len(signs))
    objects = torch.tensor([3.0, -2, 4], dtype=dtype, requires_grad=True)
    logits = (logit * signs).requires_grad_()
    scores = (300 * problem.scores).to(dtype).requires_grad_()
    problem = replace(
        problem,
        logits=logits,
        scores=scores,
        log_p_count=problem.log_p_count.to(dtype),
        context=problem.context.to(dtype),
        relaxed=lambda extents: -300 * (extents @ objects - 1).square(),
    )
    estimator = make(name).to(dtype)
    leaves = [logits, scores, objects, *estimator.parameters()]
    loss = estimator(prescribed(problem, numbers))
    assert loss.dtype == dtype
    assert loss.isfinite().all()
    for gradient in torch.autograd.grad(loss.sum(), leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@in_turn("name", [(name,) for name in (*ANTITHETIC, *SOFT)])
def test_rows_are_independent(name):
    agent = make_agent()
    problem = roll_out(agent, make_images(3)).problem()
    numbers = torch.rand(3, NUM_STEPS, generator=generator(), dtype=torch.float64)
    estimator = make(name, context_dim(agent))
    whole = estimator(prescribed(problem, numbers))
    assert whole.shape == (3,)
    for row in range(3):
        one = roll_out(agent, make_images(3)[row : row + 1], normal(3, NUM_STEPS, agent.latent_dim)[row : row + 1])
        assert_equal(estimator(prescribed(one.problem(), numbers[row : row + 1])), whole[row : row + 1], 1e-8)


@pytest.mark.parametrize("name", [*ANTITHETIC, *SOFT])
def test_sampled_categories_learn_from_the_count_of_the_same_noise(name):
    # u = 0.5 leads to the likelier presence whichever way it is read.
    problem = problem_of(cosh, 0.8, 0.7, 0.4)
    log_q_what = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    problem = replace(at(problem, 0.5, 0.5, 0.5), log_q_what=log_q_what)
    (found,) = torch.autograd.grad(make(name)(problem).sum(), log_q_what)
    value = (problem.scores - problem.log_q).detach()[0]
    assert_equal(found[0], torch.stack([value[0] - value[2], value[1] - value[2], torch.zeros(())]), 1e-9)


@pytest.mark.parametrize("name", STRAIGHT + CONTROLLED)
def test_the_model_learns_from_whole_objects(name):
    problem = at(problem_of(cosh, 0.8, 0.7, 0.4), 0.5, 0.5, 0.5)
    scores = problem.scores.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(make(name)(replace(problem, scores=scores)).sum(), scores)
    assert found.tolist() == [[0, 0, -1, 0]]


@in_turn("name", [(name,) for name in (*ANTITHETIC, *SOFT)])
def test_computations_stay_on_the_problems_device(name):
    # Tensors without values: any that comes from another device, or is looked into, is an error.
    objects, logits = (torch.zeros(size, device="meta", requires_grad=True) for size in ((3,), (2, 3)))
    scores, log_p_count, context = (torch.zeros(size, device="meta") for size in ((2, 4), (4,), (2, 3, CONTEXT)))
    problem = StopProblem(logits, scores, log_p_count, context, relaxed=lambda e: (e @ objects - 1).square())
    loss = make_estimator(name, CONTEXT).to("meta")(problem)
    loss.sum().backward()
    assert (loss.device.type, loss.dtype, loss.shape) == ("meta", torch.float32, (2,))
