"""Gymnasium's vector wrappers over our vector environments: the table of docs/environment.md, cell by cell."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import (
    ArrayConversion,
    ClipReward,
    FlattenObservation,
    NormalizeReward,
    NumpyToTorch,
    RecordEpisodeStatistics,
)

from air_env import AIRSceneVectorEnv, EpisodeStatistics

NUM_ENVS, IDS = 3, ("AIRScene-v1", "AIRSceneFlat-v1")
WRAPPERS: dict[str, Callable[[VectorEnv], VectorEnv]] = {
    "RecordEpisodeStatistics": RecordEpisodeStatistics,
    "NormalizeReward": NormalizeReward,
    "ClipReward": lambda envs: ClipReward(envs, -50, 50),
    "FlattenObservation": FlattenObservation,
    "NumpyToTorch": NumpyToTorch,
    "ArrayConversion": lambda envs: ArrayConversion(envs, env_xp=torch, target_xp=np),
}
KINDS: dict[str, Callable[..., VectorEnv]] = {
    "differentiable": lambda *args, **options: gymnasium.make_vec(*args, **options),
    "torch": lambda *args, **options: gymnasium.make_vec(*args, grad_enabled=False, **options),
    "converted": lambda *args, **options: ArrayConversion(KINDS["torch"](*args, **options), torch, np),
    "numpy": lambda *args, **options: gymnasium.make_vec(*args, as_numpy=True, **options),
}
FAILS = {
    ("RecordEpisodeStatistics", "differentiable"): TypeError,
    ("RecordEpisodeStatistics", "torch"): TypeError,
    ("NormalizeReward", "differentiable"): RuntimeError,
    ("NormalizeReward", "torch"): RuntimeError,
    ("ClipReward", "differentiable"): RuntimeError,
    ("ClipReward", "torch"): DeprecationWarning,  # of numpy: arrays of tensors
    ("FlattenObservation", "differentiable"): RuntimeError,
    ("NumpyToTorch", "differentiable"): (BufferError, UserWarning),
    ("ArrayConversion", "differentiable"): (BufferError, UserWarning),
}
"""What the wrappers raise that cannot do with tensors, or with their graph."""


def plain(values):
    """Numbers of tensors or arrays."""
    return values.numpy(force=True) if isinstance(values, torch.Tensor) else np.asarray(values)


def trajectory(envs: VectorEnv, tensors: bool, num_steps: int = 6) -> list[tuple]:
    """Results of a seeded rollout, whose sampled actions may be tensors with a graph."""
    envs.reset(seed=4)
    envs.action_space.seed(5)
    steps = []
    for _ in range(num_steps):
        actions = envs.action_space.sample()
        if isinstance(actions, dict):
            actions["z_pres"][:] = [1, 1, 0]
            if tensors:
                actions = {
                    name: torch.tensor(part, dtype=torch.float32, requires_grad=True) for name, part in actions.items()
                }
        elif tensors:
            actions = torch.tensor(actions, requires_grad=True)
        steps.append(envs.step(actions))
    return steps


def make(kind: str, name: str, mode: AutoresetMode) -> VectorEnv:
    return KINDS[kind](
        name, num_envs=NUM_ENVS, scene="sprites", num_scenes=10, counts=(1, 2), num_steps=2, autoreset_mode=mode
    )


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_work_as_the_table_says(wrapper, kind, mode):
    for name in IDS:
        tensors = kind == "differentiable"
        if error := FAILS.get((wrapper, kind)):
            if (wrapper, name) == ("FlattenObservation", "AIRSceneFlat-v1"):
                continue  # bytes have no graph
            with pytest.raises(error):
                trajectory(WRAPPERS[wrapper](make(kind, name, mode)), tensors)
            continue
        wrapped = WRAPPERS[wrapper](make(kind, name, mode))
        steps, reference = trajectory(wrapped, tensors), trajectory(make("numpy", name, mode), False)
        total = np.zeros(NUM_ENVS)
        for step, (observation, rewards, terminations, truncations, info) in zip(steps, reference, strict=True):
            np.testing.assert_array_equal(plain(step[2]), terminations)
            np.testing.assert_array_equal(plain(step[3]), truncations)
            np.testing.assert_array_equal(plain(step[4]["labels"]), info["labels"])
            if wrapper == "FlattenObservation":
                rows = [{key: part[i] for key, part in observation.items()} for i in range(NUM_ENVS)]
                space = make("numpy", name, mode).single_observation_space
                np.testing.assert_allclose(
                    plain(step[0]), [gymnasium.spaces.flatten(space, row) for row in rows], atol=1e-6
                )
            else:
                np.testing.assert_allclose(plain(step[0]["canvas"]), observation["canvas"], atol=1e-6)
            if wrapper == "NormalizeReward":
                assert np.isfinite(plain(step[1])).all()
            else:
                wanted = rewards.clip(-50, 50) if wrapper == "ClipReward" else rewards
                np.testing.assert_allclose(plain(step[1]), wanted, rtol=1e-5)
            total += rewards
            if wrapper == "RecordEpisodeStatistics" and terminations.any() and "r" in step[4].get("episode", {}):
                done = step[4]["_episode"]
                np.testing.assert_allclose(step[4]["episode"]["r"][done], total[done], rtol=1e-5)
            total[terminations] = 0


@pytest.mark.parametrize("as_array", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_mask_may_be_a_tensor_or_an_array(kind, as_array):
    envs = make(kind, "AIRScene-v1", AutoresetMode.DISABLED)
    observation, _ = envs.reset(seed=0)
    first = plain(observation["image"]).copy()
    observation, _ = envs.reset(seed=100, options={"reset_mask": as_array([True, False, True])})
    changed = (plain(observation["image"]) != first).any((1, 2, 3))
    assert changed.tolist() == [True, False, True]


def test_statistics_of_gymnasium_survive_a_partial_reset():
    envs = RecordEpisodeStatistics(AIRSceneVectorEnv(2, scene="sprites", num_scenes=5, as_numpy=True))
    envs.reset(seed=0)
    envs.step({"z_pres": np.ones(2), "z_where": np.zeros((2, 3)), "z_what": np.zeros(2)})
    options = {"reset_mask": np.array([True, False])}
    envs.reset(options=options)
    assert envs.episode_lengths.tolist() == [0, 1]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_our_statistics_are_those_of_gymnasium(mode):
    options = {"num_envs": NUM_ENVS, "scene": "sprites", "num_scenes": 10, "num_steps": 2, "autoreset_mode": mode}
    ours = EpisodeStatistics(AIRSceneVectorEnv(**options))
    theirs = RecordEpisodeStatistics(AIRSceneVectorEnv(**options, as_numpy=True))
    finished = 0
    for step, (_, _, _, _, info) in zip(trajectory(ours, True), trajectory(theirs, False), strict=True):
        assert step[1].requires_grad
        for key in "rl":
            assert not step[4]["episode"][key].requires_grad
            done = step[4]["_episode"].numpy()
            if mode == AutoresetMode.DISABLED:
                # Gymnasium's, which expects finished episodes to be reset, counts them again at every step.
                continue
            np.testing.assert_array_equal(done, info.get("_episode", np.zeros(NUM_ENVS, bool)))
            np.testing.assert_allclose(
                step[4]["episode"][key][done].numpy(), info["episode"][key][done] if done.any() else [], rtol=1e-5
            )
        finished += int(done.sum())
    assert finished == len(ours.returns) == len(ours.lengths) > 0
    assert (ours.lengths <= 2).all()


def test_statistics_start_again_with_their_episodes():
    envs = EpisodeStatistics(AIRSceneVectorEnv(2, scene="sprites", num_scenes=10, num_steps=3))
    envs.reset(seed=0)
    action = {"z_pres": torch.tensor([1.0, 0.0]), "z_where": torch.zeros(2, 3), "z_what": torch.zeros(2)}
    *_, info = envs.step(action)
    assert info["_episode"].tolist() == [False, True]
    *_, info = envs.step(action)
    assert info["_episode"].tolist() == [False, False]
    envs.reset(options={"reset_mask": np.array([True, True])})
    *_, info = envs.step({**action, "z_pres": torch.zeros(2)})
    assert info["episode"]["l"].tolist() == [1, 1]
    assert envs.lengths.tolist() == [1, 1, 1]


def test_statistics_refuse_arrays():
    with pytest.raises(ValueError, match="RecordEpisodeStatistics"):
        EpisodeStatistics(AIRSceneVectorEnv(1, scene="sprites", num_scenes=5, as_numpy=True))
