"""Likelihoods against the distributions of torch."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import SCALES, assert_equal, float64, generator, in_turn, normal, pixel_log_prob

from air_env.likelihoods import LIKELIHOODS
from air_env.model import SceneConfig, SceneModel


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """Pixels in [0, 1], with 0 and 1 among them."""
    return (0.5 + 0.5 * normal(*shape, seed=seed)).clip(0, 1)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(1, 6, 6), (5, 1, 6, 6), (2, 5, 3, 6, 4)])
def test_log_prob_is_that_of_torch_summed_over_the_image(name, shape):
    image, canvas = pixels(*shape), 2 * pixels(*shape, seed=1)
    expected = pixel_log_prob(name, image, canvas).sum((-3, -2, -1))
    with float64():
        log_prob = LIKELIHOODS[name](SCALES[name]).log_prob(image, canvas)
    assert log_prob.shape == shape[:-3]
    assert_equal(log_prob, expected, 1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_one_image_can_be_compared_with_many_canvases(name):
    likelihood = LIKELIHOODS[name](SCALES[name])
    images, canvases = pixels(4, 1, 6, 6), pixels(4, 3, 1, 6, 6, seed=1)
    one_by_one = torch.stack([likelihood.log_prob(images, canvases[:, i]) for i in range(3)], 1)
    assert_equal(likelihood.log_prob(images[:, None], canvases), one_by_one, 1e-12)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_many_images_can_be_compared_with_one_canvas(name):
    likelihood = LIKELIHOODS[name](SCALES[name])
    images, canvases = pixels(4, 3, 1, 6, 6), pixels(4, 1, 6, 6, seed=1).requires_grad_()
    one_by_one = torch.stack([likelihood.log_prob(images[:, i], canvases) for i in range(3)], 1)
    at_once = likelihood.log_prob(images, canvases[:, None])
    assert_equal(at_once, one_by_one, 1e-12)
    gradients = [torch.autograd.grad(log_prob.sum(), canvases)[0] for log_prob in (at_once, one_by_one)]
    assert_equal(gradients[0], gradients[1], 1e-9)


@in_turn(
    "name share",
    [
        ("gaussian", lambda x, c, scale: stats.norm.cdf(x, c, scale)),
        ("learned_gaussian", lambda x, c, scale: stats.norm.cdf(x, c, scale)),
        ("laplace", lambda x, c, scale: stats.laplace.cdf(x, c, scale)),
        ("student_t", lambda x, c, scale: stats.t.cdf(x, 3, c, scale)),
        ("outliers", lambda x, c, scale: 0.95 * stats.norm.cdf(x, c, scale) + 0.05 * np.clip(x, 0, 1)),
    ],
)
def test_samples_follow_the_distribution_function(name, share):
    canvas = pixels(1, 4, 4).expand(2000, 1, 4, 4)
    samples = LIKELIHOODS[name](SCALES[name]).sample(canvas, generator()).detach().numpy()
    assert stats.kstest(share(samples, canvas.numpy(), SCALES[name]).flatten(), "uniform").pvalue > 0.01


def test_samples_of_a_bernoulli_are_black_and_white_and_as_bright_as_the_canvas():
    canvas = pixels(1, 4, 4)
    samples = LIKELIHOODS["bernoulli"]().sample(canvas.expand(2000, 1, 4, 4), generator())
    assert set(samples.unique().tolist()) == {0, 1}
    share = canvas.clip(1e-3, 1 - 1e-3)
    errors = (samples.mean(0) - share) / (share * (1 - share) / 2000).sqrt()
    assert errors.abs().max() < 4.5


def test_a_pixel_that_nothing_explains_costs_little_where_outliers_are_expected():
    black, white = torch.zeros(1, 1, 1).double(), torch.ones(1, 1, 1).double()
    assert LIKELIHOODS["outliers"](0.1).log_prob(white, black).item() == pytest.approx(math.log(0.05), abs=1e-6)
    student, gaussian = (LIKELIHOODS[name](0.1).log_prob for name in ("student_t", "gaussian"))
    costs = [(log_prob(black, black) - log_prob(white, black)).item() for log_prob in (student, gaussian)]
    assert costs == pytest.approx([2 * math.log(1 + 10**2 / 3), 10**2 / 2], abs=1e-9)


def test_no_pixel_beyond_black_or_white_is_an_outlier():
    beyond = torch.full((1, 1, 1), 1.5).double()
    assert LIKELIHOODS["outliers"](0.1).log_prob(beyond, torch.zeros_like(beyond)) < -100


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "bernoulli"])
def test_densities_integrate_to_one(name):
    image = torch.linspace(-200, 200, 4_000_001).double()
    log_prob = LIKELIHOODS[name]().log_prob(image.view(-1, 1, 1, 1), torch.full((1, 1, 1), 0.4).double())
    assert torch.trapezoid(log_prob.exp(), image).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_follow_the_generator_alone(name):
    likelihood, canvas = LIKELIHOODS[name](SCALES[name]), pixels(1, 6, 6).clip(0.3, 0.7)
    torch.manual_seed(0)
    first = likelihood.sample(canvas, generator(3))
    torch.manual_seed(1)
    assert_equal(likelihood.sample(canvas, generator(3)), first)
    assert not torch.equal(likelihood.sample(canvas, generator(4)), first)


def test_no_bernoulli_pixel_costs_more_than_the_clipping_allows():
    black, white = torch.zeros(1, 1, 1).double(), torch.ones(1, 1, 1).double()
    log_prob = LIKELIHOODS["bernoulli"](0.01).log_prob(white, black)
    assert log_prob.item() == pytest.approx(math.log(0.01), abs=1e-12)


def test_an_unknown_likelihood_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=f"'gauss' is unknown; choose one of {', '.join(LIKELIHOODS)}"):
        SceneConfig(likelihood="gauss")


@in_turn(
    "likelihood scale",
    [
        ("gaussian", 0),
        ("laplace", -0.1),
        ("gaussian", math.nan),
        ("learned_gaussian", 1 / 255),
        ("bernoulli", 0.5),
        ("bernoulli", 0.7),
    ],
)
def test_a_scale_out_of_range_is_refused(likelihood, scale):
    with pytest.raises(ValueError, match="likelihood_scale"):
        SceneConfig(likelihood=likelihood, likelihood_scale=scale)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_chosen_by_name_has_its_own_scale(name):
    # A clipping of 0.3, the Gaussian's scale, would leave a Bernoulli pixel between 0.3 and 0.7.
    likelihood = SceneModel(SceneConfig(likelihood=name)).likelihood
    assert isinstance(likelihood, type(LIKELIHOODS[name]()))
    assert likelihood.scale == pytest.approx(SCALES[name], rel=1e-6)


def test_a_learned_sd_becomes_that_of_the_errors_and_stays_so():
    model = SceneModel(SceneConfig(likelihood="learned_gaussian")).double()
    images = pixels(5, 1, 50, 50)
    canvas = images + 0.1 * normal(5, 1, 50, 50, seed=1)
    optimizer = torch.optim.Adam(model.likelihood.parameters(), lr=0.05)
    for iteration in range(300):
        model.anneal(iteration)
        optimizer.zero_grad()
        (-model.likelihood.log_prob(images, canvas).mean()).backward()
        optimizer.step()
    wanted = (images - canvas).square().mean().sqrt().item()
    assert model.likelihood.scale == pytest.approx(wanted, rel=1e-3)
    model.float().anneal(None)
    assert model.likelihood.scale == pytest.approx(wanted, rel=1e-3)
    assert [name for name, _ in model.named_parameters() if "likelihood" in name] == ["likelihood.log_excess"]


def test_the_gradient_in_a_learned_sd_is_the_derivative():
    likelihood = LIKELIHOODS["learned_gaussian"](0.2).double()
    images, canvas = pixels(2, 1, 4, 4), pixels(2, 1, 4, 4, seed=1)

    def log_prob(log_excess: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(likelihood, {"log_excess": log_excess}, (images, canvas))

    likelihood.forward = likelihood.log_prob
    assert torch.autograd.gradcheck(log_prob, (likelihood.log_excess.detach().clone().requires_grad_(),))


def test_a_learned_sd_is_not_annealed():
    with pytest.raises(ValueError, match=r"initial_likelihood_scale must be None .* learned, got 1\.0"):
        SceneConfig(likelihood="learned_gaussian", initial_likelihood_scale=1.0)
