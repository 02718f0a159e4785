"""Films an agent that explains held-out scenes, one object at a time.

    python scripts/watch_agent.py digits --output demo.gif
    python scripts/watch_agent.py runs/multi_mnist-half_critic-0 --output demo.mp4 --num-scenes 20

It is the environment's own picture after every step of the agent's most probable explanation: image and canvas with
the windows in red, green, blue, ..., the count and the rewards so far. MP4 needs `pip install moviepy`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from air_env import AIRSceneEnv, Explanation, World
from air_env.frames import Frame
from air_env.scenes import make_scene

from .. import load_agent
from ..jobs.devices import pick_device
from ..training.checkpoints import scene_of, write_atomically

_LAST_FRAMES = 3
"""How many frames long the end of an episode is shown."""


@dataclass(frozen=True)
class Arguments:
    """Films an agent that explains held-out scenes."""

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, an agent.safetensors file, or the name of a shipped agent (digits)."""
    output: Path
    """The film to write, .gif or .mp4; replaces an earlier one."""
    scene: str | None = None
    """digits, multi_mnist, ...; default: the scene the agent was trained on, with the options it had then."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    num_scenes: int = 6
    """Number of scenes."""
    seed: int = 0
    """Decides the scenes."""
    fps: float = 2.0
    """Steps per second."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        frames, lines = film(arguments)
        WRITERS[arguments.output.suffix.lower()](frames, arguments.fps, arguments.output)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print("scene  true count  count  return in nats", *lines, "", f"wrote {arguments.output}", sep="\n")


def film(arguments: Arguments) -> tuple[list[Frame], list[str]]:
    """The frames of all scenes, and a line about each."""
    if arguments.output.suffix.lower() not in WRITERS:
        raise ValueError(f"--output must end in {' or '.join(WRITERS)}, got {arguments.output}")
    if arguments.num_scenes < 1:
        raise ValueError(f"--num-scenes must be at least 1, got {arguments.num_scenes}")
    if not 0 < arguments.fps <= 50:
        raise ValueError(f"--fps must be above 0 and at most 50, got {arguments.fps}")
    if arguments.output.suffix.lower() == ".mp4":
        import_ffmpeg()
    agent = load_agent(arguments.agent, pick_device(arguments.device))
    name, options, _ = scene_of(arguments.agent, agent, arguments.scene)
    scenes = make_scene(name, data_dir=arguments.data_dir, **options)
    dataset = scenes.dataset("test", arguments.num_scenes, arguments.seed)
    env = AIRSceneEnv(world=World(agent.model, dataset), render_mode="rgb_array")
    z = agent.explain(dataset.images)
    frames, lines = [], []
    for i in tqdm(range(len(dataset)), unit="scene", delay=1, dynamic_ncols=True):
        total = 0.0
        for frame, reward in episode(env, i, z):
            frames.append(frame)
            total += reward
        frames += [frames[-1]] * (_LAST_FRAMES - 1)
        lines.append(f"{i:5d}{int(dataset.count[i]):12d}{int(z.count[i]):7d}{round(total, 1) + 0.0:16.1f}")
    return frames, lines


def episode(env: AIRSceneEnv, scene: int, z: Explanation) -> Iterator[tuple[Frame, float]]:
    """Takes an explanation's steps; the picture at first and after each, with its reward."""
    env.reset(options={"scene": scene})
    yield picture(env), 0.0
    terminated, step = False, 0
    while not terminated:
        # After the last object the action is the first that is absent: the stop action.
        action = {name: getattr(z, name)[scene, step].cpu().numpy() for name in ("z_pres", "z_where", "z_what")}
        action["z_scene"] = z.z_scene[scene].cpu().numpy()
        _, reward, terminated, _, _ = env.step(action)
        step += 1
        yield picture(env), reward


def picture(env: AIRSceneEnv) -> Frame:
    """What the environment shows now."""
    frame = env.render()
    assert frame is not None
    return frame


def write_gif(frames: Sequence[Frame], fps: float, path: Path) -> None:
    """Writes an animation that starts again by itself."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    options: dict[str, Any] = {"save_all": True, "append_images": others, "duration": round(1000 / fps), "loop": 0}
    write_atomically(path, lambda temporary: first.save(temporary, "GIF", **options))


def write_mp4(frames: Sequence[Frame], fps: float, path: Path) -> None:
    """Writes a film that browsers play."""
    ffmpeg = import_ffmpeg()
    height, width, _ = frames[0].shape

    def write(temporary: Path) -> None:
        # Sides need to be even only, and the temporary name does not say the format.
        writer = ffmpeg.write_frames(
            temporary, (width, height), fps=fps, macro_block_size=2, output_params=["-f", "mp4"]
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()

    write_atomically(path, write)


def import_ffmpeg() -> Any:
    """The module `imageio_ffmpeg`.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ValueError("MP4 needs a video encoder: pip install moviepy; or write a .gif") from error
    return imageio_ffmpeg


WRITERS = {".gif": write_gif, ".mp4": write_mp4}
"""Suffix -> function that writes frames."""
