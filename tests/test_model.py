"""The generative model: rewards against an independent log-joint, absorbing states, samples."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    NUM_STEPS,
    SCALES,
    SCENE,
    SIDE,
    WHAT,
    WHERE,
    assert_equal,
    float64,
    generator,
    in_turn,
    make_images,
    make_model,
    normal,
    pixel_log_prob,
    z_score,
)
from torch import Tensor
from torch.distributions import Normal

from air_env.explanation import Explanation
from air_env.likelihoods import LIKELIHOODS
from air_env.model import Action, SceneConfig, SceneModel, SceneState
from air_env.priors import COUNT_PRIORS, CountPrior
from air_env.renderers import SpriteConfig
from air_env.rewards import RewardTerms

COUNTS = torch.arange(NUM_STEPS + 1)
PRESENT = torch.arange(NUM_STEPS) < COUNTS[:, None]


def latents(batch: int = len(COUNTS), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Windows that are seen, and appearances beyond the linear part of the sigmoid."""
    z_where = normal(batch, NUM_STEPS, WHERE, seed=seed) * 0.4 - torch.tensor([0.7, 0.0, 0.0])
    return z_where, 3 * normal(batch, NUM_STEPS, WHAT, seed=seed + 1)


def episode(model: SceneModel, images: Tensor, z: tuple[Tensor, Tensor]) -> tuple[list[SceneState], list[RewardTerms]]:
    """N steps that draw as many objects in each image as COUNTS says."""
    states, rewards = [model.initial(images)], []
    for i in range(NUM_STEPS):
        state, terms = model.step(states[-1], Action.of_object(PRESENT[:, i], z[0][:, i], z[1][:, i]))
        states.append(state)
        rewards.append(terms)
    return states, rewards


def log_joint_by_hand(model: SceneModel, image: Tensor, z_where: Tensor, z_what: Tensor) -> Tensor:
    """``log p(x, z, n)`` of one image and its n objects, from torch's distributions and `grid_sample`."""
    config, prior = model.config, model.config.count_prior
    weights = {
        "geometric": [prior.parameter**n for n in range(NUM_STEPS + 1)],
        "uniform": [1.0] * (NUM_STEPS + 1),
        "binomial": [
            math.comb(NUM_STEPS, n) * prior.parameter**n * (1 - prior.parameter) ** (NUM_STEPS - n)
            for n in range(NUM_STEPS + 1)
        ],
    }[prior.name]
    log_p = torch.tensor(weights[len(z_where)] / sum(weights)).double().log()
    canvas = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    for where, what in zip(z_where, z_what, strict=True):
        log_p = log_p + Normal(torch.tensor(config.where_mean), torch.tensor(config.where_sd)).log_prob(where).sum()
        log_p = log_p + Normal(torch.zeros(WHAT), torch.ones(WHAT)).log_prob(what).sum()
        inverse, patch = (-where[0]).exp(), model.renderer.decoder(what).sigmoid().view(1, 1, 5, 5)
        zero = torch.zeros_like(inverse)
        affine = torch.stack([inverse, zero, -where[1] * inverse, zero, inverse, -where[2] * inverse]).view(1, 2, 3)
        canvas = canvas + F.grid_sample(patch, F.affine_grid(affine, [1, 1, SIDE, SIDE], align_corners=False),
                                        align_corners=False)  # fmt: skip
    return log_p + pixel_log_prob(config.likelihood, image, canvas[0], config.likelihood_scale).sum()


@pytest.fixture
def float64_constants():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64_constants")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("count_prior", [CountPrior(name, 0.3) for name in COUNT_PRIORS], ids=list(COUNT_PRIORS))
def test_rewards_telescope_to_the_log_joint(likelihood, count_prior):
    model = make_model(likelihood=likelihood, likelihood_scale=SCALES[likelihood], count_prior=count_prior)
    images, (z_where, z_what) = make_images(len(COUNTS)), latents()
    states, rewards = episode(model, images, (z_where, z_what))
    returns = states[0].log_p_x + sum(terms.total for terms in rewards)
    whole = model.log_joint(images, Explanation.of_objects(PRESENT.double(), z_where, z_what))
    by_hand = torch.stack(
        [log_joint_by_hand(model, images[b], z_where[b, :n], z_what[b, :n]) for b, n in enumerate(COUNTS.tolist())]
    )
    assert_equal(returns, by_hand, 1e-9)
    assert_equal(whole, by_hand, 1e-9)


def test_the_state_carries_the_likelihood_of_its_canvas_and_the_number_of_objects():
    model, images = make_model(), make_images(len(COUNTS))
    states, _ = episode(model, images, latents())
    for i, state in enumerate(states):
        assert_equal(state.log_p_x, model.likelihood.log_prob(images, state.canvas), 1e-9)
        assert_equal(state.step, COUNTS.clamp(max=i))
        assert_equal(state.active, (i <= COUNTS) & (i < NUM_STEPS))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_unroll_equals_steps_that_all_draw_an_object(likelihood):
    model, images = make_model(likelihood=likelihood), make_images(4)
    z_where, z_what = latents(4)
    state, rewards = model.initial(images), []
    for i in range(NUM_STEPS):
        state, terms = model.step(state, Action.of_object(torch.ones(4), z_where[:, i], z_what[:, i]))
        rewards.append(terms)
    at_once = model.unroll(images, Explanation.of_objects(torch.ones_like(z_where[..., 0]), z_where, z_what))
    for name, part in at_once.parts.items():
        assert_equal(part, torch.stack([terms.parts[name] for terms in rewards], 1), 1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_log_joints_are_those_of_the_first_objects(likelihood):
    model, images = make_model(likelihood=likelihood), make_images(4)
    z = Explanation.of_objects(torch.ones(4, NUM_STEPS).double(), *latents(4))
    expected = [model.log_joint(images, z.keep(torch.full((4,), n))) for n in range(NUM_STEPS + 1)]
    assert_equal(model.log_joints(images, z), torch.stack(expected, 1), 1e-9)


def test_finished_episodes_are_absorbing_with_reward_zero():
    model, images = make_model(), make_images(len(COUNTS))
    states, _ = episode(model, images, latents())
    assert not states[-1].active.any()
    action = Action.of_object(torch.ones(len(COUNTS)), *(part[:, 0] for part in latents(seed=5)))
    after, terms = model.step(states[-1], action)
    for part in terms.parts.values():
        assert_equal(part, torch.zeros(len(COUNTS), dtype=torch.float64))
    assert_equal(vars(after) | {"z": vars(after.z)}, vars(states[-1]) | {"z": vars(states[-1].z)})


def values_and_gradients(model: SceneModel, total, z: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The total of the model's log-joint, and its gradients in the latents and in the decoder."""
    leaves = [part.clone().requires_grad_() for part in z]
    value = total(leaves)
    gradients = torch.autograd.grad(value.sum(), [*leaves, *model.parameters()])
    return [value, *(part[PRESENT] for part in gradients[:2]), *(part[~PRESENT] for part in gradients[:2]),
            *gradients[2:]]  # fmt: skip


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1e300])
@pytest.mark.parametrize("way", ["steps", "log_joint"])
def test_latents_of_absent_objects_reach_neither_values_nor_gradients(way, garbage):
    model, images, z = make_model(), make_images(len(COUNTS)), latents()

    def total(z):
        if way == "log_joint":
            return model.log_joint(images, Explanation.of_objects(PRESENT.double(), *z))
        return sum(terms.total for terms in episode(model, images, z)[1])

    clean = values_and_gradients(model, total, z)
    dirty = values_and_gradients(model, total, tuple(part.masked_fill(~PRESENT[..., None], garbage) for part in z))
    assert all(part.isfinite().all() for part in clean)
    assert_equal(dirty, clean, 1e-12)
    # The last axis of the gradients in absent latents: nothing comes back.
    assert not any(part.any() for part in clean[3:5])


def test_gradients_of_the_rewards_reach_latents_and_decoder():
    model, images = make_model(), make_images(len(COUNTS))
    gradients = values_and_gradients(
        model, lambda z: sum(terms.total for terms in episode(model, images, z)[1]), latents()
    )
    for gradient in (*gradients[1:3], *gradients[5:]):
        assert gradient.count_nonzero() > 0.3 * gradient.numel()


def test_counts_of_sampled_scenes_follow_the_prior():
    model = make_model(count_prior=CountPrior("geometric", 0.5))
    _, z = model.sample(4000, generator())
    for n, probability in enumerate(model.log_p_count.exp().tolist()):
        assert abs(z_score((z.count == n).double(), probability)) < 4


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_sampled_scenes_are_consistent(likelihood):
    model = make_model(likelihood=likelihood, likelihood_scale=SCALES[likelihood], count_prior=CountPrior("uniform"))
    images, z = model.sample(200, generator())
    assert images.shape == (200, 1, SIDE, SIDE)
    assert model.log_joint(images, z).isfinite().all()
    canvas = model.render(z)
    assert set(z.count.tolist()) == set(range(NUM_STEPS + 1))
    # The code is unary, and absent objects are 0.
    assert (z.z_pres.diff(dim=1) <= 0).all()
    absent = z.z_pres == 0
    assert not z.z_where[absent].any()
    assert not z.z_what[absent].any()
    assert abs(z_score(z.z_where[~absent][:, 0], model.config.where_mean[0])) < 4
    # Residuals are the likelihood's noise: their log-density is that of fresh samples.
    again = model.likelihood.log_prob(model.likelihood.sample(canvas, generator(1)), canvas)
    assert abs(z_score(model.likelihood.log_prob(images, canvas) - again)) < 4


def test_samples_follow_the_generator_alone():
    model = make_model(count_prior=CountPrior("uniform"))
    torch.manual_seed(0)
    first = model.sample(5, generator(3))
    torch.manual_seed(1)
    second = model.sample(5, generator(3))
    assert_equal(first[0], second[0])
    assert_equal(first[1].z_what, second[1].z_what)


@pytest.mark.parametrize("count_prior", COUNT_PRIORS)
def test_the_prior_of_the_count_sums_to_one(count_prior):
    model = make_model(count_prior=CountPrior(count_prior, 0.2))
    assert model.log_p_count.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_weights_are_the_renderers_alone():
    # Buffers are constants of the configuration: no checkpoint can change them.
    assert {name.split(".")[0] for name in make_model().state_dict()} == {"renderer"}


@pytest.mark.parametrize(("name", "value"), [("num_steps", 0), ("likelihood_scale", 0.0), ("image_size", 0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}.* must .*, got {value}"):
        SceneConfig(**{name: value})


@pytest.mark.parametrize("iteration", [None, 5])
def test_a_model_moved_to_double_precision_is_one_made_in_it(iteration):
    prior = CountPrior("geometric", 1e-5, initial_parameter=0.3, anneal_steps=10)
    config = replace(SCENE, count_prior=prior, where_mean=(-1.3, 0.1, 0.2), renderer=SpriteConfig(size=5))
    moved = SceneModel(config)
    moved.anneal(iteration)
    moved = moved.double()
    with float64():
        made = SceneModel(config)
    made.anneal(iteration)
    for name in ("log_p_count", "log_p_go", "log_p_stop"):
        assert_equal(getattr(moved, name), getattr(made, name))
    for prior in ("prior_where", "prior_what"):
        assert_equal(dict(getattr(moved, prior).named_buffers()), dict(getattr(made, prior).named_buffers()))


def test_rendering_draws_present_objects_only():
    model = make_model()
    drawn = []
    model.renderer.add = lambda canvas, where, what: drawn.append(len(canvas)) or canvas
    z_pres = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    model.render(Explanation.of_objects(z_pres, normal(3, 3, WHERE), normal(3, 3, WHAT)))
    assert drawn == [2, 1]


@in_turn(
    "setting value",
    [
        ("num_steps", 2.5),
        ("num_steps", "3"),
        ("image_size", 0),
        ("where_sd", (0.0, 1.0, 1.0)),
        ("where_mean", (0.0, 1.0)),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be"):
        replace(SCENE, **{setting: value})
