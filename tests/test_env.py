"""The single environment: the checkers' contract, agreement with the vector environment, frames."""

import math
import pickle
import subprocess
import sys
import warnings

import gymnasium
import matplotlib
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from tiny import in_turn

from air_env import AIRSceneEnv, AIRSceneVectorEnv, Explanation, PatchConfig, SceneConfig, SceneModel, World, make_world
from air_env.frames import COLOURS, draw_windows, scene_frame

NUM_STEPS, SIDE, WHAT = 3, 12, 4
STOP = {"z_pres": 0, "z_where": np.zeros(3, np.float32), "z_what": np.zeros(WHAT, np.float32)}


def tiny_world(image_size: int = SIDE, dtype: torch.dtype = torch.float64) -> World:
    """Small images, a decoder of 8 units; in float64, where numbers matter."""
    config = SceneConfig(
        image_size=image_size, num_steps=NUM_STEPS, renderer=PatchConfig(what_dim=WHAT, patch_size=5, hidden=8)
    )
    before = torch.get_default_dtype()
    # Constants of a model are rounded to the default dtype when it is made.
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = SceneModel(config)
    finally:
        torch.set_default_dtype(before)
    options = {"image_size": image_size, "object_size": (4, 6)}
    return make_world(num_scenes=40, scene_options=options, model=model)


def make_env(**options) -> AIRSceneEnv:
    """The environment of the tiny world."""
    return AIRSceneEnv(world=tiny_world(), **options)


def random_action(rng: np.random.Generator, z_pres: int = 1) -> dict:
    """A window that is seen, and an appearance beyond the linear part of the sigmoid."""
    z_where = rng.uniform((-1, -0.8, -0.8), (0, 0.8, 0.8)).astype(np.float32)
    return {"z_pres": z_pres, "z_where": z_where, "z_what": rng.uniform(-6, 6, WHAT).astype(np.float32)}


def assert_same(first, second) -> None:
    """Two observations or infos are equal to the last bit."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, dict):
            assert_same(value, second[name])
        else:
            assert type(value) is type(second[name])
            assert np.array_equal(value, second[name], equal_nan=True), name


def arrays(*parts) -> list[np.ndarray]:
    """The arrays in observations and infos."""
    return [value for part in parts for value in part.values() if isinstance(value, np.ndarray)]


def test_gymnasium_checker_passes_with_warnings_as_errors():
    matplotlib.use("Agg")
    env = gymnasium.make("AIRScene-v1", world=tiny_world(dtype=torch.float32), render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The checker recommends actions in [-1, 1]; these are latents, with a unit of their own.
        warnings.filterwarnings("ignore", ".*we recommend using a symmetric and normalized space")
        check_env(env.unwrapped)


def test_stable_baselines_checker_passes_with_warnings_as_errors():
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gymnasium.make("AIRScene-v1", world=tiny_world(image_size=40, dtype=torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Stable-Baselines3 has no Dict actions, and its CNN wants bytes; a flat environment is for it.
        for message in ("The action space is not based off", "It seems that your observation"):
            warnings.filterwarnings("ignore", message)
        checker.check_env(env.unwrapped, skip_render_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(env.unwrapped, warn=False)


def test_single_and_vector_environment_give_the_same_numbers():
    num_envs, seed = 5, 11
    rng = np.random.default_rng(0)
    envs = AIRSceneVectorEnv(num_envs, world=tiny_world())
    singles = [make_env() for _ in range(num_envs)]
    for episode in range(3):
        observation, info = envs.reset(seed=seed if episode == 0 else None)
        seeds = [seed + i if episode == 0 else None for i in range(num_envs)]
        results = [env.reset(seed=s) for env, s in zip(singles, seeds, strict=True)]
        running = [True] * num_envs
        for i, (single, single_info) in enumerate(results):
            assert np.array_equal(single["image"], observation["image"][i].float().numpy())
            assert single_info["log_p_x_empty"] == pytest.approx(info["log_p_x_empty"][i].item(), abs=1e-9)
            assert single_info["count"] == info["count"][i]
            for name in ("labels", "boxes"):
                assert np.array_equal(single_info[name], info[name][i].numpy(), equal_nan=True)
        for _ in range(NUM_STEPS):
            actions = [random_action(rng, int(rng.random() < 0.8)) for _ in range(num_envs)]
            batch = {name: np.stack([a[name] for a in actions]) for name in actions[0]}
            observation, rewards, terminations, truncations, info = envs.step(batch)
            for i in np.flatnonzero(running):
                single, reward, terminated, truncated, single_info = singles[i].step(actions[i])
                assert reward == pytest.approx(rewards[i].item(), abs=1e-9)
                assert (terminated, truncated) == (bool(terminations[i]), bool(truncations[i]))
                np.testing.assert_allclose(single["canvas"], observation["canvas"][i].numpy(force=True), atol=1e-6)
                assert single["step"] == observation["step"][i]
                for name, value in single_info["reward_terms"].items():
                    assert value == pytest.approx(info["reward_terms"][name][i].item(), abs=1e-9)
                running[i] = not terminated


@pytest.mark.parametrize("count", range(NUM_STEPS + 1))
def test_an_episode_sums_to_the_log_joint(count):
    env = make_env()
    rng = np.random.default_rng(count)
    actions = [random_action(rng) for _ in range(count)]
    observation, info = env.reset(seed=count)
    total = info["log_p_x_empty"]
    terminated = False
    for action in [*actions, STOP][:NUM_STEPS]:
        assert not terminated
        _, reward, terminated, truncated, info = env.step(action)
        assert reward == pytest.approx(sum(info["reward_terms"].values()))
        assert truncated is False
        total += reward
    assert terminated is True
    z = Explanation.of_objects(
        z_pres=(torch.arange(NUM_STEPS) < count)[None].double(),
        z_where=torch.zeros(1, NUM_STEPS, 3, dtype=torch.float64),
        z_what=torch.zeros(1, NUM_STEPS, WHAT, dtype=torch.float64),
    )
    for i, action in enumerate(actions):
        z.z_where[0, i], z.z_what[0, i] = (torch.from_numpy(action[name]) for name in ("z_where", "z_what"))
    # Pixels are float32 in observations; the pool has them exactly.
    images = env.state.images
    assert total == pytest.approx(env.model.log_joint(images, z).item(), abs=1e-9)
    assert np.allclose(observation["image"], images[0].numpy(), atol=1e-7)


def test_results_have_the_types_that_gymnasium_wants():
    env = make_env()
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["image"].dtype == observation["canvas"].dtype == np.float32
    assert observation["step"].dtype == np.int64
    assert [type(info[name]) for name in ("log_p_x_empty", "count")] == [float, int]
    assert info["boxes"].shape == (*info["labels"].shape, 4)
    observation, reward, terminated, truncated, info = env.step(random_action(np.random.default_rng(0)))
    assert observation in env.observation_space
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]
    assert all(type(value) is float for value in info["reward_terms"].values())
    assert "log_p_x_empty" not in info
    assert type(info["count"]) is int


def test_a_finished_episode_cannot_be_stepped():
    env = make_env()
    with pytest.raises(ResetNeeded):
        env.step(STOP)
    env.reset(seed=0)
    assert env.step(STOP)[2]
    with pytest.raises(ResetNeeded, match="finished; call reset"):
        env.step(STOP)
    env.reset()
    assert env.step(random_action(np.random.default_rng(0)))[2] is False


@in_turn(
    "changes message",
    [
        ({"z_where": np.full(3, math.nan)}, "NaN"),
        ({"z_what": np.full(WHAT, 51.0)}, r"51, wanted values in \[-50, 50\]"),
        ({"z_where": np.zeros((1, 3))}, r"shape \(1, 3\), wanted \(3,\)"),
        ({"z_pres": np.ones(1)}, r"shape \(1,\), wanted \(\)"),
        ({"z_pres": "stop"}, "z_pres"),
        ({"z_pres": -1}, "must be 1"),
    ],
)
def test_an_invalid_action_is_refused_and_changes_nothing(changes, message):
    env, twin = make_env(), make_env()
    action = random_action(np.random.default_rng(0))
    for each in (env, twin):
        each.reset(seed=0)
        each.step(action)
    with pytest.raises(ValueError, match=message):
        env.step({**action, **changes})
    first, second = env.step(action), twin.step(action)
    assert_same(first[0], second[0])
    assert first[1:4] == second[1:4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_sequence_of_extreme_actions_corrupts_an_episode(dtype):
    rng = np.random.default_rng(0)
    values = np.array([0, 1, -1, 1e-40, 49.9, 50, -50, 50.1, 6e4, -np.inf, np.nan])
    chances = np.array([0.3, 0.2, 0.2, 0.1, 0.05, 0.05, 0.05, 0.01, 0.01, 0.01, 0.02])
    env = AIRSceneEnv(world=tiny_world(dtype=dtype))
    env.reset(seed=0)
    accepted = refused = 0
    for _ in range(500):
        before = state_of(env)
        action = {"z_pres": rng.choice([0, 1, 1, 1, 2]), "z_where": rng.choice(values, 3, p=chances)}
        action["z_what"] = rng.choice(values, WHAT, p=chances).astype(rng.choice(["f2", "f4", "f8", "g"]))
        try:
            observation, reward, terminated, _, _ = env.step(action)
        except ValueError:
            refused += 1
            assert_same(before, state_of(env))
            continue
        accepted += 1
        assert observation in env.observation_space
        assert math.isfinite(reward)
        assert observation["step"] == before["step"] + action["z_pres"]
        if terminated:
            env.reset()
    assert min(accepted, refused) > 100


def state_of(env: AIRSceneEnv) -> dict[str, np.ndarray]:
    """Copies of what the episode is made of."""
    parts = vars(env.state) | vars(env.state.z)
    return {name: part[0].numpy().copy() for name, part in parts.items() if name != "z"}


def test_the_same_seed_gives_the_same_episodes():
    results = []
    for seed in (7, 7, 8):
        env, rng = make_env(), np.random.default_rng(0)
        starts = [env.reset(seed=seed), env.reset(), env.reset()]
        results.append((starts, env.step(random_action(rng))))
    (starts, step), (same_starts, same_step), (other_starts, _) = results
    for (observation, info), (same_observation, same_info) in zip(starts, same_starts, strict=True):
        assert_same(observation, same_observation)
        assert_same(info, same_info)
    assert step[1] == same_step[1]
    constants = [[info["log_p_x_empty"] for _, info in s] for s in (starts, other_starts)]
    assert constants[0] != constants[1]
    assert len(set(constants[0])) > 1


def test_a_pickled_environment_continues_the_same_episode():
    env = make_env()
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    env.step(random_action(rng))
    twin = pickle.loads(pickle.dumps(env))
    action = random_action(rng)
    assert_same(env.step(action)[0], twin.step(action)[0])
    assert_same(env.reset()[0], twin.reset()[0])
    assert twin.action_space == env.action_space


def test_no_returned_arrays_share_memory():
    env = make_env()
    observation, info = env.reset(seed=0)
    results = [arrays(observation, info)]
    for seed in range(2):
        observation, *_, info = env.step(random_action(np.random.default_rng(seed)))
        results.append(arrays(observation, info))
    observation, info = env.reset(seed=0)
    results.append(arrays(observation, info))
    every = [array for result in results for array in result]
    assert len(every) == 16
    assert not any(np.shares_memory(a, b) for i, a in enumerate(every) for b in every[:i])
    # Nor with the environment: writing to them does not reach it.
    twin = make_env()
    twin.reset(seed=0)
    for array in every:
        array.fill(5)
    action = random_action(np.random.default_rng(9))
    mine, other = env.step(action), twin.step(action)
    assert_same(mine[0], other[0])
    assert mine[1] == other[1]
    assert_same(mine[4], other[4])


def test_reset_takes_a_scene_of_the_pool_or_an_image():
    env = make_env()
    world = tiny_world()
    observation, info = env.reset(options={"scene": 7})
    pixels = world.scenes.images[7].numpy()
    assert np.allclose(observation["image"], pixels / 255)
    assert info["count"] == world.scenes.count[7]
    for image in (pixels, pixels[0], pixels / 255, torch.from_numpy(pixels[0]), pixels[0].tolist()):
        own = np.asarray(image) / 255 if isinstance(image, list) else image
        observation, info = env.reset(options={"image": own})
        assert np.allclose(observation["image"], pixels / 255)
        assert info.keys() == {"log_p_x_empty"}
    refused = [
        ({"image": pixels[:, 1:]}, "shape"),
        ({"image": pixels * math.nan}, "NaN"),
        ({"scene": 40}, "from 0 to 39"),
        ({"scenes": [0]}, "choose from scene, image"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)


def test_make_passes_options_on_and_sets_no_time_limit():
    env = gymnasium.make("air_env:AIRScene-v1", world=tiny_world(dtype=torch.float32), render_mode="rgb_array")
    assert isinstance(env.unwrapped, AIRSceneEnv)
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    env = gymnasium.wrappers.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    total, info = 0.0, {}
    for _ in range(NUM_STEPS):
        _, reward, _, _, info = env.step(env.action_space.sample() | {"z_pres": np.int64(1)})
        total += float(reward)
    assert info["episode"]["l"] == NUM_STEPS
    assert info["episode"]["r"] == pytest.approx(total)
    env.close()
    env.close()
    with pytest.raises(ValueError, match="scene 'cats' is unknown; choose one of"):
        gymnasium.make("AIRScene-v1", scene="cats")
    env = gymnasium.make("AIRScene-v1", counts=(0,), num_scenes=3)
    assert env.reset(seed=0)[1]["count"] == 0
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'sene'; make_world takes scene, .*; this scene .*counts, "
    ):
        gymnasium.make("AIRScene-v1", sene="digits")


def test_rgb_frames_show_the_episode():
    env = make_env(render_mode="rgb_array")
    env.reset(options={"scene": 3})
    frames = [np.asarray(env.render())]
    rng = np.random.default_rng(0)
    for _ in range(NUM_STEPS):
        env.step(random_action(rng))
        frames.append(np.asarray(env.render()))
    shape = frames[0].shape
    assert all(frame.shape == shape and frame.dtype == np.uint8 for frame in frames)
    # Video encoders want even sides; people want to read it.
    assert shape[0] % 2 == shape[1] % 2 == 0
    assert shape[0] >= 200
    assert shape[1] >= 400
    for step, frame in enumerate(frames):
        shown = [(frame == colour).all(-1).any() for colour in COLOURS[:NUM_STEPS]]
        assert shown == [i < step for i in range(NUM_STEPS)]


def test_human_rendering_needs_no_call_and_returns_nothing():
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    env = make_env(render_mode="human")
    env.reset(seed=0)
    (figure,) = plt.get_fignums()
    env.step(random_action(np.random.default_rng(0)))
    assert env.render() is None
    shown = plt.figure(figure).axes[0].images[0].get_array()
    assert (np.asarray(shown) == COLOURS[0]).all(-1).any()
    assert pickle.loads(pickle.dumps(env)).render() is None
    env.close()
    env.close()
    assert figure not in plt.get_fignums()
    plt.close("all")


def test_render_modes_are_checked():
    env = make_env()
    env.reset()
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None
    with pytest.raises(ValueError, match="choose None, human or rgb_array"):
        make_env(render_mode="ansi")


def test_windows_are_drawn_on_their_pixels():
    image = np.full((6, 6), 0.5)
    boxes = [[1, 2, 3, 5], [math.nan] * 4, [-1e9, -1e9, 1e9, 1e9], [4, 0, 6, 1]]
    frame = draw_windows(image, boxes, scale=2)
    assert frame.shape == (12, 12, 3)
    # The border of x in [1, 3], y in [2, 5] is the outermost ring of frame pixels 2..5 and 4..9.
    red = {(y, x) for y in range(4, 10) for x in range(2, 6) if y in (4, 9) or x in (2, 5)}
    assert {tuple(pixel) for pixel in np.argwhere((frame == COLOURS[0]).all(-1)).tolist()} == red
    yellow = {(y, x) for y in range(2) for x in range(8, 12)}
    assert {tuple(pixel) for pixel in np.argwhere((frame == COLOURS[3]).all(-1)).tolist()} == yellow
    assert (frame == 128).all(-1).sum() == 12 * 12 - len(red) - len(yellow)


def test_frames_take_grey_and_coloured_images_of_any_size():
    grey = np.array([[[0.0, 2.0], [-1.0, 1.0]]])
    assert draw_windows(grey, np.empty((0, 4))).tolist() == [[[0] * 3, [255] * 3], [[0] * 3, [255] * 3]]
    colours = np.zeros((3, 2, 2))
    colours[1] = 1
    assert (draw_windows(torch.from_numpy(colours), [], scale=3) == (0, 255, 0)).all()
    for side in (7, 50, 51, 300):
        pixels = np.zeros((1, side, side))
        height, width, _ = scene_frame(pixels, pixels, np.full((1, 4), math.nan), ("count 0", "")).shape
        assert height % 2 == width % 2 == 0


def test_import_registers_the_environment_and_loads_little():
    code = (
        "import sys, air_env, gymnasium; assert 'AIRScene-v1' in gymnasium.registry; "
        "print([m for m in ('sklearn', 'matplotlib', 'stable_baselines3', 'air_agents') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bogus": 1}, "bogus"),
        ({"scene": 10**6}, "scenes must be integers"),
        ({"image": np.zeros((3, 3))}, "images have shape"),
        (5, "must be a dict"),
        ("scene", "must be a dict"),
    ],
)
def test_a_refused_reset_changes_nothing(options, message):
    env, same = make_env(), make_env()
    for each in (env, same):
        each.reset(seed=3)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=5, options=options)
    with pytest.raises(ValueError, match="a seed must be"):
        env.reset(seed=-1)
    assert env.np_random_seed == 3
    for _ in range(3):
        (observation, info), (wanted, wanted_info) = env.reset(), same.reset()
        assert np.array_equal(observation["image"], wanted["image"])
        assert info["count"] == wanted_info["count"]


def test_a_seed_may_be_a_number_of_numpy():
    (observation, _), (wanted, _) = make_env().reset(seed=np.int64(3)), make_env().reset(seed=3)
    assert np.array_equal(observation["image"], wanted["image"])


def test_a_generator_of_ones_own_draws_the_scenes():
    env, seeded = make_env(), make_env()
    env.np_random = np.random.Generator(np.random.PCG64(7))
    wanted = np.random.Generator(np.random.PCG64(7)).integers(len(env.unwrapped._envs.scenes))
    observation, _ = env.reset()
    assert np.array_equal(observation["image"], seeded.reset(options={"scene": wanted})[0]["image"])


def test_earlier_versions_name_latents_as_actions_do():
    options = {"scene": "tabletop3d", "num_scenes": 4, "scene_options": {"renderer": "raycast"}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of date.*")
        old = gymnasium.make("AIRScene-v0", **options).observation_space
    new = gymnasium.make("AIRScene-v1", **options).observation_space
    latents = {"z_scene", "z_where", "z_what"}
    assert set(old) == {"image", "canvas", "step"} | latents
    assert set(new) == {"image", "canvas", "step"} | {f"chosen_{name}" for name in latents}
