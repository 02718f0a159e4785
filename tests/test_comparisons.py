"""Comparisons: DRAW against its equations, tasks against scenes made by hand, runs that resume exactly."""

import math
import re
from dataclasses import replace

import pytest
import torch
from test_run import files_of, rows_of
from tiny import RECIPE as AIR_RECIPE
from tiny import SCENE_OPTIONS, SIDE, assert_equal, float64, generator, make_images, normal, z_score

from air_agents.comparisons import (
    COMPARISONS,
    DRAW,
    TASKS,
    Autoencoder,
    AutoencoderConfig,
    Classifier,
    ClassifierConfig,
    ComparisonRecipe,
    DRAWConfig,
    PoseRegressor,
    TableRegressor,
    load_comparison,
)
from air_agents.comparisons.attention import Grid, Stroke
from air_agents.comparisons.training import MODEL_FILE
from air_agents.training.checkpoints import AGENT_FILE
from air_agents.training.directory import CONFIG_FILE, EVALUATION_FILE, RESUME_FILE
from air_agents.training.files import read_json
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun
from air_env.likelihoods import Gaussian
from air_env.scenes import SceneDataset, make_scene

DRAW_CONFIG = DRAWConfig(image_size=SIDE, num_steps=3, latent=2, hidden=6, window=3)
MODELS = {
    "draw": DRAW_CONFIG,
    "autoencoder": AutoencoderConfig(image_size=SIDE, code=4, channels=(4, 4), hidden=8),
    "sum": ClassifierConfig("sum", image_size=SIDE, channels=(4, 4), hidden=8, shift=1),
}
RECIPE = ComparisonRecipe(
    DRAW_CONFIG,
    max_steps=6,
    scene="digits",
    scene_options={"counts": (2,), **SCENE_OPTIONS},
    num_train=32,
    batch_size=8,
    evaluate_every=2,
    num_validation=8,
    num_final=8,
    num_pictured=2,
)


def recipe_of(name: str, **changes) -> ComparisonRecipe:
    return replace(RECIPE, model=MODELS[name], **changes)


def make_draw(**changes) -> DRAW:
    """DRAW in double precision, whose latents and strokes depend on the image."""
    with float64():
        model = DRAW(replace(DRAW_CONFIG, **changes))
        torch.nn.init.normal_(model.stroke.weight, std=0.3)
        torch.nn.init.normal_(model.posterior.weight, std=0.5)
        return model


def make_scene_dataset(labels: list[list[int]], x0: list[list[float]]) -> SceneDataset:
    """Scenes of two objects of 4 pixels, whose left borders are given."""
    boxes = torch.tensor(x0)[..., None] + torch.tensor([0.0, 0.0, 4.0, 4.0])
    boxes[..., 1], boxes[..., 3] = 1.0, 5.0
    images = torch.zeros(len(labels), 1, SIDE, SIDE, dtype=torch.uint8)
    return SceneDataset(images, torch.full((len(labels),), 2), torch.tensor(labels), boxes)


def naive_filters(window: list[float], side: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The filter banks by the equations of Gregor et al., one number at a time; without the intensity."""
    g_y, g_x, log_precision, log_stride, _ = window
    banks = []
    for g in (g_y, g_x):
        centre = (side + 1) / 2 * (g + 1)
        stride = (side - 1) / (size - 1) * math.exp(log_stride)
        bank = torch.zeros(size, side, dtype=torch.float64)
        for i in range(1, size + 1):
            mean = centre + (i - size / 2 - 0.5) * stride
            for a in range(1, side + 1):
                bank[i - 1, a - 1] = math.exp(-((a - mean) ** 2) * math.exp(log_precision) / 2)
            bank[i - 1] /= bank[i - 1].sum()
        banks.append(bank)
    return banks[0], banks[1]


def make_grid(side: int, size: int) -> Grid:
    with float64():
        return Grid(side, size)


def test_filter_banks_are_those_of_the_equations():
    windows = 0.5 * normal(2, 2, 5)
    rows, columns = make_grid(9, 4)(windows)
    for i in range(2):
        for j in range(2):
            expected = naive_filters(windows[i, j].tolist(), 9, 4)
            assert_equal(rows[i, j], expected[0], 1e-12)
            assert_equal(columns[i, j], expected[1] * windows[i, j, 4].exp(), 1e-12)


def test_filters_sum_to_one_even_far_outside_the_image():
    rows, columns = make_grid(9, 4)(5 * normal(8, 2, 5))
    intensity = (5 * normal(8, 2, 5))[..., 4:].exp()
    assert_equal(rows.sum(-1), torch.ones(8, 2, 4, dtype=torch.float64), 1e-9)
    assert_equal(columns.sum(-1) / intensity, torch.ones(8, 2, 4, dtype=torch.float64), 1e-9)


def test_sharp_filters_at_every_pixel_of_a_crop_read_and_write_just_that():
    # Stride 1, no blur, centred: the middle 5 pixels of 9.
    window = torch.tensor([0, 0, math.log(1e4), math.log((5 - 1) / (9 - 1)), 0], dtype=torch.float64)
    rows, columns = make_grid(9, 5)(window.expand(1, 2, 5))
    image, picture, patch = normal(1, 9, 9, seed=1), normal(1, 9, 9, seed=2), normal(1, 5, 5, seed=3)
    stroke = Stroke(rows, columns, patch)
    seen, missing = stroke.read(image, picture)
    assert_equal(seen, image[:, 2:7, 2:7].flatten(1), 1e-12)
    assert_equal(missing, (image - picture)[:, 2:7, 2:7].flatten(1), 1e-12)
    written = image.clone()
    written[:, 2:7, 2:7] += patch
    assert_equal(stroke.write(image), written, 1e-12)


def test_the_elbo_is_that_of_the_equations():
    model, images = make_draw(), make_images(3)
    with torch.no_grad():
        elbo = model.bound(images, generator(5))
        noise = torch.randn(3, 3, 2, generator=generator(5), dtype=torch.float64)
        for k in range(3):
            assert_equal(elbo[k], naive_elbo(model, images[k, 0], noise[:, k]), 1e-9)


def naive_elbo(model: DRAW, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The ELBO of one image: log-likelihood and divergences from torch's distributions, steps one by one."""

    def lstm(gates: torch.nn.Linear, inputs: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]):
        add, keep, show, new = gates(torch.cat([inputs, state[0]])).chunk(4)
        cell = keep.sigmoid() * state[1] + add.sigmoid() * (new / 2).tanh()
        return show.sigmoid() * cell.tanh(), cell

    n = model.config.window
    zeros = torch.zeros(model.config.hidden, dtype=torch.float64)
    encoder, decoder, kl = (zeros, zeros), (zeros, zeros), 0.0
    canvas = model.canvas + torch.zeros_like(x)
    for step in range(model.config.num_steps):
        read = model.stroke(decoder[0])[5:10]
        fy, fx = naive_filters(read.tolist(), len(x), n)
        glimpses = [read[4].exp() * fy @ seen @ fx.T for seen in (x, x - canvas.sigmoid())]
        encoder = lstm(model.encoder.gates, torch.cat([g.flatten() for g in glimpses] + [decoder[0]]), encoder)
        mean, log_sd = model.posterior(encoder[0]).chunk(2)
        q = torch.distributions.Normal(mean, log_sd.exp())
        kl += torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(mean), 1.0)).sum()
        decoder = lstm(model.decoder.gates, mean + log_sd.exp() * noise[step], decoder)
        stroke = model.stroke(decoder[0])
        fy, fx = naive_filters(stroke[:5].tolist(), len(x), n)
        canvas = canvas + stroke[4].exp() * fy.T @ stroke[10:].view(n, n) @ fx
    return torch.distributions.Normal(canvas.sigmoid(), 0.2).log_prob(x).sum() - kl


def test_the_likelihood_is_that_of_air():
    likelihood = RECIPES["multi_mnist_air"].model.make_likelihood()
    assert make_draw().likelihood == Autoencoder(MODELS["autoencoder"]).likelihood == likelihood == Gaussian(0.2)
    assert RECIPES["multi_mnist_dair"].model.make_likelihood() == likelihood


def test_the_bound_of_one_sample_has_the_elbo_as_its_mean_and_that_of_more_is_tighter():
    model, images = make_draw(), make_images(1)
    many = images.expand(4000, -1, -1, -1)
    with torch.no_grad():
        elbo, one, five = (
            model.bound(many, generator()),
            model.iwae(many, 1, generator()),
            model.iwae(many, 5, generator(1)),
        )
        assert abs(z_score(one - elbo)) < 4
        assert z_score(five, elbo.mean()) > 5
        # With the same noise, the sampled divergence replaces the one in closed form.
        painting = model.paint(many, model.noise(many, generator()))
    assert_equal(one, elbo + painting.kl() + painting.log_ratio(), 1e-9)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        model.iwae(images, 0)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_parameter(name):
    model = recipe_of(name).model.make()
    scenes = make_scene("digits", **RECIPE.scene_options).dataset("train", 8)
    model.score(scenes).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_draw_shows_what_it_paints():
    model, images = make_draw(), make_images(5)
    trace = model.trace(images)
    assert trace.shape == (5, 3, 1, SIDE, SIDE)
    assert_equal(model.reconstruct(images), trace[:, -1])
    assert model.features(images).shape == (5, 3 * 2)
    assert_equal(model.features(images)[2:3], model.features(images[2:3]), 1e-12)
    assert not model.features(images).requires_grad


@pytest.mark.parametrize("side", [12, 13, 50])
def test_autoencoders_return_images_as_large_as_they_were(side):
    model = Autoencoder(replace(MODELS["autoencoder"], image_size=side))
    images = torch.rand(2, 1, side, side, generator=generator())
    assert model.reconstruct(images).shape == images.shape
    assert model.features(images).shape == (2, 4)
    expected = torch.distributions.Normal(model.reconstruct(images), 0.2).log_prob(images).sum((1, 2, 3))
    assert_equal(model.bound(images).detach(), expected, 1e-4)


def test_tasks_ask_for_sum_order_and_count():
    # In the last two scenes the first digit is the right one.
    scenes = make_scene_dataset([[3, 7], [7, 3], [4, 4], [3, 7], [7, 3]], [[0, 6], [0, 6], [0, 6], [6, 0], [6, 0]])
    answers = {name: targets(scenes).tolist() for name, (_, targets) in TASKS.items()}
    assert answers == {"sum": [10, 10, 8, 10, 10], "order": [1, 0, 0, 0, 1], "count": [2] * 5}
    assert all(max(answers[name]) < classes for name, (classes, _) in TASKS.items())
    assert TASKS["sum"][1](make_scene_dataset([[9, 9]], [[0, 6]])).tolist() == [TASKS["sum"][0] - 1]


@pytest.mark.parametrize("task", ["sum", "order"])
def test_questions_about_two_digits_need_two_digits(task):
    scenes = make_scene("digits", **SCENE_OPTIONS).dataset("test", 20)
    with pytest.raises(ValueError, match=r"asked of two digits.*counts=\(2,\)"):
        TASKS[task][1](scenes)


@pytest.mark.parametrize(("name", "stop_at"), [("draw", 3), ("autoencoder", 4), ("sum", 3)])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, name, stop_at):
    whole = TrainingRun.start(tmp_path / "whole", recipe_of(name))
    whole.train()
    TrainingRun.start(tmp_path / "parts", recipe_of(name)).train(stop_at=stop_at)
    torch.rand(3)
    resumed = TrainingRun.resume(tmp_path / "parts")
    assert resumed.trainer.iteration == stop_at
    assert resumed.recipe == recipe_of(name)
    resumed.train()
    assert_equal(resumed.trainer.state_dict(), whole.trainer.state_dict())
    rows = [[{**row, "minutes": None} for row in rows_of(tmp_path / part)] for part in ("whole", "parts")]
    assert rows[1] == rows[0]
    assert len(rows[0]) == 3
    figures = [{**run.finish(), "minutes": None} for run in (whole, resumed)]
    assert figures[1] == figures[0]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("draw", {"elbo", "iwae", "squared_error"}),
        ("autoencoder", {"log_likelihood", "squared_error"}),
        ("sum", {"accuracy"}),
    ],
)
def test_a_finished_run_holds_what_was_promised(tmp_path, name, wanted):
    run = TrainingRun.start(tmp_path / "run", recipe_of(name))
    run.train()
    figures = run.finish()
    assert set(figures) == wanted | {"iterations", "minutes"}
    assert read_json(tmp_path / "run" / EVALUATION_FILE) == figures
    pictures = list((tmp_path / "run" / "pictures").iterdir())
    assert len(pictures) == (0 if name == "sum" else 4)
    loaded = load_comparison(tmp_path / "run")
    assert not loaded.training
    assert_equal(dict(loaded.state_dict()), dict(run.trainer.model.state_dict()))


def test_training_leaves_the_callers_generator_alone(tmp_path):
    before = torch.get_rng_state()
    run = TrainingRun.start(tmp_path / "run", recipe_of("sum"))
    run.train()
    run.finish()
    assert_equal(torch.get_rng_state(), before)


def test_every_epoch_visits_every_scene_in_another_order(tmp_path):
    trainer = TrainingRun.start(tmp_path / "run", RECIPE).trainer
    epochs = []
    for _ in range(2):
        rows = []
        for _ in range(4):
            rows.append(trainer._rows())
            trainer.iteration += 1
        epochs.append(torch.cat(rows))
        assert_equal(epochs[-1].sort().values, torch.arange(32))
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(("name", "gain"), [("draw", 3.0), ("autoencoder", 5.0), ("sum", 0.2)])
def test_a_little_training_helps(tmp_path, name, gain):
    recipe = recipe_of(name, max_steps=60, learning_rate=1e-2, evaluate_every=15)
    run = TrainingRun.start(tmp_path / "run", recipe)
    run.train()
    scores = [float(row[run.trainer.objective]) for row in rows_of(tmp_path / "run")]
    assert scores[-1] > scores[0] + gain


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"not safetensors",
        lambda content: content.replace(b"air-env comparison 1", b"air-env comparison 9"),
        lambda content: content.replace(rb"\"hidden\": 6", rb"\"hidden\": 7"),
        lambda content: content.replace(rb"\"num_train\"", rb"\"no_trains\""),
    ],
)
def test_damaged_weights_are_refused(tmp_path, damage):
    TrainingRun.start(tmp_path / "run", RECIPE)
    path = tmp_path / "run" / MODEL_FILE
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} (is damaged|is none of|does not fit)"):
        load_comparison(tmp_path / "run")


def test_foreign_weights_are_refused(tmp_path):
    TrainingRun.start(tmp_path / "air", AIR_RECIPE)
    with pytest.raises(ValueError, match=r"is none of this package .*wanted 'air-env comparison 1'"):
        load_comparison(tmp_path / "air" / AGENT_FILE)
    with pytest.raises(FileNotFoundError, match=f"no comparison at .*{MODEL_FILE}"):
        load_comparison(tmp_path / "air")


@pytest.mark.parametrize("file", [CONFIG_FILE, RESUME_FILE])
def test_a_damaged_run_is_refused(tmp_path, file):
    TrainingRun.start(tmp_path / "run", RECIPE)
    content = (tmp_path / "run" / file).read_bytes()
    (tmp_path / "run" / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be resumed"):
        TrainingRun.resume(tmp_path / "run")


def test_a_run_is_not_made_where_one_is(tmp_path):
    TrainingRun.start(tmp_path / "run", RECIPE)
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match="already holds a run"):
        TrainingRun.start(tmp_path / "run", RECIPE)
    assert files_of(tmp_path) == before


def test_divergence_is_told_and_leaves_a_good_checkpoint(tmp_path):
    run = TrainingRun.start(tmp_path / "run", RECIPE)
    run.train(stop_at=2)
    with torch.no_grad():
        run.trainer.model.canvas.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="ELBO or a weight is not finite at iteration 4 with DRAW"):
        run.train()
    assert load_comparison(tmp_path / "run").canvas.isfinite()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"comparison 'darw' is unknown; choose one of draw, autoencoder, cnn_sum"):
        COMPARISONS.find("darw")
    with pytest.raises(ValueError, match=r"task 'product' is unknown; choose one of sum, order, count"):
        ClassifierConfig("product")
    with pytest.raises(ValueError, match=r"scene 'cats' is unknown; choose one of digits"):
        replace(RECIPE, scene="cats")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DRAWConfig(window=1), "window must be a whole number of at least 2, got 1"),
        (lambda: DRAWConfig(num_steps=0), "num_steps must be a whole number of at least 1, got 0"),
        (lambda: AutoencoderConfig(code=0), "code must be at least 1, got 0"),
        (lambda: Autoencoder(AutoencoderConfig(channels=(4,) * 6)), "one for each halving of 50 pixels"),
        (lambda: ClassifierConfig("sum", dropout=1.0), r"dropout must be at least 0 and below 1, got 1\.0"),
        (lambda: replace(RECIPE, max_steps=0), "max_steps must be positive, got 0"),
        (lambda: replace(RECIPE, learning_rate=math.nan), "learning_rate must be positive, got nan"),
        (lambda: replace(RECIPE, num_train=2.5), "num_train must be a whole number, got 2.5"),
        (lambda: replace(RECIPE, batch_size=64), "batch_size 64 exceeds the 32 training images"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", COMPARISONS)
def test_registered_recipes_make_models(name):
    model = COMPARISONS.find(name).model.make().eval()
    images = torch.zeros(2, 1, 50, 50)
    if isinstance(model, PoseRegressor | TableRegressor):
        assert model.reconstruct(torch.zeros(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    elif isinstance(model, Classifier):
        assert model(images).shape == (2, TASKS[name.removeprefix("cnn_")][0])
    else:
        assert model.reconstruct(images).shape == images.shape
        assert 50 <= model.features(images).shape[1] <= 1000
