"""Films an agent, or a policy of Stable-Baselines3, that explains held-out scenes, one object at a time.

    air-env watch digits --output demo.gif
    air-env watch runs/multi_mnist-half_critic-0 --output demo.mp4 --num-scenes 20

Each frame is the environment's `render()` after a step of the agent's most probable explanation: image and canvas with
the windows in red, green, blue, ..., the count and the return so far. MP4 needs `pip install "air-env[video]"`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import terminal

if TYPE_CHECKING:
    from air_env.scenes import SceneDataset

_LAST_FRAMES = 3
"""How many frames long the end of an episode is shown."""
_SUFFIXES = (".gif", ".mp4")


@dataclass(frozen=True)
class Arguments:
    """Films an agent that explains held-out scenes."""

    agent: terminal.AgentName
    output: Path
    """The film to write, .gif or .mp4; replaces an earlier one."""
    scene: str | None = None
    """digits, multi_mnist, ..., or path.py:my_scene; default: the scene and the options of training."""
    num_scenes: int = 6
    """Number of scenes."""
    seed: int = 0
    """Decides the scenes."""
    fps: float = 2.0
    """Steps per second."""
    machine: terminal.OnMachine = terminal.MACHINE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env watch`; returns the exit status."""
    return terminal.run("watch", Arguments, watch, __doc__, argv)


def watch(arguments: Arguments) -> None:
    """Films all scenes, and prints a line about each."""
    suffix = arguments.output.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"--output must end in {' or '.join(_SUFFIXES)}, got {arguments.output}")
    terminal.at_least(1, num_scenes=arguments.num_scenes)
    if not 0 < arguments.fps <= 50:
        raise ValueError(f"--fps must be above 0 and at most 50, got {arguments.fps}")
    if suffix == ".mp4":
        terminal.require("video", "imageio_ffmpeg", instead="; or write a .gif")

    from air_env import AIRSceneEnv, World
    from air_env.scenes import make_scene

    from ..jobs.devices import pick_device
    from .film import WRITERS, episode
    from .trained import load_trained, scene_of_trained

    agent = load_trained(arguments.agent, pick_device(arguments.machine.device), arguments.machine.data_dir)
    name, options, _ = scene_of_trained(arguments.agent, agent, arguments.scene)
    scenes = make_scene(name, data_dir=arguments.machine.data_dir, **options)
    dataset = scenes.dataset("test", arguments.num_scenes, arguments.seed)
    env = AIRSceneEnv(world=World(agent.model, dataset), render_mode="rgb_array")
    z = agent.explain(dataset.images)
    frames, lines = [], []
    for i in terminal.progress_bar(unit="scene", delay=1, iterable=range(len(dataset))):
        total = 0.0
        for frame, reward in episode(env, i, z):
            frames.append(frame)
            total += reward
        frames += [frames[-1]] * (_LAST_FRAMES - 1)
        lines.append(f"{i:5d}{true_count(dataset, i):>12s}{int(z.count[i]):7d}{round(total, 1) + 0.0:16.1f}")
    WRITERS[suffix](frames, arguments.fps, arguments.output)
    print("scene  true count  count  return in nats", *lines, "", f"wrote {arguments.output}", sep="\n")


def true_count(scenes: "SceneDataset", i: int) -> str:
    """The number of objects of a scene; a dash where nobody knows."""
    return str(int(scenes.count[i])) if scenes.counted[i] else "-"
