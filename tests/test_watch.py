"""Films: `air-env watch`, and Gymnasium's own recorders on the environment."""

import gc
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo
from PIL import Image, ImageSequence
from tiny import RECIPE, make_agent, make_scenes

from air_agents import load_agent, save_agent
from air_agents.inference.tabletop3d import TabletopAgentConfig
from air_agents.training.recipes import Recipe
from air_env import Explanation, World
from air_env.frames import COLOURS
from air_env.model import SceneConfig
from air_env.renderers import TabletopConfig
from air_env.scenes import make_scene

# imageio-ffmpeg leaves the pipes of its processes open until they are collected.
leaky = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collect_pipes():
    """Not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture
def tiny_agent(tmp_path):
    """An untrained agent of the tiny world, on disk."""
    save_agent(make_agent().float(), tmp_path / "run" / "agent.safetensors", RECIPE)
    return tmp_path / "run"


def windows_shown(frame) -> list[bool]:
    """Whether each step's colour is in a frame; nearly, because a GIF has 256 colours."""
    pixels = np.asarray(frame.convert("RGB")).astype(int)
    return [bool((abs(pixels - colour).max(-1) < 20).any()) for colour in COLOURS[:3]]


def test_a_gif_shows_every_step_of_the_most_probable_explanations(air_env_command, tmp_path):
    status, out, _ = air_env_command(
        "watch", "digits", "--output", tmp_path / "films" / "demo.gif", "--num-scenes", 3, "--fps", 4
    )
    assert status == 0
    images = make_scene("digits").dataset("test", 3, 0)
    count = load_agent("digits").explain(images.images).count.tolist()
    with Image.open(tmp_path / "films" / "demo.gif") as film:
        shown = [(windows_shown(frame), frame.info["duration"]) for frame in ImageSequence.Iterator(film)]
        assert film.info["loop"] == 0
    # The first picture, one for every object, and a stop, which is shown longer.
    steps = [([i < step for i in range(3)], 250) for n in count for step in range(n + 1)]
    times = []
    for windows, milliseconds in shown:
        if times and times[-1][0] == windows:
            times[-1][1] += milliseconds
        else:
            times.append([windows, milliseconds])
    assert [windows for windows, _ in times] == [windows for windows, _ in steps]
    assert sum(milliseconds for _, milliseconds in times) == 250 * sum(n + 4 if n < 3 else n + 3 for n in count)
    rows = [line.split() for line in out.splitlines()[1:4]]
    assert [row[:3] for row in rows] == [[str(i), str(int(images.count[i])), str(count[i])] for i in range(3)]
    assert "wrote" in out
    assert "demo.gif" in out


def test_the_return_is_what_the_explanation_adds_to_the_log_joint(air_env_command, tiny_agent, tmp_path):
    status, out, _ = air_env_command(
        "watch", tiny_agent, "--output", tmp_path / "demo.gif", "--num-scenes", 4, "--seed", 3
    )
    assert status == 0
    agent = load_agent(tiny_agent)
    images = make_scenes(4, seed=3).float_images()
    z = agent.explain(images)
    empty = Explanation(torch.zeros_like(z.z_pres), z.z_where, z.z_what, z.z_scene)
    model = agent.model
    with torch.no_grad():
        gain = model.log_joint(images, z) - model.log_joint(images, empty) + model.log_p_count[0]
    for line, expected in zip(out.splitlines()[1:5], gain.tolist(), strict=True):
        assert float(line.split()[3]) == pytest.approx(expected, abs=0.06)


def test_a_table_is_filmed_from_its_camera(air_env_command, tmp_path):
    torch.manual_seed(0)
    renderer = TabletopConfig(renderer="raycast", samples=1)
    options = {"renderer": "raycast", "image_size": 16, "num_steps": 2}
    config = TabletopAgentConfig(channels=4, camera_hidden=8, glimpse_size=4, hidden=8)
    model = SceneConfig(image_size=16, num_steps=2, renderer=renderer)
    recipe = Recipe(scene="tabletop3d", scene_options=options, max_steps=1, model=model, agent=config)
    agent = config.make(model)
    torch.nn.init.constant_(agent.presence.bias, 30.0)
    save_agent(agent, tmp_path / "run" / "agent.safetensors", recipe)
    status, out, _ = air_env_command("watch", tmp_path / "run", "--output", tmp_path / "demo.gif", "--num-scenes", 2)
    assert status == 0
    images = make_scene("tabletop3d", **options).dataset("test", 2).float_images()
    z = agent.explain(images)
    black = agent.model.likelihood.log_prob(images, torch.zeros_like(images))
    for line, gain in zip(out.splitlines()[1:3], (agent.model.log_joint(images, z) - black).tolist(), strict=True):
        assert float(line.split()[3]) == pytest.approx(gain, abs=0.06)


@leaky
def test_an_mp4_can_be_played(air_env_command, tiny_agent, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs a video encoder: pip install moviepy")
    path = tmp_path / "demo.mp4"
    status, _, _ = air_env_command("watch", tiny_agent, "--output", path, "--num-scenes", 2, "--fps", 5)
    assert status == 0
    reader = ffmpeg.read_frames(path)
    settings = next(reader)
    frames = list(reader)
    width, height = settings["size"]
    assert (width, height) == (settings["source_size"])
    assert width > 400
    assert height > 200
    assert settings["fps"] == 5
    count = load_agent(tiny_agent).explain(make_scenes(2, seed=0).images).count.tolist()
    assert len(frames) == sum(n + 4 if n < 3 else n + 3 for n in count)
    assert [name.name for name in tmp_path.iterdir() if name.is_file()] == ["demo.mp4"]


def test_without_an_encoder_an_error_says_what_to_install(air_env_command, tiny_agent, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    status, _, err = air_env_command("watch", tiny_agent, "--output", tmp_path / "demo.mp4")
    assert status == 1
    for words in (
        "error: imageio_ffmpeg is not installed",
        'pip install "air-env[video]"',
        'pip install -e ".[video]"',
        ".gif",
    ):
        assert words in err
    assert not (tmp_path / "demo.mp4").exists()


def test_bad_arguments_get_a_clear_error_and_write_nothing(air_env_command, tiny_agent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in [
        (["--output", "demo.avi"], "--output must end in .gif or .mp4, got demo.avi"),
        (["--output", "demo.gif", "--num-scenes", 0], "--num-scenes must be at least 1, got 0"),
        (["--output", "demo.gif", "--fps", "nan"], "--fps must be above 0 and at most 50, got nan"),
        (["--output", "demo.gif", "--scene", "cats"], "scene 'cats' is unknown"),
        (["--output", "demo.gif", "--seed", -1], "seed of scenes must be a whole number of at least 0"),
    ]:
        status, _, err = air_env_command("watch", tiny_agent, *arguments)
        assert status == 1
        assert f"error: {message}" in err.replace("the seed", "seed")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_agent_without_a_recipe_needs_a_scene(air_env_command, tmp_path):
    save_agent(make_agent().float(), tmp_path / "agent.safetensors")
    arguments = [tmp_path / "agent.safetensors", "--output", tmp_path / "demo.gif"]
    status, _, err = air_env_command("watch", *arguments)
    assert status == 1
    assert "name a scene with --scene" in err
    assert air_env_command("watch", "nobody", *arguments[1:])[2].startswith("error: there is no agent at nobody")


def test_what_holds_no_agent_is_called_what_it_is(air_env_command, tmp_path):
    (tmp_path / "model.safetensors").touch()
    for command, arguments in (("watch", ["--output", "demo.gif"]), ("evaluate", []), ("explain", ["a.png"])):
        status, _, err = air_env_command(command, tmp_path, *arguments)
        assert status == 1
        assert f"error: {tmp_path} holds no agent: it is a model to compare agents with. Its metrics are in" in err


@leaky
@pytest.mark.parametrize("env_id", ["AIRScene-v1", "AIRSceneFlat-v1"])
def test_gymnasiums_recorders_work(env_id, tmp_path):
    pytest.importorskip("moviepy", reason="RecordVideo needs moviepy: pip install moviepy")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    world = World(make_agent().float().model, make_scenes(5))
    env = gymnasium.make(env_id, world=world, render_mode="rgb_array", disable_env_checker=True)
    env = RecordEpisodeStatistics(RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True))
    env.action_space.seed(0)
    lengths = []
    for episode in range(2):
        env.reset(seed=episode)
        total, terminated, info = 0.0, False, {}
        while not terminated:
            _, reward, terminated, _, info = env.step(env.action_space.sample())
            total += float(reward)
        assert info["episode"]["r"] == pytest.approx(total)
        lengths.append(info["episode"]["l"])
    env.close()
    videos = sorted((tmp_path / "videos").glob("*.mp4"))
    assert len(videos) == 2
    for video, length in zip(videos, lengths, strict=True):
        reader = ffmpeg.read_frames(video)
        assert next(reader)["source_size"] == env.unwrapped.render().shape[1::-1]
        assert len(list(reader)) == length + 1


def test_recorded_statistics_need_no_video():
    env = gymnasium.make("AIRSceneFlat-v1", world=World(make_agent().float().model, make_scenes(5)))
    env = RecordEpisodeStatistics(env)
    env.reset(seed=0)
    stop = np.full(env.action_space.shape, -1, np.float32)
    _, reward, terminated, _, info = env.step(stop)
    assert terminated
    assert info["episode"]["r"] == pytest.approx(reward)
    assert info["episode"]["l"] == 1
    assert list(env.return_queue) == [pytest.approx(reward)]
