"""Numbers that must not change without a word in the changelog: pixels, log-joints, the shipped agent's bounds."""

import pytest
import torch
from tiny import generator

from air_agents import load_agent
from air_agents.estimators import ESTIMATORS
from air_agents.estimators.testing import randomised, toy_problem
from air_agents.evaluation.metrics import evaluate
from air_env.explanation import Explanation
from air_env.model import SceneModel
from air_env.scenes import make_scene
from air_env.world import make_world


@pytest.mark.parametrize(
    ("name", "options", "pixels", "count"),
    [
        ("digits", {}, 251069, [1, 2, 2, 1, 0, 2, 0, 2]),
        ("sprites", {}, 435536, [1, 2, 2, 1, 0, 2, 0, 2]),
        ("objects3d", {"renderer": "raycast"}, 259459, [1] * 8),
        ("tabletop3d", {"renderer": "raycast"}, 888772, [1, 3, 0, 0, 3, 1, 3, 1]),
    ],
)
def test_scenes_are_the_same_pixels(name, options, pixels, count):
    scenes = make_scene(name, **options).dataset("test", 8)
    # Other processors may round a few of some ten thousand pixels another way.
    assert int(scenes.images.long().sum()) == pytest.approx(pixels, abs=20)
    assert scenes.count.tolist() == count


def test_the_log_joint_of_digits_is_the_same_number():
    world = make_world("digits", num_scenes=4)
    z_where = torch.tensor([[[-1.2, 0.3, -0.4], [-1.0, -0.5, 0.5], [0.0, 0.0, 0.0]]] * 4).double()
    z_what = torch.linspace(-1, 1, 4 * 3 * 50).view(4, 3, 50).double()
    z_pres = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]).double()
    z = Explanation.of_objects(z_pres, z_where, z_what)
    log_p = world.model.double().log_joint(world.scenes.images.double() / 255, z)
    assert log_p.tolist() == pytest.approx([-453.75441118, 130.71188307, 143.54777639, 455.00739963], abs=1e-5)


def test_the_log_joint_of_tables_is_the_same_number():
    scene = make_scene("tabletop3d", renderer="raycast")
    scenes = scene.dataset("test", 3)
    present = (scenes.labels >= 0).float()
    z = Explanation(present, scenes.poses.nan_to_num(), scenes.labels.clamp_min(0), scenes.z_scene)
    log_p = SceneModel(scene.model).log_joint(scenes.float_images(), z)
    assert log_p.tolist() == pytest.approx([4246.1787, 4236.6523, 4249.0918], abs=0.02)


def test_the_shipped_agent_reaches_the_same_bounds():
    scenes = make_scene("digits").dataset("test", 50)
    metrics = evaluate(load_agent("digits"), scenes, num_samples=5, generator=generator())
    assert metrics["elbo"] == pytest.approx(662.7794, abs=0.01)
    assert metrics["iwae"] == pytest.approx(664.8304, abs=0.01)
    assert metrics["box_iou"] == pytest.approx(0.756617, abs=1e-4)
    assert metrics["count_accuracy"] == 1


ESTIMATES = {
    # The negative ELBO of each image; nothing is drawn.
    "exact": ([88.482701779394, 84.408645555174, 68.062205471104], [7.544300602918, 51.341128650500]),
    # A surrogate, whose value means nothing, and the regression of its baseline.
    "half_critic": ([-67.254057841186, -1304.794154772245, -93.878633540164], [-794.727441289384, -3178.909765157536]),
    # Two particles for each image.
    "vimco": ([68.385867790533, 141.577146902997, 70.997953722543], [23.844809844599, 32.718559115043]),
}
"""Estimator -> loss of each image, and the sums of its gradients in the toy network's two parameters."""


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimators_losses_and_gradients_are_what_they_were(name):
    losses, gradients = ESTIMATES[name]
    estimator = randomised(ESTIMATORS.find(name))
    toy = toy_problem(len(losses), estimator.num_particles)
    loss = estimator.loss(toy.problem, torch.Generator().manual_seed(0))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx(losses, rel=1e-9)
    assert [toy.leaves[leaf].grad.sum().item() for leaf in ("where", "presence")] == pytest.approx(gradients, rel=1e-9)
