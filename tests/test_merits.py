"""Figure 5's accounts: what is a representation's merit and what a head's, and bounds at the best pixel sd of each."""

import math
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
import torch
from test_comparisons import DRAW_CONFIG, MODELS
from tiny import assert_equal, float64, generator, make_agent, make_images, make_scenes

from air_agents.comparisons import COMPARISONS, DRAW, Classifier
from air_agents.evaluation.metrics import evaluate
from air_agents.jobs.job import Job
from air_agents.reproduction.bounds import PixelBound, bound_of, compared, course_of, last_doubling, sd_of, winner
from air_agents.reproduction.experiment import TEST_SEED
from air_agents.reproduction.figure5 import QUESTIONS, curves
from air_agents.reproduction.merits import GAINS, gains, merits
from air_agents.training.files import write_rows
from air_env.likelihoods import Gaussian

ACCURACIES = {
    ("AIR, inferred once", "plain"): 0.4,
    ("AIR, inferred once", "shared"): 0.6,
    ("AIR, inferred again", "plain"): 0.5,
    ("AIR, inferred again", "shared"): 0.9,
    ("DRAW", "plain"): 0.1,
    ("autoencoder", "plain"): 0.2,
    ("pixels", "plain"): 0.3,
    ("pixels", "convolutional"): 0.7,
}


@pytest.fixture
def rows():
    return pd.DataFrame(
        {"representation": one, "head": head, "task": task, "labels": 1_000, "seed": seed, "accuracy": value}
        for (one, head), value in ACCURACIES.items()
        for task in QUESTIONS
        for seed in (0, 1)
    )


def test_gains_differ_in_one_thing(rows):
    for (one, one_head), (other, other_head) in GAINS.values():
        assert (one != other) + (one_head != other_head) == 1
    found = gains(rows)
    assert len(found) == len(GAINS) * 2 * 2
    by = found.groupby("what", sort=False).gain.mean().round(6)
    assert by["head: shared, not plain (AIR, inferred once)"] == 0.2
    assert by["inference: again, not once (shared head)"] == 0.3
    assert by["representation: AIR, inferred once, not DRAW (plain head)"] == 0.3
    few = rows[rows["representation"] == "DRAW"]
    assert gains(few).empty


def test_the_merits_add_up_to_what_is_reached(rows):
    text = merits(rows, 1_000, QUESTIONS)
    assert text.count("0.300 on the best other representation (pixels)") == 2
    assert text.count("+0.100 (the representation's merit), their inference again by +0.100") == 2
    assert text.count("the shared head by +0.400 (the head's merit), to 0.900") == 2
    assert text.count("reaches 0.600, the convolutional network of pixels 0.700") == 2


def test_every_line_of_the_picture_has_a_name_beside_it(rows):
    more = pd.concat([rows, rows.assign(labels=100)])
    panels = curves(more, dict.fromkeys(QUESTIONS, 0.1)).axes
    named = [{text.get_text() for text in axes.texts} for axes in panels]
    plain = {"AIR, inferred once", "AIR, inferred again", "DRAW", "autoencoder", "pixels", "pixels, convolutional"}
    assert named == [plain, {"AIR, inferred once", "AIR, inferred again", "pixels, convolutional"}] * 2
    for axes in panels:
        heights = sorted(text.xy[1] for text in axes.texts)
        assert min(after - before for before, after in pairwise(heights)) > 0.05


def test_a_bound_at_another_sd_is_that_of_the_same_network():
    with float64():
        model = DRAW(DRAW_CONFIG)
    other = DRAW(replace(DRAW_CONFIG, likelihood_scale=0.1)).double()
    other.load_state_dict(model.state_dict())
    scenes = make_scenes(20)
    model.float()
    other.float()
    bound = bound_of(model, scenes)
    assert bound.at(0.1) == pytest.approx(bound_of(other, scenes).at(0.1), abs=1e-2)
    with torch.no_grad():
        expected = model.bound(scenes.float_images(), generator(TEST_SEED)).mean().item()
    assert bound.at(0.2) == pytest.approx(expected, abs=1e-2)
    assert bound.best_sd == pytest.approx(max(torch.arange(0.01, 1, 0.001).tolist(), key=bound.at), abs=1e-3)


def test_an_agents_bound_is_its_elbo():
    agent, scenes = make_agent().float(), make_scenes(20)
    found = evaluate(agent, scenes, num_samples=1, generator=generator(TEST_SEED))
    bound = bound_of(agent, scenes)
    assert bound.at(sd_of(agent)) == pytest.approx(found["elbo"], abs=1e-3)
    assert bound.squared_error > 0


def test_what_is_chosen_on_some_scenes_is_measured_on_others():
    agent, some, others = make_agent().float(), make_scenes(20), make_scenes(20)[:5]
    row = compared(agent, some, others)
    assert row["best_sd"] == bound_of(agent, some).best_sd
    assert row["elbo_best_sd"] == bound_of(agent, others).at(row["best_sd"])
    point = compared(MODELS["autoencoder"].make(), some, others)
    assert "elbo" not in point, "a point has no bound"


def test_a_learned_sd_is_that_of_the_likelihood_and_goes_where_the_bound_is_larger():
    with float64():
        model = DRAW(replace(DRAW_CONFIG, learn_scale=True))
    images = make_images(4)
    fixed = Gaussian(0.2).log_prob(images, model.reconstruct(images))
    model.noise = lambda images, generator=None: torch.zeros(3, len(images), 2, dtype=images.dtype)
    log_likelihood, _ = model.terms(images)
    assert_equal(log_likelihood.detach(), fixed, 1e-9)
    optimizer = torch.optim.SGD([model.log_sd], 1e-4)
    for _ in range(300):
        optimizer.zero_grad()
        (-model.bound(images).mean()).backward()
        optimizer.step()
    error = (model.reconstruct(images) - images).square().mean().sqrt().item()
    assert model.likelihood.scale == pytest.approx(error, rel=1e-2)


def test_the_winner_of_the_bounds_is_named():
    own = pd.DataFrame({"representation": ["AIR", "DRAW", "autoencoder"], "elbo_best_sd": [10.0, 12.5, None]})
    assert "the bound of DRAW is 2.5 nats above that of AIR" in winner(own)


@pytest.mark.parametrize("held_out", ["elbo_validation", "log_likelihood_validation", "elbo_test", None])
def test_a_course_is_of_validation_scenes_where_a_run_measured_them(tmp_path, held_out):
    row = {"iteration": 5, "elbo": 1.0} | ({held_out: 2.0} if held_out else {})
    write_rows([row], tmp_path / "metrics.csv")
    assert course_of(Job(tmp_path, COMPARISONS["draw"])) == {5: 2.0 if held_out else 1.0}


def test_a_course_is_flat_where_its_last_doubling_gains_nothing():
    assert last_doubling({10: 1.0, 20: 5.0, 40: 5.5}) == 0.5
    assert last_doubling({10: 1.0, 15: 2.0}) == 0.0


def test_every_image_is_moved_by_itself_and_nothing_is_lost():
    model: Classifier = MODELS["sum"].make()
    images = torch.zeros(200, 1, 12, 12)
    images[:, 0, 5, 6] = 1.0
    moved = model._shifted(images)
    y, x = moved[:, 0].flatten(1).argmax(1) // 12, moved[:, 0].flatten(1).argmax(1) % 12
    assert moved.shape == images.shape
    assert_equal(moved.sum((1, 2, 3)), torch.ones(200))
    assert set(zip(y.tolist(), x.tolist(), strict=True)) == {(i, j) for i in (4, 5, 6) for j in (5, 6, 7)}


def test_the_best_sd_is_the_root_of_the_mean_squared_error():
    bound = PixelBound.of(elbo=-3.0, log_likelihood=-1.0, sd=0.5, num_pixels=4)
    assert bound.divergence == 2.0
    assert bound.at(0.5) == pytest.approx(-3.0)
    assert bound.best_sd == pytest.approx(math.sqrt(bound.squared_error / 4))
