"""Other people's tools on every id and scene: the table of docs/environment.md, a test for each cell."""

import math
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from data_files import data_dir_of
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import air_env  # noqa: F401 (registers the ids)
from air_env.scenes import SCENES

pytestmark = [
    # What these tools warn of among themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
IDS = ("AIRScene-v1", "AIRSceneFlat-v1")
NETWORKS = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}


def options_of(scene: str) -> dict:
    """Options of few scenes, drawn without OpenGL."""
    known = {"scene_options": {"renderer": "raycast"}} if scene.endswith("3d") else {}
    return {"scene": scene, "num_scenes": 6, "data_dir": data_dir_of(scene), **known}


def on_policy(make: Callable, policy: str, env: gymnasium.Env, **options):
    return make(policy, env, n_steps=4, policy_kwargs=dict(NETWORKS), **options)


def off_policy(make: Callable, env: gymnasium.Env):
    options = {"learning_starts": 2, "batch_size": 2, "buffer_size": 20}
    return make("MultiInputPolicy", env, policy_kwargs=dict(NETWORKS), **options)


def stable_baselines(name: str, env: gymnasium.Env):
    """An algorithm of Stable-Baselines3 or sb3-contrib by its name."""
    package = pytest.importorskip("stable_baselines3" if name in ("PPO", "A2C", "SAC") else "sb3_contrib")
    make = getattr(package, name)
    if name in ("SAC", "TQC"):
        return off_policy(make, env)
    policy = "MultiInputLstmPolicy" if name == "RecurrentPPO" else "MultiInputPolicy"
    return on_policy(make, policy, env, **({} if name == "A2C" else {"batch_size": 4, "n_epochs": 1}))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "SAC", "TQC", "RecurrentPPO"])
def test_stock_algorithms_learn(algorithm, scene):
    env = gymnasium.make("AIRSceneFlat-v1", **options_of(scene))
    model = stable_baselines(algorithm, env)
    before = [part.clone() for part in model.policy.parameters()]
    model.learn(5)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True))
    action, _ = model.predict(env.reset(seed=0)[0])
    assert action in env.action_space


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "SAC", "TQC", "RecurrentPPO"])
def test_stock_algorithms_refuse_dict_actions(algorithm):
    with pytest.raises(AssertionError, match="only supports"):
        stable_baselines(algorithm, gymnasium.make("AIRScene-v1", min_side=36, **options_of("sprites")))


def test_crossq_needs_flat_observations():
    crossq = pytest.importorskip("sb3_contrib").CrossQ
    env = gymnasium.make("AIRSceneFlat-v1", **options_of("sprites"))
    with pytest.raises(ValueError, match="MultiInputPolicy unknown"):
        crossq("MultiInputPolicy", env)
    flat = gymnasium.wrappers.FlattenObservation(env)
    options = {"learning_starts": 2, "batch_size": 2, "buffer_size": 20, "policy_kwargs": {"net_arch": [8]}}
    crossq("MlpPolicy", flat, **options).learn(5)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("id_", IDS)
def test_torchrl_checks_and_rolls_out(id_, scene):
    pytest.importorskip("torchrl")
    from torchrl.envs import GymEnv, GymWrapper
    from torchrl.envs.utils import check_env_specs

    options = options_of(scene)
    envs = [GymEnv(id_, **options), GymWrapper(gymnasium.make(id_, **options))]
    if id_ == "AIRSceneFlat-v1":  # TorchRL's vector environments have no Dict actions
        envs += [
            GymWrapper(gymnasium.make_vec(id_, num_envs=2, **options, **kind)) for kind in ({}, {"as_numpy": True})
        ]
    for env in envs:
        check_env_specs(env)
        rollout = env.rollout(6, break_when_any_done=False)
        assert rollout["next", "reward"].isfinite().all()
        assert rollout["next", "done"].any()
        # Observations are those of the environment, and not the actions.
        for name, space in gymnasium.make(id_, **options).observation_space.spaces.items():
            if isinstance(space, spaces.Box):
                assert rollout[name].shape[len(env.batch_size) + 1 :] == space.shape


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("id_", IDS)
def test_a_loop_as_cleanrl_has_it_counts_returns(id_, scene):
    """One file, one loop: numpy vector environments that start again by themselves, and their statistics."""
    options, mode = options_of(scene), AutoresetMode.SAME_STEP
    envs = gymnasium.make_vec(id_, num_envs=2, as_numpy=True, autoreset_mode=mode, **options)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    assert isinstance(envs.single_observation_space, spaces.Dict)
    inputs, size = spaces.flatdim(envs.single_observation_space), spaces.flatdim(envs.single_action_space)
    actor = torch.nn.Linear(inputs, size)
    optimizer = torch.optim.Adam(actor.parameters())
    observation, _ = envs.reset(seed=1)
    totals, rewards, log_probs = np.zeros(2), [], []
    for _ in range(8):
        rows = [{name: part[i] for name, part in observation.items()} for i in range(2)]
        flat = np.stack([spaces.flatten(envs.single_observation_space, row) for row in rows])
        policy = torch.distributions.Normal(actor(torch.from_numpy(flat).float() / math.sqrt(inputs)), 0.3)
        drawn = policy.sample()
        if id_ == "AIRSceneFlat-v1":
            actions = drawn.clamp(-1, 1).numpy()
        else:
            space = envs.single_action_space
            actions = [spaces.unflatten(space, row) for row in drawn.clamp(-3, 3).numpy()]
            actions = {name: np.stack([np.asarray(row[name]) for row in actions]) for name in space.spaces}
        log_probs.append(policy.log_prob(drawn).sum(-1))
        observation, reward, done, _, info = envs.step(actions)
        rewards.append(torch.from_numpy(reward))
        totals += reward
        if done.any():
            np.testing.assert_allclose(info["episode"]["r"][done], totals[done], rtol=1e-6)
            totals[done] = 0
    assert len(envs.return_queue) > 0
    loss = -(torch.stack(log_probs) * torch.stack(rewards)).mean()
    loss.backward()
    optimizer.step()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in actor.parameters())


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("id_", IDS)
def test_wrappers_of_single_environments(id_, scene, tmp_path: Path):
    wrappers = gymnasium.wrappers
    env = gymnasium.make(id_, render_mode="rgb_array", **options_of(scene))
    env = wrappers.RecordEpisodeStatistics(wrappers.NormalizeReward(wrappers.FlattenObservation(env), gamma=1.0))
    env = wrappers.TimeLimit(wrappers.Autoreset(env), 50)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(8):
        assert observation in env.observation_space
        observation, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward)
    assert env.render().ndim == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("scene", ["sprites", "tabletop3d"])
def test_earlier_versions_go_on(scene):
    for id_ in ("AIRScene-v0", "AIRSceneFlat-v0"):
        env = gymnasium.make(id_, **options_of(scene))
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space
        assert env.step(env.action_space.sample())[0] in env.observation_space
