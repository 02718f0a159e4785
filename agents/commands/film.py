"""Films of the environment: an agent's explanations, step by step, as GIF or MP4."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from air_env import AIRSceneEnv, Explanation
from air_env.frames import Frame

from ..training.files import write_atomically


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
    """The environment's frame."""
    frame = env.render()
    assert frame is not None
    return frame


def write_gif(frames: Sequence[Frame], fps: float, path: Path) -> None:
    """Writes an animation that starts again by itself."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    duration = round(1000 / fps)
    write_atomically(
        path,
        lambda temporary: first.save(temporary, "GIF", save_all=True, append_images=others, duration=duration, loop=0),
    )


def write_mp4(frames: Sequence[Frame], fps: float, path: Path) -> None:
    """Writes a film that browsers play."""
    import imageio_ffmpeg as ffmpeg  # the extra `video`

    height, width, _ = frames[0].shape

    def write(temporary: Path) -> None:
        # Sides need to be even only, and the temporary name does not say the format.
        options = {"fps": fps, "macro_block_size": 2, "output_params": ["-f", "mp4"]}
        writer = ffmpeg.write_frames(temporary, (width, height), **options)
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()

    write_atomically(path, write)


WRITERS = {".gif": write_gif, ".mp4": write_mp4}
"""Suffix -> function that writes frames, at so many a second, to a path."""
