"""OpenGL in a process of its own: a program that draws what it is sent.

A driver's state belongs to a thread, does not survive a fork and ends for all when one renderer is deleted. Here none
of that reaches the program that wants images. It is started by path, and imports neither torch nor this package.

A message is a line of JSON, whose ``arrays`` are types and shapes, and then their bytes. First come the meshes, then
requests; every one is answered by the images, or by ``error``.
"""

import json
import math
import os
import sys
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TILED_SIDE = 1024
"""Largest side of a viewport in pixels."""

Header = dict[str, Any]
"""What a message says beside its arrays."""


def send(stream: FileIO, header: Header, *arrays: NDArray) -> None:
    """Writes a message."""
    header = header | {"arrays": [(array.dtype.str, array.shape) for array in arrays]}
    for part in (json.dumps(header).encode() + b"\n", *(array.tobytes() for array in arrays)):
        rest = memoryview(part)
        while rest:
            rest = rest[stream.write(rest) :]


def receive(stream: FileIO) -> tuple[Header, list[NDArray]]:
    """Reads a message.

    Raises:
        EOFError: There are no more.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header = json.loads(line)
    arrays = []
    for dtype, shape in header["arrays"]:
        content = bytearray(math.prod(shape) * np.dtype(dtype).itemsize)
        rest = memoryview(content)
        while rest:
            if not (count := stream.readinto(rest)):
                raise EOFError
            rest = rest[count:]
        arrays.append(np.frombuffer(content, dtype).reshape(shape))
    return header, arrays


class _Painter:
    """Draws scenes with pyrender.

    Args:
        meshes: Positions, normals, brightness and triangles of each kind.
    """

    def __init__(self, meshes: list[list[NDArray]]) -> None:
        # With no display, EGL is what works; pyrender looks at this when it is imported.
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        import pyrender
        from OpenGL import GL
        from pyrender.shader_program import ShaderProgramCache

        self.pyrender, self.gl, self.meshes = pyrender, GL, meshes
        self.offscreen: Any = pyrender.OffscreenRenderer(16, 16)
        # There is no public way to one's own shaders.
        self.renderer: Any = self.offscreen._renderer
        self.programs = {
            "single": self.renderer._program_cache,
            "tiled": ShaderProgramCache(str(Path(__file__).parent / "shaders")),
        }

    def draw(self, settings: Header, objects: NDArray, views: NDArray) -> NDArray[np.uint8]:
        """Images ``[batch, side, side, 3]``.

        Args:
            settings: The fields of a `PyrenderRenderer`.
            objects: ``[batch, object, 8]``: kind, x, y, yaw, scale, red, green, blue.
            views: ``[batch, 6]``: position of the camera, direction towards the light.
        """
        mode, side = "tiled" if settings["tiled"] else "single", settings["resolution"]
        self.renderer._program_cache = self.programs[mode]
        for i in range(4):
            (self.gl.glEnable if settings["tiled"] else self.gl.glDisable)(self.gl.GL_CLIP_DISTANCE0 + i)
        most = max(1, _TILED_SIDE // side) ** 2 if settings["tiled"] else 1
        starts = range(0, len(objects), most)
        paint = self._tiled if settings["tiled"] else self._single
        parts = [paint(settings, objects[start : start + most], views[start : start + most]) for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, side, side, 3), np.uint8)

    def _scene(self, settings: Header, camera: NDArray, towards: NDArray) -> Any:
        pyrender, level = self.pyrender, settings["background"]
        scene = pyrender.Scene(bg_color=[level] * 3, ambient_light=[settings["ambient"]] * 3)
        lens = pyrender.PerspectiveCamera(yfov=settings["field_of_view"], aspectRatio=1.0)
        scene.add(lens, pose=_pose(camera / np.linalg.norm(camera), camera))
        scene.add(pyrender.DirectionalLight(color=np.ones(3), intensity=settings["light"]), pose=_pose(towards))
        return scene

    def _render(self, scene: object, side: int) -> NDArray[np.uint8]:
        self.offscreen.viewport_width = self.offscreen.viewport_height = side
        return self.offscreen.render(scene)[0]

    def _primitive(self, kind: int, **options: object) -> object:
        positions, normals, brightness, triangles = self.meshes[kind]
        colour = np.append(np.repeat(brightness[:, None], 3, 1), np.ones((len(brightness), 1)), 1)
        return self.pyrender.Primitive(positions, normals, color_0=colour, indices=triangles, **options)

    def _single(self, settings: Header, objects: NDArray, views: NDArray) -> NDArray[np.uint8]:
        """One scene with pyrender's own nodes, materials and shaders."""
        pyrender = self.pyrender
        scene = self._scene(settings, views[0, :3], views[0, 3:])
        for kind, x, y, yaw, scale, *colour in objects[0]:
            if kind < 0:
                continue
            material = pyrender.MetallicRoughnessMaterial(
                baseColorFactor=[*colour, 1.0],
                metallicFactor=settings["metallic"],
                roughnessFactor=settings["roughness"],
            )
            primitive = self._primitive(int(kind), material=material)
            cos, sin = scale * math.cos(yaw), scale * math.sin(yaw)
            pose = np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, scale, 0], [0, 0, 0, 1]])
            scene.add(pyrender.Mesh([primitive]), pose=pose)
        return self._render(scene, settings["resolution"])[None]

    def _tiled(self, settings: Header, objects: NDArray, views: NDArray) -> NDArray[np.uint8]:
        """Many scenes at once: one viewport, a tile for each scene, all objects of a kind drawn together."""
        pyrender, columns, side = self.pyrender, math.ceil(math.sqrt(len(objects))), settings["resolution"]
        # The shaders take camera and light of each scene from its objects; these are for the checks of pyrender.
        scene = self._scene(settings, np.array([0.0, -1.0, 1.0]), np.array([0.0, 0.0, 1.0]))
        tile = np.broadcast_to(np.arange(len(objects))[:, None], objects.shape[:2])
        for kind in np.unique(objects[..., 0]):
            rows = objects[..., 0] == kind
            if kind < 0:
                continue
            chosen, view = objects[rows], views[tile[rows]]
            packed = np.zeros((len(chosen), 4, 4), np.float32)
            packed[:, :, 0] = chosen[:, 1:5]
            packed[:, :3, 1], packed[:, 3, 1] = chosen[:, 5:], tile[rows]
            packed[:, :3, 2], packed[:, 3, 2] = view[:, :3], columns
            packed[:, :3, 3] = view[:, 3:]
            scene.add(pyrender.Mesh([self._primitive(int(kind), poses=packed)]))
        picture = self._render(scene, columns * side)
        tiles = picture.reshape(columns, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
        return tiles[: len(objects)]


def _pose(back: NDArray, place: NDArray | None = None) -> NDArray:
    """The pose of something that looks along ``-back``."""
    up = np.array([0.0, 0.0, 1.0]) if abs(back[2]) < 0.9999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(up, back)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], 1)
    if place is not None:
        pose[:3, 3] = place
    return pose


def _serve(requests: FileIO, answers: FileIO) -> None:
    """Answers requests until one fails, or who asks is no more."""
    _, arrays = receive(requests)
    meshes = [arrays[i : i + 4] for i in range(0, len(arrays), 4)]
    try:
        painter = _Painter(meshes)
        send(answers, {"error": None})
        while True:
            settings, (objects, views) = receive(requests)
            send(answers, {"error": None}, painter.draw(settings, objects, views))
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        # Whatever goes wrong is told to who asked, and not to the terminal.
        send(answers, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    if sys.stderr is None:
        # Nobody reads errors; without this, the next file would be taken for that of errors.
        os.open(os.devnull, os.O_WRONLY)
    # Libraries print what they like; only messages may go where the answers go.
    pipe = FileIO(os.dup(1), "w")
    os.dup2(2, 1)
    with suppress(EOFError, BrokenPipeError):
        _serve(FileIO(0), pipe)
