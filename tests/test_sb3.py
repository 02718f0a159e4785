"""Stable-Baselines3: the adapter gives the environment's numbers; every algorithm trains, saves, loads, evaluates."""

import json
import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils import env_checker as gymnasium_checker
from PIL import Image
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common import env_checker
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from tiny import assert_equal

from air_agents.evaluation import photographs
from air_agents.sb3 import (
    AIRSceneVecEnv,
    HybridDistribution,
    HybridPolicy,
    SceneExtractor,
    Settings,
    TrainedPolicy,
    evaluate_policy,
    load_algorithm,
    make_algorithm,
    make_settings,
    save_algorithm,
)
from air_agents.training.run import TrainingRun
from air_env.flat_actions import LatentBox
from air_env.scenes import make_scene
from air_env.world import make_world

WORLDS = {scene: make_world(scene, num_scenes=16) for scene in ("sprites", "digits")}
MODES = ("latents", "posterior")
NUM_CATEGORIES = 3
SIZE = 1 + 3 + NUM_CATEGORIES


def make_envs(num_envs: int = 4, scene: str = "sprites", **options) -> AIRSceneVecEnv:
    return AIRSceneVecEnv(num_envs, world=WORLDS[scene], **options)


def make_env(scene: str = "sprites", **options) -> gymnasium.Env:
    return gymnasium.make("AIRSceneFlat-v1", world=WORLDS[scene], **options)


def make_dummy(num_envs: int, scene: str, action_mode: str) -> DummyVecEnv:
    return DummyVecEnv([lambda: make_env(scene, action_mode=action_mode) for _ in range(num_envs)])


def random_actions(envs, num_steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    size = (envs.num_envs, *envs.action_space.shape)
    actions = [rng.uniform(-1, 1, size).astype(np.float32) for _ in range(num_steps)]
    for action in actions:  # mostly present, so that episodes have some length
        action[:, 0] = np.abs(action[:, 0]) - 0.3
    return actions


# The adapter


@pytest.mark.parametrize("scene", WORLDS)
@pytest.mark.parametrize("mode", MODES)
def test_adapter_gives_the_numbers_of_dummy_vec_env(scene, mode):
    ours, theirs = make_envs(3, scene, action_mode=mode), make_dummy(3, scene, mode)
    assert ours.observation_space == theirs.observation_space
    assert theirs.action_space == ours.action_space
    assert ours.seed(5) == theirs.seed(5)
    assert_equal(ours.reset(), dict(theirs.reset()))
    assert_equal(ours.reset_infos, theirs.reset_infos)
    ended = 0
    for action in random_actions(ours, 9):
        mine, other = ours.step(action), theirs.step(action)
        assert_equal(mine[0], dict(other[0]))
        assert {name: part.dtype for name, part in mine[0].items()} == {name: p.dtype for name, p in other[0].items()}
        np.testing.assert_allclose(mine[1], other[1], rtol=1e-5, atol=1e-4)
        assert mine[1].dtype == other[1].dtype
        assert_equal(mine[2], other[2])
        for done, info, single in zip(mine[2], mine[3], other[3], strict=True):
            assert info["TimeLimit.truncated"] is False
            if done:
                ended += 1
                assert info.keys() == single.keys()
                assert_equal(info.pop("terminal_observation"), single.pop("terminal_observation"))
                assert_equal(info, single, 1e-4)
        assert_equal(ours.reset_infos, theirs.reset_infos, 1e-4)
    assert ended > 5


@pytest.mark.parametrize("mode", MODES)
def test_adapter_gives_the_numbers_of_the_single_environment(mode):
    envs, env = make_envs(2, action_mode=mode), make_env(action_mode=mode)
    envs.seed(7)
    observations = envs.reset()
    observation, _ = env.reset(seed=8)
    for action in random_actions(envs, 9):
        assert_equal({name: part[1] for name, part in observations.items()}, dict(observation))
        observations, rewards, dones, infos = envs.step(action)
        observation, reward, terminated, _, _ = env.step(action[1])
        assert rewards[1] == pytest.approx(reward, rel=1e-5, abs=1e-4)
        assert dones[1] == terminated
        if terminated:
            assert_equal(infos[1]["terminal_observation"], dict(observation))
            observation, _ = env.reset()


def test_observations_are_not_changed_by_later_steps():
    envs = make_envs()
    envs.seed(0)
    kept = [envs.reset()]
    copies = [{name: part.copy() for name, part in kept[0].items()}]
    for action in random_actions(envs, 5):
        kept.append(envs.step(action)[0])
        copies.append({name: part.copy() for name, part in kept[-1].items()})
    assert_equal(kept, copies)


def test_adapter_works_under_the_wrappers_of_sb3():
    envs = VecNormalize(VecMonitor(make_envs()), norm_obs=False, gamma=1.0)
    plain = make_envs()
    for each in (envs, plain):
        each.seed(0)
        each.reset()
    totals, episodes = np.zeros(4), []
    for action in random_actions(plain, 8):
        _, _, dones, infos = envs.step(action)
        rewards = plain.step(action)[1]
        assert_equal(envs.get_original_reward(), rewards)
        totals += rewards
        for i in np.flatnonzero(dones):
            episodes.append(infos[i]["episode"])
            assert episodes[-1]["r"] == pytest.approx(totals[i], rel=1e-4, abs=1e-2)
            totals[i] = 0
    assert len(episodes) > 5


def test_reset_takes_the_options_of_the_single_environment():
    envs = make_envs(2)
    envs.set_options([{"scene": 3}, {"scene": 5}])
    assert_equal(envs.reset()["image"], WORLDS["sprites"].scenes.images[[3, 5]].numpy())
    image = np.full((3, 40, 40), 51, np.uint8)
    envs.set_options({"image": image})
    assert_equal(envs.reset()["image"], np.stack([image, image]))
    envs.set_options([{"scene": 3}, {}])
    with pytest.raises(ValueError, match="all episodes need the same reset options"):
        envs.reset()


def test_attributes_methods_and_pictures():
    envs = make_envs(2, render_mode="rgb_array")
    envs.reset()
    assert envs.render_mode == "rgb_array"
    assert envs.get_attr("num_envs") == [2, 2]
    assert envs.get_attr("byte_images", 1) == [True]
    assert envs.env_is_wrapped(gymnasium.Wrapper) == [False, False]
    envs.set_attr("check_actions", False)
    assert envs.envs.check_actions is False
    with pytest.raises(ValueError, match="share 'check_actions'"):
        envs.set_attr("check_actions", True, indices=0)
    frames = envs.env_method("render")
    assert_equal(list(envs.get_images()), frames)
    assert len(envs.env_method("render", indices=[1])) == 1
    assert envs.render().ndim == 3
    envs.close()
    envs.close()


def test_actions_that_make_no_sense_change_nothing():
    envs = make_envs(2)
    envs.seed(0)
    before = envs.reset()
    action = np.zeros((2, SIZE), np.float32)
    for wrong in (np.full_like(action, np.nan), action + 2, action[:1], action[:, 1:]):
        with pytest.raises(ValueError, match="action"):
            envs.step(wrong)
    action[:, 0] = 1
    after, _, dones, _ = envs.step(action)
    assert_equal(after["image"], before["image"])
    assert not dones.any()
    with pytest.raises(ValueError, match="'dict' is unknown here; choose one of latents, posterior"):
        make_envs(action_mode="dict")


# What stock algorithms see


@pytest.mark.parametrize("scene", WORLDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_environment_checkers_have_no_complaint(scene, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_env(scene, action_mode=mode, render_mode="rgb_array")
        env_checker.check_env(env, warn=True, skip_render_check=False)
        gymnasium_checker.check_env(env.unwrapped)


def test_stock_ppo_needs_no_further_argument_and_looks_through_its_cnn():
    agent = PPO("MultiInputPolicy", "AIRSceneFlat-v1")
    extractors = agent.policy.features_extractor.extractors
    assert isinstance(extractors["image"], NatureCNN)
    assert isinstance(extractors["canvas"], NatureCNN)
    agent.n_steps = 8
    observation = agent.env.reset()
    action, _ = agent.predict(observation)
    agent.env.step(action)


def test_features_tell_what_is_missing_where():
    space = make_envs().observation_space
    extractor = SceneExtractor(space)
    step = torch.eye(4)[[0, 0, 1]]
    image = torch.rand(3, 3, 40, 40)
    features = extractor({"image": image, "canvas": torch.zeros_like(image), "step": step})
    assert features.shape == (3, extractor.features_dim)
    drawn = extractor({"image": image, "canvas": image, "step": step})
    assert (features - drawn).abs().sum(1).gt(1e-3).all()
    assert SceneExtractor(make_envs(scene="digits").observation_space).features_dim == extractor.features_dim


# The policy


def make_distribution(num_categories: int = NUM_CATEGORIES, exploration: float = 0.1, seed: int = 0):
    torch.manual_seed(seed)
    distribution = HybridDistribution(1 + 3 + 3, num_categories, exploration)
    net, log_std = distribution.proba_distribution_net(5, -0.5)
    parameters = net.double()(torch.randn(1, 5).double())
    return distribution.proba_distribution(parameters.detach(), log_std.double().detach())


@pytest.mark.parametrize("num_categories", [0, NUM_CATEGORIES])
def test_entropy_is_the_mean_of_minus_log_prob(num_categories):
    distribution = make_distribution(num_categories)
    many = distribution.proba_distribution(
        torch.cat([distribution.presence.logits.new_tensor([[0.3]]), torch.randn(1, 6).double()], 1).expand(50_000, -1),
        torch.full((6 - num_categories,), -0.5).double(),
    )
    samples = many.log_prob(many.sample())
    error = samples.std() / math.sqrt(len(samples))
    assert abs(-samples.mean() - many.entropy()[0]) < 4 * error


def test_log_prob_adds_up_to_one():
    """Over presence and categories, with the continuous latents integrated on a grid (one of them)."""
    distribution = HybridDistribution(1 + 1 + 2, 2, 0.1)
    grid = torch.linspace(-8, 8, 4001).double()
    distribution.proba_distribution(torch.tensor([[0.4, 0.2, 0.3, -0.5]]).double(), torch.tensor([-0.3]).double())
    total = distribution.log_prob(torch.tensor([[-1.0, 0, 0, 0]]).double()).exp()
    for what in ([1, -1], [-1, 1]):
        ones = torch.ones(len(grid), 1).double()
        actions = torch.cat([ones, grid[:, None], ones * torch.tensor(what)], 1)
        total = total + torch.trapezoid(distribution.log_prob(actions).exp(), grid)
    assert total.item() == pytest.approx(1, abs=1e-6)


def test_log_prob_matches_the_formula_by_hand():
    distribution = HybridDistribution(3, 0, exploration=0.1)
    distribution.proba_distribution(torch.tensor([[math.log(3), 1.0, -1.0]]), torch.tensor([0.0, math.log(2)]))
    p = 0.1 + 0.8 * 0.75
    density = -math.log(2 * math.pi) - math.log(2) - 0.5 * (1 + 1)
    assert distribution.log_prob(torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(math.log(p) + density)
    assert distribution.log_prob(torch.tensor([[-1.0, 0.0, 0.0]])).item() == pytest.approx(math.log(1 - p))


def test_exploration_bounds_the_presence():
    distribution = HybridDistribution(3, 0, exploration=0.1)
    for logit, probability in ((-1e4, 0.1), (1e4, 0.9)):
        distribution.proba_distribution(torch.tensor([[logit, 0.0, 0.0]]), torch.zeros(2))
        assert distribution.presence.probs.item() == pytest.approx(probability)
    assert distribution.mode()[0, 0] == 1


def test_categories_are_read_as_they_were_meant():
    """What the policy draws, the environment decodes to the same presence and category."""
    envs = make_envs(64)
    envs.seed(0)
    observation = envs.reset()
    agent = PPO(HybridPolicy, envs, n_steps=2, seed=0)
    observation = agent.policy.obs_to_tensor(observation)[0]
    distribution = agent.policy.get_distribution(observation)
    for action in (distribution.sample(), distribution.mode()):
        taken, _ = envs.envs.action_mode.act(action.clamp(-1, 1), torch.empty(64, 0), torch.ones(64, dtype=torch.bool))
        assert_equal(taken.z_pres > 0, action[:, 0] > 0)
        present = taken.z_pres > 0
        assert_equal(taken.z_what[present], action[present][:, -NUM_CATEGORIES:].argmax(-1))
    again = agent.policy.evaluate_actions(observation, action)[1]
    assert_equal(again, distribution.log_prob(action), 1e-5)
    assert_equal(agent.predict(envs.reset(), deterministic=True)[0].shape, (64, SIZE))


def test_hybrid_policy_needs_to_know_the_number_of_categories():
    envs = make_dummy(1, "sprites", "posterior")
    with pytest.raises(ValueError, match=r"policy_kwargs=\{'num_categories'"):
        PPO(HybridPolicy, envs)
    agent = PPO(HybridPolicy, envs, n_steps=8, batch_size=8, policy_kwargs={"num_categories": 3})
    agent.learn(8)
    assert isinstance(make_envs().action_space, LatentBox)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_sb3_saves_and_loads_the_hybrid_policy(algorithm, tmp_path):
    envs = make_envs()
    options = {"batch_size": 16} if algorithm is PPO else {}
    agent = algorithm(HybridPolicy, envs, n_steps=4, seed=0, policy_kwargs={"exploration": 0.2}, **options)
    agent.learn(32)
    agent.save(tmp_path / "agent.zip")
    loaded = algorithm.load(tmp_path / "agent.zip", env=envs)
    observation = envs.reset()
    assert_equal(loaded.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0])
    assert loaded.policy.exploration == agent.policy.exploration
    agent.policy.save(tmp_path / "policy.pt")
    policy = HybridPolicy.load(tmp_path / "policy.pt")
    assert_equal(policy.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0])


# Algorithms


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_every_algorithm_trains_saves_loads_and_evaluates(name, mode, tmp_path):
    settings = make_settings(name, action_mode=mode, num_envs=16, num_train=16)
    envs = VecNormalize(VecMonitor(make_envs(16, action_mode=mode)), norm_obs=False, gamma=1.0)
    agent = make_algorithm(settings, envs)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(300)
    assert any((a != b).any() for a, b in zip(before, agent.policy.parameters(), strict=True))
    save_algorithm(agent, tmp_path / "policy.safetensors", settings)
    loaded = load_algorithm(tmp_path)
    assert_equal(dict(loaded.policy.state_dict()), dict(agent.policy.state_dict()))
    metrics = [
        evaluate_policy(lambda o, a=each: a.predict(o, deterministic=True)[0], WORLDS["sprites"], mode)
        for each in (agent, loaded)
    ]
    assert metrics[0] == pytest.approx(metrics[1], abs=0, nan_ok=True)
    assert next(iter(metrics[0])) == "count_accuracy"


def test_algorithms_of_one_process_do_not_share_what_they_write():
    envs = make_envs(2, action_mode="posterior")
    for name in ("sac", "a2c", "ppo"):
        agent = make_algorithm(make_settings(name, action_mode="posterior", num_envs=2), envs)
    assert isinstance(agent.policy.optimizer, torch.optim.Adam)


def test_files_that_are_no_policies_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no policy at"):
        load_algorithm(tmp_path)
    path = tmp_path / "policy.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="damaged"):
        load_algorithm(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scene": "sprite"}, "scene 'sprite' is unknown; choose one of digits, multi_mnist, omniglot"),
        ({"action_mode": "dict"}, "action_mode 'dict' is unknown; choose one of latents, posterior"),
        ({"num_envs": 0}, "num_envs must be positive, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"exploration": 0.6}, r"exploration must lie in \[0, 0.5\], got 0.6"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_settings("ppo", **changes)


# Runs


def tiny_settings(algorithm: str = "ppo", **changes) -> Settings:
    few = {"max_steps": 640, "num_envs": 16, "num_train": 32, "num_validation": 16, "num_final": 16, "num_pictured": 2}
    return make_settings(algorithm, **few | {"evaluate_every": 200} | changes)


def test_a_run_from_beginning_to_end(tmp_path):
    directory = tmp_path / "run"
    run = TrainingRun.start(directory, tiny_settings())
    run.train()
    done = []
    metrics = run.finish(progress=done.append)
    assert sum(done) == 16
    assert next(iter(metrics)) == "count_accuracy"
    assert metrics["return_random"] < metrics["return_empty"]
    assert json.loads((directory / "evaluation.json").read_text())["steps"] == 640
    lines = (directory / "metrics.csv").read_text().splitlines()
    assert {"iteration", "steps", "images", "minutes", "return", "count_accuracy", "return_validation"} <= set(
        lines[0].split(",")
    )
    assert len(lines) == 4
    assert {path.name for path in directory.iterdir()} == {
        "config.json", "metrics.csv", "policy.safetensors", "resume.pt", "evaluation.json", "pictures", "tensorboard"
    }  # fmt: skip
    assert load_algorithm(directory).num_timesteps == 0


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "sac"])
def test_a_stopped_run_goes_on_where_it_stood(algorithm, tmp_path):
    first = TrainingRun.start(tmp_path / "run", tiny_settings(algorithm))
    first.train(stop_at=256)
    again = TrainingRun.resume(tmp_path / "run")
    steps = again.trainer.iteration
    assert 256 <= steps < 640
    assert (again.trainer.images, again.minutes) == (first.trainer.images, first.minutes)
    assert_equal(again.rows, first.rows)
    assert_equal(dict(again.trainer.algorithm.policy.state_dict()), dict(first.trainer.algorithm.policy.state_dict()))
    for name, optimizer in again.trainer.optimizers().items():
        assert_equal(optimizer.state_dict()["state"], first.trainer.optimizers()[name].state_dict()["state"])
    again.train()
    assert again.trainer.iteration >= 640
    assert again.rows[-1]["images"] > first.rows[-1]["images"]


def test_runs_from_before_they_were_like_others_are_resumed(tmp_path):
    """config.json had total_steps, resume.pt neither a trainer nor a device."""
    directory = tmp_path / "run"
    first = TrainingRun.start(directory, tiny_settings())
    first.train(stop_at=256)
    config = json.loads((directory / "config.json").read_text())
    old = ("algorithm", "scene", "scene_options", "action_mode", "num_envs", "learning_rate", "exploration")
    old_config = {name: config[name] for name in (*old, "num_train", "seed")} | {"total_steps": 640}
    (directory / "config.json").write_text(json.dumps(old_config))
    row = {"steps": 256, "images": 9, "minutes": 0.1, "return": -1.0, "count_accuracy": 0.5, "return_test": -1.0}
    torch.save(first.trainer.state_dict() | {"minutes": 0.5, "rows": [row]}, directory / "resume.pt")
    again = TrainingRun.resume(directory)
    assert again.recipe == make_settings("ppo", max_steps=640, num_envs=16, num_train=32)
    assert (again.minutes, again.rows) == (0.5, [{"iteration": 256} | row])
    assert again.trainer.iteration == first.trainer.iteration
    assert_equal(dict(again.trainer.algorithm.policy.state_dict()), dict(first.trainer.algorithm.policy.state_dict()))


@pytest.mark.parametrize("name", ["config.json", "resume.pt"])
def test_a_damaged_run_is_not_resumed(name, tmp_path):
    TrainingRun.start(tmp_path / "run", tiny_settings(num_envs=4, num_train=8))
    (tmp_path / "run" / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"^the run in .* cannot be resumed"):
        TrainingRun.resume(tmp_path / "run")


def test_the_hybrid_policy_refuses_algorithms_that_want_an_actor():
    with pytest.raises(ValueError, match="HybridPolicy is a policy of PPO and A2C"):
        SAC(HybridPolicy, make_envs(2))


# The commands that use what was trained


@pytest.fixture(scope="module", params=["latents", "posterior"])
def policy_run(request, tmp_path_factory):
    """The directory of a short run."""
    directory = tmp_path_factory.mktemp("sb3") / "run"
    run = TrainingRun.start(directory, tiny_settings("ppo", action_mode=request.param, seed=3))
    run.train()
    run.finish()
    return directory


def test_a_policy_is_evaluated_like_an_agent(policy_run, air_env_command):
    # By default on the scenes of its final evaluation.
    status, out, _ = air_env_command("evaluate", policy_run, "--num-scenes", 16, "--json")
    assert status == 0
    found, wanted = json.loads(out), json.loads((policy_run / "evaluation.json").read_text())
    assert (found["scene"], found["seed"], "num_samples" in found) == ("sprites", 4, False)
    if "latents" in (policy_run / "config.json").read_text():
        for name in ("count_accuracy", "return", "box_iou"):
            assert found[name] == pytest.approx(wanted[name], nan_ok=True)
    status, out, _ = air_env_command("evaluate", policy_run, "--num-scenes", 4)
    assert status == 0
    assert "return" in out
    assert "counted as" not in out
    status, _, err = air_env_command("evaluate", policy_run, "--num-steps", 5)
    assert status == 1
    assert "num_steps must be 3 for this policy of Stable-Baselines3" in err


def test_a_policy_explains_pictures_and_is_filmed(policy_run, air_env_command, tmp_path):
    scenes = WORLDS["sprites"].scenes
    Image.fromarray(np.moveaxis(scenes.images[0].numpy(), 0, -1)).save(tmp_path / "a.png")
    status, out, _ = air_env_command("explain", policy_run, tmp_path / "a.png", "--output-dir", tmp_path)
    assert status == 0
    (result,) = json.loads((tmp_path / "explanations.json").read_text())
    z = TrainedPolicy.load(policy_run).explain(
        photographs.read_picture(tmp_path / "a.png", 40, channels=3).pixels[None]
    )
    assert (result["count"], result["count_probability"]) == (int(z.count), None)
    assert len(result["boxes"]) == result["count"]
    assert " - " in out
    film = tmp_path / "demo.gif"
    status, out, _ = air_env_command("watch", policy_run, "--output", film, "--num-scenes", 3)
    assert status == 0
    assert film.is_file()
    test = make_scene("sprites").dataset("test", 3, 0)
    counts = [int(line.split()[2]) for line in out.splitlines()[1:4]]
    assert counts == TrainedPolicy.load(policy_run).explain(test.images).count.tolist()
    assert "error: num_steps" in air_env_command("explain", policy_run, tmp_path / "a.png", "--num-steps", 1)[2]
