"""The properties of estimators on frozen problems, against full enumeration in all parameters."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import RECIPE, assert_equal, generator, make_scenes

from air_agents.estimator_benchmark import frozen as frozen_module
from air_agents.estimator_benchmark import properties as properties_module
from air_agents.estimator_benchmark.cost import Cost, measure_costs
from air_agents.estimator_benchmark.cut import Cut, elbos, mean_gradient, measure_cut, uncut
from air_agents.estimator_benchmark.frozen import JUDGED, SCENES, STAGES, capture, load_frozen
from air_agents.estimator_benchmark.measures import count_likelihoods, logit_variance, moments
from air_agents.estimator_benchmark.probe import probe
from air_agents.estimator_benchmark.properties import PARTS, Properties, clearly_best, make_fitted, measure, parts
from air_agents.estimator_benchmark.properties_page import as_frame, bias_table, cost_table, variance_table, write_page
from air_agents.estimator_benchmark.scaling import Point, changed, points
from air_agents.estimators import ESTIMATORS, make_estimator
from air_agents.estimators.enumeration import objective, outcomes
from air_agents.estimators.testing import randomised, toy_problem
from air_agents.training.trainer import Trainer
from air_env.likelihoods import LIKELIHOODS
from air_env.scenes import ComposedScene, make_scene

ROOT = Path(__file__).parents[1]


@pytest.fixture
def few_images(monkeypatch):
    """Problems of two images, and short fits."""
    for name, value in {
        "_NUM_IMAGES": 2,
        "_NUM_SEVERAL": 2,
        "_NUM_SEQUENCES": 1,
        "_FIT_STEPS": 3,
        "_FIT_LOOKS": 1,
    }.items():
        monkeypatch.setattr(properties_module, name, value)


def frozen_agent(scene="digits", stage="early"):
    return next(agent for agent in load_frozen(scene) if agent.stage == stage)


def by_hand(frozen, name):
    """Bias, cosine and variance from the gradients of all parameters, image by image and outcome by outcome."""
    estimator = make_fitted(name, frozen)
    num_images = 1 if frozen.agent.categorical else 2
    noise = frozen.noise(num_images, estimator, 0)
    groups = parts(frozen.agent)
    everything = [parameter for part in PARTS for parameter in groups[part]]
    sizes = [sum(parameter.numel() for parameter in groups[part]) for part in PARTS]

    def gradient(value):
        found = torch.autograd.grad(value, everything, retain_graph=True, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(everything, found, strict=True)]
        )

    exact, mean, variance = [], [], torch.zeros(3, dtype=torch.float64)
    for image, own in zip(frozen.images[:num_images].split(1), noise.chunk(num_images), strict=True):
        problem = frozen.problem(image, own, estimator, enumerate_categories=frozen.agent.categorical)
        exact.append(gradient(-objective(problem).sum()))
        drawn = [
            ((path * d.probability[row]).item(), gradient(d.loss[row]))
            for d in outcomes(estimator, replace(problem, num_paths=1))
            for row, path in enumerate(problem.path_probabilities()[: len(d.loss)])
        ]
        mean.append(sum(q * g for q, g in drawn))
        spread = sum(q * (g - mean[-1]).square() for q, g in drawn)
        variance += torch.stack([part.sum() for part in spread.split(sizes)])
    reference = exact if estimator.reparameterised else mean
    squares = sum(torch.stack([part.square().sum() for part in image.split(sizes)]) for image in reference)
    exact, mean = torch.cat(exact), torch.cat(mean)
    return {
        "bias": ((mean - exact).norm() / exact.norm()).item(),
        "cosine": (mean @ exact / mean.norm() / exact.norm()).item(),
        "variance": (variance.sum() / squares.sum()).item(),
        "variance_of": dict(zip(PARTS, (variance / squares).tolist(), strict=True)),
    }


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        *(
            ("digits", name)
            for name in ("stop_now", "nvil", "straight_through", "exact_wake", "vimco", "rws_wake_wake")
        ),
        ("sprites", "stop_now"),
    ],
)
def test_enumerating_in_the_outputs_is_enumerating_in_all_parameters(few_images, scene, name):
    frozen = frozen_agent(scene)
    (found,) = measure(frozen, [name])
    wanted = by_hand(frozen, name)
    assert found.enumerated
    if name == "rws_wake_wake":
        # No gradient of a path is the exact one.
        assert math.isnan(found.bias)
        assert found.objective == "own"
    else:
        assert found.bias == pytest.approx(wanted["bias"], rel=1e-6, abs=1e-6)
        assert found.cosine == pytest.approx(wanted["cosine"], rel=1e-6)
        assert found.objective == {"vimco": "iwae"}.get(name, "elbo_over_categories" if scene == "sprites" else "elbo")
    assert found.variance == pytest.approx(wanted["variance"], rel=1e-6)
    assert found.variance_of == pytest.approx(wanted["variance_of"], rel=1e-5, nan_ok=True)


def test_sampling_whole_gradients_gives_what_enumerating_gives(few_images, monkeypatch):
    frozen = frozen_agent()
    (wanted,) = measure(frozen, ["straight_through"])
    monkeypatch.setattr(properties_module, "_leaves_outputs", lambda *_: True)
    monkeypatch.setattr(properties_module, "_NUM_FULL_SAMPLES", 150)
    (found,) = measure(frozen, ["straight_through"])
    assert (found.enumerated, wanted.enumerated) == (False, True)
    assert found.variance == pytest.approx(wanted.variance, rel=0.2)
    assert found.bias == pytest.approx(wanted.bias, abs=2 * found.bias_error)
    assert found.cosine == pytest.approx(wanted.cosine, abs=0.02)


def test_samples_of_paths_and_presences_are_near_their_outcomes(few_images, monkeypatch):
    frozen = frozen_agent("sprites")
    (wanted,) = measure(frozen, ["stop_now"])
    monkeypatch.setattr(properties_module, "moments", partial(moments, most=0))
    monkeypatch.setattr(properties_module, "_NUM_SAMPLES", 300)
    (found,) = measure(frozen, ["stop_now"])
    assert (found.enumerated, wanted.enumerated) == (False, True)
    assert found.variance == pytest.approx(wanted.variance, rel=0.2)
    assert found.bias < 3 * found.bias_error


@pytest.mark.parametrize("name", ["half_critic", "relax", "nvil"])
def test_fitting_a_baseline_does_no_harm(monkeypatch, name):
    monkeypatch.setattr(properties_module, "_FIT_STEPS", 60)
    frozen = frozen_agent(stage="converged")
    fitted = make_fitted(name, frozen)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = make_estimator(name, 65).double().eval()
    judges = frozen.images[-properties_module._NUM_JUDGES :]
    problem = frozen.problem(judges, frozen.noise(len(judges), fresh, 0), fresh)
    after, before = (logit_variance(each, problem, generator(1))[0].mean() for each in (fitted, fresh))
    assert after <= before


def test_the_figure_has_a_point_for_every_n_sharpness_and_likelihood(few_images):
    found = list(points(frozen_agent(stage="converged"), ["stop_now"]))
    assert [point.value for point in found if point.axis == "num_steps"] == [1, 2, 3, 4, 6, 8, 12]
    saturation = [point.value for point in found if point.axis == "saturation"]
    assert saturation == pytest.approx([saturation[0] * factor for factor in (1, 2, 4, 8, 16)])
    fixed = [name for name in LIKELIHOODS if name != "learned_gaussian"]
    assert [point.value for point in found if point.axis == "likelihood"] == fixed
    assert all(point.variance > 0 for point in found)


@pytest.mark.parametrize("scene", JUDGED)
def test_unbiased_estimators_have_no_bias_on_shipped_problems(few_images, scene):
    names = ["exact", "half_critic"] if scene == "sprites" else ["exact", "reinforce", "half_critic", "muprop"]
    for frozen in load_frozen(scene)[3 if scene == "sprites" else 1 :: 2]:
        for found in measure(frozen, names):
            assert found.enumerated
            assert found.bias < 1e-6, (frozen.scene, frozen.stage, found.estimator)
            assert found.objective == ("elbo_over_categories" if scene == "sprites" else "elbo")
            # Categories are sampled even where counts are not.
            assert (found.variance > 1e-9) == (found.estimator != "exact" or scene == "sprites")


def test_an_estimator_that_leaves_the_outputs_is_sampled_as_a_whole(few_images, monkeypatch):
    monkeypatch.setattr(properties_module, "_NUM_FULL_SAMPLES", 6)
    relaxed, hard = measure(frozen_agent(), ["concrete", "straight_through"])
    assert (relaxed.enumerated, relaxed.num_draws) == (False, 6)
    assert hard.enumerated
    assert relaxed.bias_error > 0 == hard.bias_error


def test_baselines_are_fitted_to_images_that_problems_are_not_made_of(monkeypatch):
    frozen = frozen_agent()
    monkeypatch.setattr(properties_module, "_FIT_STEPS", 40)
    estimator, fresh = make_fitted("trajectory_balance", frozen), randomised(ESTIMATORS["trajectory_balance"], 65)
    problem = frozen.problem(frozen.images[:24], frozen.noise(24, estimator, 0), estimator)
    fitted, unfitted = (logit_variance(each, problem, generator())[0].mean() for each in (estimator, fresh))
    assert fitted < 0.1 * unfitted
    seen = []
    problem_of = type(frozen).problem
    monkeypatch.setattr(
        type(frozen), "problem", lambda self, images, *a, **k: seen.append(images) or problem_of(self, images, *a, **k)
    )
    make_fitted("trajectory_balance", frozen)
    own = [image for image in frozen.images[:24] if image.any()]
    assert not any(torch.equal(image, other) for batch in seen for image in batch for other in own)


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("reinforce_whole_return", lambda n: torch.ones_like(n)),
        ("reinforce", lambda n: n + 1),
        ("exact", lambda n: torch.full_like(n, 4)),
        ("stop_now", lambda n: n + 1),
        ("nvil", lambda n: n + 1),
    ],
)
def test_likelihoods_are_the_scores_that_are_read(name, reads):
    problem = toy_problem(40).problem
    n = problem.sample(generator(7))
    assert count_likelihoods(randomised(ESTIMATORS[name]), problem, 7) == pytest.approx(reads(n).double().mean().item())


def test_half_objects_particles_and_passes_are_counted():
    problem = toy_problem(40).problem
    assert count_likelihoods(randomised(ESTIMATORS["straight_through"]), problem) == 2
    assert count_likelihoods(randomised(ESTIMATORS["vimco"]), toy_problem(40, 2).problem) == 2
    assert count_likelihoods(randomised(ESTIMATORS["ovis"]), toy_problem(40, 2).problem) == 8
    once = count_likelihoods(randomised(ESTIMATORS["nvil"]), problem, 3)
    # The second pass has the returns of the first, but its critic reads the context again, which knows likelihoods.
    assert count_likelihoods(randomised(ESTIMATORS["ppo"]), problem, 3) == pytest.approx(2 * once)
    assert count_likelihoods(randomised(ESTIMATORS["ppo"]), problem, 3, num_passes=1) == pytest.approx(once)


def test_ppo_pays_for_the_pass_that_it_is_judged_by(few_images):
    nvil, ppo = measure(frozen_agent(stage="stuck"), ["nvil", "ppo"])
    assert ppo.likelihoods == nvil.likelihoods
    assert ppo.cost == pytest.approx((ppo.bias**2 + ppo.variance) * ppo.likelihoods)


def test_the_first_baseline_is_kept_unless_it_is_clearly_beaten():
    first, luckier, best = (make_estimator("exact", 1) for _ in range(3))
    at_first = 100 + 10 * torch.randn(50, generator=generator())
    # Better on the whole, thanks to one image; and better on all of them.
    luck, better = at_first.clone(), at_first - 5
    luck[0] -= 400
    assert clearly_best([(first, at_first), (luckier, luck)]) is first
    assert clearly_best([(first, at_first), (best, better)]) is best
    assert clearly_best([(first, at_first), (best, at_first + 5)]) is first


@pytest.mark.parametrize("scene", ["sprites", "multi_mnist_dair"])
def test_without_the_cut_the_gradient_is_that_of_the_elbo(scene):
    """The oracle is the difference quotient of the ELBO along the gradient."""
    frozen = frozen_agent(scene, stage="early")
    whole, cut = (mean_gradient(each, 0, num_images=2) for each in (uncut(frozen), frozen))
    direction = whole / whole.norm()

    def elbo(step: float) -> float:
        moved = uncut(frozen)
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(
                torch.nn.utils.parameters_to_vector(moved.agent.parameters()) + step * direction,
                moved.agent.parameters(),
            )
        return sum(elbo.item() for elbo in elbos(moved, 0, 2))

    by_differences = (elbo(1e-7) - elbo(-1e-7)) / 2e-7
    assert (whole @ direction).item() == pytest.approx(by_differences, rel=1e-4)
    assert (cut @ direction).item() != pytest.approx(by_differences, rel=1e-2)
    (found,) = measure_cut(frozen)
    assert found.bias > 0.01
    assert found.cosine < 1


def test_nothing_is_cut_where_the_core_does_not_read_the_canvas():
    frozen = frozen_agent()
    assert not list(measure_cut(frozen))
    assert_equal(mean_gradient(uncut(frozen), 0, 2), mean_gradient(frozen, 0, 2), 1e-12)


def test_several_counts_on_one_path_are_counted_once_each():
    problem = toy_problem(40).problem
    draws, stream = [], generator(5)
    for _ in range(4):
        draws.append(problem.sample(stream))
    distinct = torch.tensor([len(set(row)) for row in torch.stack(draws, 1).tolist()]).double().mean().item()
    assert count_likelihoods(randomised(ESTIMATORS["rloo"]), problem, 5) == pytest.approx(distinct)


def test_moments_of_samples_are_near_those_of_outcomes():
    problem = toy_problem(2).problem
    estimator = randomised(ESTIMATORS["stop_now"])
    every = moments(estimator, problem, [problem.logits], generator())
    monkey = moments(randomised(ESTIMATORS["arm"]), problem, [problem.logits], generator(), num_samples=1000)
    assert every.enumerated
    assert not monkey.enumerated
    assert_equal(every.mean, every.exact, 1e-9)
    error = (monkey.mean - every.exact).abs() / (monkey.covariance.diagonal(dim1=1, dim2=2) / 1000).sqrt()
    assert error.max() < 4


def test_the_probe_sees_the_estimator_and_changes_nothing():
    recipe = replace(RECIPE, estimator="moving_average", exploration_steps=10)
    scenes = make_scenes(64, "train")
    alone, probed = Trainer(recipe, scenes), Trainer(recipe, scenes)
    for _ in range(4):
        assert_equal(alone.step(), probed.step())
        before = deepcopy(probed.state_dict())
        found = probe(probed)
        assert_equal(probed.state_dict(), before)
        assert probed.agent.exploration.weight > 0
    assert found == probe(probed)
    assert set(found) == {"likelihoods", "added_variance", "gradient_square", "saturation"}
    assert 1 <= found["likelihoods"] <= 4
    assert all(math.isfinite(value) and value > 0 for value in found.values())


def test_the_exact_gradient_adds_no_variance_on_the_way():
    trainer = Trainer(replace(RECIPE, estimator="exact"), make_scenes(64, "train"))
    trainer.step()
    found = probe(trainer)
    assert found["added_variance"] == 0
    assert found["likelihoods"] == 4


def test_dair_is_there_for_the_cut_at_all_stages():
    agents = load_frozen("multi_mnist_dair")
    assert [agent.stage for agent in agents] == list(STAGES)
    assert all(agent.agent.config.core == "dair" for agent in agents)


@pytest.mark.parametrize("scene", JUDGED)
def test_shipped_problems_are_of_all_stages(scene):
    agents = load_frozen(scene)
    assert [agent.stage for agent in agents] == list(STAGES)
    init, early, stuck, converged = agents
    assert init.iteration == 0 < early.iteration < converged.iteration
    assert early.count_accuracy >= 0.5 < converged.count_accuracy
    assert converged.count_accuracy > 0.9
    assert stuck.count_accuracy < 0.5
    assert all(agent.agent.presence.weight.dtype == torch.float64 for agent in agents)
    estimator = make_fitted("exact", stuck)
    problem = stuck.problem(stuck.images[:24], stuck.noise(24, estimator, 0), estimator)
    # Every scene is explained by nothing, or by as many objects as there may be.
    assert set(problem.log_q.argmax(1).tolist()) == {0, 3}


@pytest.fixture
def short_training(monkeypatch):
    """Few images, looked at often."""
    narrow = frozen_module.narrow
    monkeypatch.setattr(frozen_module, "narrow", lambda recipe: replace(narrow(recipe), num_train=576))
    for name, value in {"_LOOK_EVERY": 4, "_NUM_VALIDATION": 16}.items():
        monkeypatch.setattr(frozen_module, name, value)


@pytest.mark.usefixtures("short_training")
def test_captured_agents_are_what_training_made(tmp_path, monkeypatch):
    for name, value in {"_STUCK_STEPS": 4, "_EARLY": 0.0}.items():
        monkeypatch.setattr(frozen_module, name, value)
    looks, splits, make = [], [], ComposedScene.dataset
    monkeypatch.setattr(ComposedScene, "dataset", lambda scene, *of: splits.append(of[0]) or make(scene, *of))
    path = tmp_path / "frozen.safetensors"
    capture("digits", path, max_steps=8, progress=lambda *look: looks.append(look[:2]))
    runs = ["with exploration"] * 3 + ["without exploration"] * 2
    assert looks == list(zip(runs, [0, 4, 8, 0, 4], strict=True))
    assert splits == ["train", "validation"], "stages are not chosen by test scenes"
    agents = load_frozen("digits", path)
    assert [(agent.stage, agent.iteration) for agent in agents] == list(zip(STAGES, (0, 0, 4, 8), strict=True))
    recipe = frozen_module.narrow(frozen_module.RECIPES.find("digits"))
    trainer = Trainer(replace(recipe, max_steps=8), make_scene("digits").dataset("train", 576))
    for _ in range(8):
        trainer.step()
    wanted = {name: tensor.half().double() for name, tensor in trainer.agent.state_dict().items()}
    assert_equal(dict(agents[3].agent.state_dict()), wanted)
    assert agents[0].agent.exploration.weight == 0
    assert agents[3].agent.exploration.weight == pytest.approx(1 - 8 / 1250)


@pytest.mark.usefixtures("short_training")
def test_an_agent_that_does_not_learn_is_not_captured(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_module, "_EARLY", 1.1)
    with pytest.raises(RuntimeError, match="never counted 110% of the scenes of digits right"):
        capture("digits", tmp_path / "frozen.safetensors", max_steps=4)
    assert not list(tmp_path.iterdir())


def test_unknown_and_damaged_problems_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"no frozen problems of 'digit'; choose one of {', '.join(SCENES)}"):
        load_frozen("digit")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        load_frozen("digits", tmp_path / "bad.safetensors")
    shipped = Path(frozen_module.__file__).parent / "problems" / "digits.safetensors"
    shutil.copy(shipped, tmp_path / "digits.safetensors")
    with pytest.raises(FileNotFoundError, match="images belong beside the weights"):
        load_frozen("digits", tmp_path / "digits.safetensors")
    (tmp_path / "digits.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged or no picture"):
        load_frozen("digits", tmp_path / "digits.safetensors")
    Image.new("L", (10, 10)).save(tmp_path / "digits.png")
    with pytest.raises(ValueError, match=r"must have 1200 pixels a side, got \(10, 10\)"):
        load_frozen("digits", tmp_path / "digits.safetensors")


def test_costs_count_what_the_graph_holds():
    costs = measure_costs(["stop_now", "vimco"])
    assert costs["vimco"].megabytes > 2 * costs["stop_now"].megabytes > 0
    assert all(cost.milliseconds > 0 for cost in costs.values())


def test_changed_agents_are_the_same_network_in_another_model():
    frozen = frozen_agent()
    estimator = make_fitted("exact", frozen)
    plain, longer, sharper = changed(frozen), changed(frozen, num_steps=5), changed(frozen, sharpness=3.0)
    noise = longer.noise(2, estimator, 0)
    logits = [
        agent.problem(frozen.images[:2], noise[:, : agent.agent.model.config.num_steps], estimator).logits
        for agent in (plain, longer, sharper)
    ]
    assert_equal(logits[1][:, :3], logits[0], 1e-9)
    assert_equal(logits[2], 3 * logits[0], 1e-9)
    other = changed(frozen, likelihood="laplace")
    assert other.agent.model.config.likelihood == "laplace"
    assert plain.agent.exploration.weight == 0 < frozen.agent.exploration.weight


def row(estimator, stage, **changes):
    facts = {
        "scene": "digits",
        "stage": stage,
        "estimator": estimator,
        "objective": "elbo",
        "unbiased": True,
        "prefix_only": True,
        "enumerated": True,
        "num_draws": 4,
        "bias": 0.0,
        "bias_error": 0.0,
        "cosine": 1.0,
        "variance": 2.0,
        "likelihoods": 1.5,
        "variance_of": {"stop_head": 3.0, "trunk": 2.0, "decoder": math.nan},
    }
    return Properties(**facts | changes)


def test_the_page_shows_the_worst_stage_and_the_sheet_every_one(tmp_path):
    rows = [
        row("nvil", "init", bias=1e-16),
        row("nvil", "converged", bias=2e-9, variance=0.5, likelihoods=2.5),
        row("arm", "init", enumerated=False, num_draws=200, bias=0.25, bias_error=0.1, cosine=0.9),
        row("arm", "converged", enumerated=False, num_draws=200, bias=0.1, bias_error=0.2, unbiased=False),
    ]
    frame = as_frame(rows)
    bias = bias_table(frame).splitlines()
    assert bias[2] == "| `nvil` | yes | 4 outcomes | 2e-09 | 1.0000 | 2.00 | 1.25 |"
    assert bias[3].startswith("| `arm` | yes | 200 samples | 0.25 ± 0.1 | 0.9000 | 1.50 |")
    assert "| `nvil` | 2 | 0.5 | 3 | 2 | - |" in variance_table(frame)
    costs = {"exact": Cost(20.0, 5.0), "nvil": Cost(30.0, 6.0)}
    assert cost_table(costs).splitlines()[3] == "| `nvil` | 30.0 | 1.50 | 6.0 |"
    axes = (("num_steps", 1.0), ("saturation", 0.5), ("likelihood", "laplace"))
    scaled = [Point(axis, value, name, 0.3) for axis, value in axes for name in ("nvil", "arm")]
    cuts = [Cut("sprites", "early", "air_canvas", 0.75, 0.36, 0.94)]
    paths = write_page(rows, costs, scaled, cuts, tmp_path, "page", ["A note."])
    assert [path.name for path in paths] == ["page.md", "page.csv", "page.png", "page_scaling.png"]
    assert all(path.stat().st_size > 0 for path in paths)
    text = paths[0].read_text()
    assert all(
        part in text
        for part in (
            *("# page", "A note.", bias_table(frame), variance_table(frame), "page_scaling.png"),
            "| sprites | `air_canvas` | early | 0.75 | 0.36 | 0.94 |",
        )
    )
    with paths[1].open() as file:
        sheet = list(csv.DictReader(file))
    assert len(sheet) == 4
    assert float(sheet[1]["cost"]) == pytest.approx((4e-18 + 0.5) * 2.5)
    assert json.loads(sheet[1]["bias"]) == 2e-9


OWN = """
from air_agents.estimators.score_function import StopNow

class Mine(StopNow):
    pass

class Silent(StopNow):
    def forward(self, problem, generator=None):
        return super().forward(problem, generator) * float("nan")
"""


def script(tmp_path, *arguments):
    (tmp_path / "mine.py").write_text(OWN)
    command = [sys.executable, ROOT / "scripts" / "benchmark_estimators.py", "properties", "--output-dir", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=400, env=environment
    )
    return result.returncode, result.stdout + result.stderr


def test_the_script_judges_ones_own_estimator_beside_the_others(tmp_path):
    options = ("--scenes", "multi_mnist", "--workers", "1", "--no-scaling", "--no-costs", "--no-cut", "--name", "page")
    status, output = script(tmp_path, "--estimators", "stop_now", "mine=mine.py:Mine", *options)
    assert status == 0, output
    with (tmp_path / "page.csv").open() as file:
        sheet = list(csv.DictReader(file))
    assert [(row["stage"], row["estimator"]) for row in sheet] == [
        (stage, name) for stage in STAGES for name in ("stop_now", "mine")
    ]
    for registered, own in zip(sheet[::2], sheet[1::2], strict=True):
        assert own == registered | {"estimator": "mine"}
        assert float(own["bias"]) < 1e-6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("--estimators", "mine=mine.py:Silent"),
            "'mine' does not pass the checks of estimators: Silent returned a loss",
        ),
        (("--estimators", "nvill"), "'nvill' is unknown; choose one of half_critic"),
        (("--estimators", "exact", "--scenes", "digit"), "no frozen problems of 'digit'; choose one of digits"),
    ],
)
def test_the_script_names_what_is_wrong_and_what_there_is(tmp_path, given, said):
    status, output = script(tmp_path, *given)
    assert status != 0
    assert said in " ".join(output.split())
    assert "Traceback" not in output
