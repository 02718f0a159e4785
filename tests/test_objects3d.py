"""Scenes of three-dimensional objects: as environments, and explained by inverse graphics."""

import logging
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tiny import assert_equal, float64, generator, in_turn
from torch.distributions import Normal

from air_agents import load_agent, save_agent
from air_agents.comparisons import PoseRegressor, PoseRegressorConfig
from air_agents.comparisons.descent import explain_directly, refine
from air_agents.evaluation.metrics import evaluate, pose_errors
from air_agents.inference.episodes import sample_episodes
from air_agents.inference.exploration import Exploration
from air_agents.inference.objects3d import InverseGraphics, InverseGraphicsConfig
from air_agents.inference.rollout import unstopped_rollout
from air_agents.training.recipes import RECIPES
from air_agents.training.trainer import Trainer
from air_env.explanation import Explanation
from air_env.model import SceneConfig, SceneModel
from air_env.priors import GaussianPrior, PosePrior
from air_env.renderers import ObjectsConfig, solids
from air_env.renderers.backends import KINDS, OpenGLError, PyrenderRenderer, RaycastRenderer
from air_env.renderers.backends.camera import CAMERA, project, unproject
from air_env.scenes import make_scene
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World, make_world

OPTIONS = {"scene": "objects3d", "num_scenes": 30, "scene_options": {"renderer": "raycast"}}
CUBE, SPHERE, CYLINDER = range(3)
OBJECTS = SceneConfig(
    image_size=16, num_steps=1, likelihood_scale=0.3, renderer=ObjectsConfig(renderer="raycast", samples=1)
)
SMALL = InverseGraphicsConfig(channels=4, glimpse_size=6, hidden=8)


def make_agent() -> InverseGraphics:
    with float64():
        return InverseGraphics(OBJECTS, SMALL)


def make_envs(agent, num_envs=6):
    scenes = make_scene("objects3d", renderer="raycast", image_size=16).dataset("test", num_envs)
    envs = AIRSceneVectorEnv(num_envs, world=World(agent.model, scenes))
    envs.reset(seed=0, options={"scenes": list(range(num_envs))})
    return envs


def test_rewards_telescope_to_the_log_joint():
    env = gymnasium.make("AIRScene-v1", **OPTIONS).unwrapped
    observation, info = env.reset(seed=3)
    pose, kind = info["poses"][0] + np.array([0.05, 0.0, 0.1], np.float32), info["labels"][0]
    total = info["log_p_x_empty"]
    after, reward, terminated, _, step = env.step({"z_pres": 1, "z_where": pose, "z_what": kind})
    assert terminated
    assert reward == pytest.approx(sum(step["reward_terms"].values()))
    log_p = -2 * math.log(0.6 * math.sqrt(2 * math.pi)) - (pose[:2] ** 2).sum() / (2 * 0.6**2)
    log_p += -math.log(2 * math.pi) - math.log(3) - math.log(2)
    log_p += (
        Normal(torch.from_numpy(after["canvas"]), 0.1).log_prob(torch.from_numpy(observation["image"])).sum().item()
    )
    assert total + reward == pytest.approx(log_p, rel=1e-5)
    z = Explanation.of_objects(torch.ones(1, 1), torch.tensor(pose)[None, None], torch.tensor([[kind]]))
    joint = env.model.log_joint(torch.from_numpy(observation["image"])[None], z)
    assert total + reward == pytest.approx(joint.item(), rel=1e-5)


def test_the_true_object_explains_its_image():
    env = gymnasium.make("AIRScene-v1", render_mode="rgb_array", **OPTIONS)
    for i in range(6):
        observation, info = env.reset(options={"scene": i})
        action = {"z_pres": 1, "z_where": info["poses"][0], "z_what": info["labels"][0]}
        after, *_ = env.step(action)
        assert np.abs(after["canvas"] - observation["image"]).max() < 0.01
        assert env.render().shape == (282, 522, 3)


@pytest.mark.filterwarnings("ignore:.*For Box action spaces")
def test_the_environment_passes_the_checker():
    check_env(gymnasium.make("AIRScene-v1", **OPTIONS).unwrapped, skip_render_check=True)


def test_stopping_explains_nothing():
    env = gymnasium.make("AIRScene-v1", **OPTIONS)
    env.reset(seed=0)
    after, reward, terminated, *_ = env.step({"z_pres": 0, "z_where": np.zeros(3), "z_what": 0})
    assert terminated
    assert reward == pytest.approx(-math.log(2))
    assert not after["canvas"].any()


def test_rewards_have_a_gradient_in_the_pose():
    envs = AIRSceneVectorEnv(4, **OPTIONS)
    _, info = envs.reset(seed=0)
    pose = (info["poses"][:, 0] + 0.2).requires_grad_()
    _, rewards, *_ = envs.step({"z_pres": torch.ones(4), "z_where": pose, "z_what": info["labels"][:, 0]})
    (gradient,) = torch.autograd.grad(rewards.sum(), pose)
    # Towards the object, which is where x and y are smaller.
    assert (gradient[:, :2].sum(1) < 0).all()


def test_boxes_span_what_is_seen():
    scenes = make_scene("objects3d", renderer="raycast", image_size=64).dataset("test", 40)
    for image, box in zip(scenes.images, scenes.boxes[:, 0].tolist(), strict=True):
        rows, columns = (image.amax(0) > 0).nonzero().T
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(box, seen, atol=1.5)


def test_scenes_are_perturbed_on_request():
    plain = make_scene("objects3d", renderer="raycast").dataset("train", 20)
    for option in ("colour_spread", "size_spread", "light_spread"):
        other = make_scene("objects3d", renderer="raycast", **{option: 0.5}).dataset("train", 20)
        assert_equal((other.labels, other.poses), (plain.labels, plain.poses))
        assert (other.images.float() - plain.images.float()).abs().amax((1, 2, 3)).gt(4).float().mean() > 0.8


def test_there_may_be_no_object():
    scenes = make_scene("objects3d", renderer="raycast", counts=[0, 1]).dataset("train", 50)
    assert 10 < scenes.count.sum() < 40
    assert not scenes.images[scenes.count == 0].any()
    assert_equal(scenes.poses.isnan().all(-1), scenes.boxes.isnan().all(-1))


@in_turn(
    "options message",
    [
        ({"reach": 2.0}, "reach must lie between 0 and 1.5"),
        ({"colour_spread": -0.1}, "colour_spread must lie between"),
        ({"counts": (1, 2)}, "counts must be one or more numbers of objects from 0 to 1"),
        ({"renderer": "blender"}, "renderer 'blender' is unknown; choose one of auto, pyrender, raycast"),
        ({"overlap": True}, "'overlap' is unknown; choose from colour_spread, counts"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_scene("objects3d", **{"renderer": "raycast"} | options)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"num_steps must be at most 1, .* kind 'objects3d'"):
        make_world(num_steps=2, **OPTIONS)
    with pytest.raises(ValueError, match="kinds \\['cone'\\] are unknown; choose one or more from cube, sphere"):
        ObjectsConfig(kinds=("cone",))
    with pytest.raises(ValueError, match="kinds must differ"):
        ObjectsConfig(kinds=("cube", "cube"))
    with pytest.raises(ValueError, match="step must be positive"):
        ObjectsConfig(step=0)
    with pytest.raises(ValueError, match=r"where_mean and where_sd are the prior of windows, .* kind 'objects3d'"):
        SceneConfig(num_steps=1, where_sd=(0.1, 0.5, 0.5), renderer=ObjectsConfig())
    with pytest.raises(ValueError, match="needs a renderer of three-dimensional objects"):
        InverseGraphics(SceneConfig(), SMALL)


def test_without_opengl_the_ray_caster_draws_and_a_message_says_so(monkeypatch, caplog):
    solids._has_opengl.cache_clear()
    monkeypatch.setattr(solids, "why_no_opengl", lambda: "no driver")
    with caplog.at_level(logging.INFO, "air_env"):
        renderer = ObjectsConfig().make()
    solids._has_opengl.cache_clear()
    assert isinstance(renderer.drawer, RaycastRenderer)
    assert "the ray caster: no driver" in caplog.text
    with pytest.raises(OpenGLError, match="no driver; or choose renderer = 'raycast'"):
        ObjectsConfig(renderer="pyrender").make()


@pytest.mark.opengl
def test_with_opengl_pyrender_draws(caplog):
    solids._has_opengl.cache_clear()
    with caplog.at_level(logging.INFO, "air_env"):
        env = gymnasium.make("AIRScene-v1", scene="objects3d", num_scenes=30)
    assert isinstance(env.unwrapped.model.renderer.drawer, PyrenderRenderer)
    assert "drawn by pyrender" in caplog.text
    images, others = (make_world("objects3d", scene_options={"renderer": r}).scenes.images for r in ("auto", "raycast"))
    assert (images.float() - others.float()).abs().mean() < 0.5


@pytest.mark.opengl
def test_closing_one_of_two_environments_leaves_the_other():
    first, second = (gymnasium.make("AIRScene-v1", scene="objects3d", num_scenes=30) for _ in range(2))
    first.reset(seed=0)
    second.reset(seed=0)
    first.close()
    _, reward, *_ = second.step({"z_pres": 1, "z_where": np.zeros(3), "z_what": CUBE})
    assert math.isfinite(reward)


@pytest.mark.opengl
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("renderer", ["pyrender", "raycast"])
def test_async_vector_environments_work(renderer):
    options = {"scene": "objects3d", "num_scenes": 30, "scene_options": {"renderer": renderer}}
    envs = gymnasium.vector.AsyncVectorEnv([lambda: gymnasium.make("AIRScene-v1", **options)] * 2)
    _, info = envs.reset(seed=[5, 6])
    actions = {"z_pres": np.ones(2, int), "z_where": info["poses"][:, 0], "z_what": info["labels"][:, 0]}
    after, rewards, *_ = envs.step(actions)
    envs.close()
    assert np.abs(after["canvas"] - after["image"]).max() < 0.01
    assert (rewards > 0).all()


def test_poses_have_a_uniform_yaw():
    prior = PosePrior(0.6)
    pose = prior.sample(20_000, generator=generator())
    assert pose[:, :2].std() == pytest.approx(0.6, abs=0.01)
    assert (pose[:, 2].abs() <= math.pi).all()
    assert pose[:, 2].square().mean() == pytest.approx(math.pi**2 / 3, rel=0.03)
    turned = pose + torch.tensor([0, 0, 2 * math.pi])
    assert_equal(prior.log_prob(turned), prior.log_prob(pose))
    mean, sd = torch.tensor([[0.3, -0.2, 1.0]]), torch.tensor([[0.1, 0.2, 0.3]])
    sample = mean + sd * torch.randn(200_000, 3, generator=generator())
    by_sampling = Normal(mean, sd).log_prob(sample).sum(1) - prior.log_prob(sample)
    assert prior.kl(mean, sd).item() == pytest.approx(by_sampling.mean().item(), abs=0.02)
    assert isinstance(prior, GaussianPrior)


def test_projection_and_its_inverse():
    points = torch.cat([torch.rand(50, 2, generator=generator()) * 2 - 1, torch.full((50, 1), 0.4)], 1).double()
    camera = torch.tensor(CAMERA, dtype=torch.float64)
    places = project(points, camera, 0.7)
    assert (places.abs() < 1).all()
    assert_equal(unproject(places, points[:, 2], camera, 0.7), points[:, :2], 1e-9)
    assert_equal(project(torch.zeros(1, 3).double(), camera, 0.7), torch.zeros(1, 2).double(), 1e-12)


def test_an_untrained_agent_looks_at_the_object():
    agent = InverseGraphics(replace(OBJECTS, image_size=32), InverseGraphicsConfig())
    torch.nn.init.zeros_(agent.heads)
    scenes = make_scene("objects3d", renderer="raycast").dataset("test", 50)
    state = agent.initial(scenes.float_images())
    assert (state.mean[:, :, :2] - scenes.poses[:, :, :2]).norm(dim=-1).mean() < 0.35


def test_enumerated_kinds_give_the_exact_elbo():
    agent = make_agent()
    envs, noise = make_envs(agent), torch.randn(6, 1, 6, generator=generator(), dtype=torch.float64)
    problem = unstopped_rollout(agent, envs, noise, enumerate_categories=True).problem()
    elbo = problem.per_image(problem.elbo())
    state, logit, what = agent.decide(agent.initial(envs.state.images))
    wanted = torch.zeros(6, dtype=torch.float64)
    for k in range(3):
        kinds = torch.full((6,), k)
        z = agent.describe_object(state, what, lambda q: q.sample(noise[:, 0, :3]), lambda q, kinds=kinds: kinds)
        terms = envs.model.unroll(
            envs.state.images, Explanation.of_objects(torch.ones(6, 1), z.z_where[:, None], kinds[:, None])
        )
        gain = terms.likelihood_gain[:, 0] - agent.model.prior_where.kl(z.where.mean, z.where.sd)
        gain = gain - what.log_q[:, k] - math.log(3)
        wanted = wanted + what.log_q[:, k].exp() * gain
    q = logit.sigmoid()
    prior = agent.model.log_p_count
    wanted = envs.state.log_p_x + q * (wanted + prior[1] - q.log()) + (1 - q) * (prior[0] - (1 - q).log())
    assert_equal(elbo, wanted, 1e-9)


def test_sampled_episodes_are_explanations():
    agent = make_agent()
    envs = make_envs(agent)
    episodes = sample_episodes(agent, envs, generator())
    assert episodes.log_q.isfinite().all()
    assert ((episodes.count == 0) | (episodes.count == 1)).all()
    z = agent.explain(envs.state.images)
    assert_equal(z.boxes(16).isnan().all(-1), z.z_pres == 0)


def test_an_agent_is_saved_and_loaded(tmp_path):
    agent, images = make_agent().float(), make_scene("objects3d", renderer="raycast", image_size=16).dataset("test", 5)
    agent.exploration = Exploration()
    save_agent(agent, tmp_path / "agent.safetensors")
    loaded = load_agent(tmp_path / "agent.safetensors")
    assert isinstance(loaded, InverseGraphics)
    assert_equal(loaded.explain(images.images).z_where, agent.explain(images.images).z_where)
    metrics = evaluate(loaded, images, num_samples=2)
    assert {"identity_accuracy", "position_error", "rotation_error"} <= metrics.keys()


def test_more_than_one_object_is_refused():
    agent = make_agent()
    images = torch.zeros(2, 3, 16, 16)
    with pytest.raises(ValueError, match="num_steps must be at most 1"):
        agent.explain(images, num_steps=2)
    with pytest.raises(ValueError, match=r"num_steps must be at most 1, .* kind 'objects3d'"):
        agent.with_num_steps(2)


def test_turns_are_measured_up_to_symmetry():
    difference = torch.tensor([[0.3, 0.4, math.pi / 2 + 0.1], [0.0, 0.0, -0.2], [0.0, 0.0, 3.0], [0.0, 0.0, 6.0]])
    errors = pose_errors(difference, torch.tensor([CUBE, CYLINDER, SPHERE, CYLINDER]), tuple(KINDS.values()))
    assert_equal(errors["position_error"], torch.tensor([0.5, 0, 0, 0]), 1e-6)
    assert_equal(errors["rotation_error_cube"], torch.tensor([0.1]), 1e-5)
    assert_equal(errors["rotation_error"], torch.tensor([0.1, 0.2, 2 * math.pi - 6]), 1e-5)


def test_the_likelihood_is_annealed():
    model = SceneModel(replace(OBJECTS, initial_likelihood_scale=1.2, likelihood_anneal_steps=10))
    scales = []
    for iteration in (0, 5, 10, None):
        model.anneal(iteration)
        scales.append(model.likelihood.scale)
    assert scales == pytest.approx([1.2, 0.6, 0.3, 0.3])
    with pytest.raises(ValueError, match="likelihood_anneal_steps must be a whole number of at least 0"):
        SceneConfig(likelihood_anneal_steps=-1)


@pytest.mark.parametrize("categories", ["exact", pytest.param("score_function", marks=pytest.mark.slow)])
def test_a_short_training_tells_kinds_apart(categories):
    recipe = RECIPES.find("objects3d")
    exact = categories == "exact"
    steps = 220 if exact else 700
    model = replace(recipe.model, likelihood_anneal_steps=4 * steps, initial_likelihood_scale=1.0 if exact else 4.0)
    changes = {"num_train": 500, "max_steps": steps, "exploration_steps": steps, "decay": 0.0, "compile": False}
    recipe = replace(recipe, model=model, categories=categories, **changes)
    scene = make_scene("objects3d", renderer="raycast")
    trainer = Trainer(recipe, scene.dataset("train", 500))
    for _ in range(steps):
        trainer.step()
    trainer.agent.exploration = Exploration()
    metrics = evaluate(trainer.agent, scene.dataset("test", 200), num_samples=1)
    assert metrics["identity_accuracy"] > 0.95
    assert metrics["position_error"] < 0.15


def test_descent_explains_an_image():
    model = SceneModel(replace(OBJECTS, image_size=32))
    scenes = make_scene("objects3d", renderer="raycast").dataset("test", 4)
    z = explain_directly(model, scenes.float_images(), starts=4, steps=60, generator=generator())
    assert (z.z_what == scenes.labels).float().mean() >= 0.75
    assert (z.reconstruction - scenes.float_images()).square().mean() < 0.002


def test_descent_improves_an_explanation():
    agent = InverseGraphics(replace(OBJECTS, image_size=32), InverseGraphicsConfig())
    scenes = make_scene("objects3d", renderer="raycast").dataset("test", 6)
    images = scenes.float_images()
    before = Explanation.of_objects(torch.ones(6, 1), scenes.poses + torch.tensor([0.1, -0.1, 0.2]), scenes.labels)
    after = refine(agent, images, before, steps=30)
    assert (agent.model.log_joint(images, after) > agent.model.log_joint(images, before)).all()
    assert (after.z_where - scenes.poses)[:, 0, :2].norm(dim=1).mean() < 0.05


def test_a_supervised_network_learns_from_poses():
    torch.manual_seed(0)
    model = PoseRegressor(PoseRegressorConfig())
    scenes = make_scene("objects3d", renderer="raycast").dataset("train", 400)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(200):
        optimizer.zero_grad()
        (-model.score(scenes[100 * (i % 4) : 100 * (i % 4 + 1)]).mean()).backward()
        optimizer.step()
    metrics = model.measure(make_scene("objects3d", renderer="raycast").dataset("test", 100))
    assert metrics["identity_accuracy"] > 0.9
    assert metrics["position_error"] < 0.2


def test_being_right_up_to_whole_turns_is_right():
    torch.manual_seed(0)
    model = PoseRegressor(PoseRegressorConfig())
    scenes = make_scene("objects3d", renderer="raycast").dataset("train", 10)
    turned = replace(scenes, poses=scenes.poses + torch.tensor([0, 0, 2 * math.pi]))
    assert_equal(model.score(turned), model.score(scenes), 1e-3)
