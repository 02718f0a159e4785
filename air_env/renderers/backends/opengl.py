"""The reference renderer: pyrender, which draws with OpenGL, with EGL where there is no display."""

import os
import subprocess
import sys
import threading
import weakref
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from air_env.renderers.backends import opengl_process
from air_env.renderers.backends.kinds import KINDS
from air_env.renderers.backends.meshes import mesh_of
from air_env.renderers.backends.scene import SceneBatch, View

_INSTALL = "install the extra and a driver (pip install air-env[opengl]; Debian: apt install libegl1 libgl1-mesa-dri)"
_RELIEVE = "free memory, draw fewer or smaller images at once, or choose renderer = 'raycast'"


class OpenGLError(RuntimeError):
    """There is no OpenGL, or it failed."""


@dataclass(frozen=True)
class PyrenderRenderer(View):
    """Renders scenes with pyrender, one after the other or many at once; the same images within rounding.

    OpenGL runs in a process of its own, one for every process that renders: this may be used from any thread, from a
    forked worker, and by any number of environments. If that process is killed, or `render` is interrupted, the next
    images are drawn by a new one.

    Example:
        >>> scenes = SceneBatch.of(torch.tensor([[0]]), torch.zeros(1, 1, 2), torch.zeros(1, 1))
        >>> PyrenderRenderer(resolution=32).render(scenes).shape
        torch.Size([1, 3, 32, 32])
    """

    tiled: bool = True
    """Whether many scenes are drawn at once, as tiles of one viewport and by shaders of this package's own; otherwise
    one by one, by pyrender's shaders."""
    metallic: float = 0.0
    """How much surfaces are like metal, from 0 to 1; not with tiles."""
    roughness: float = 1.0
    """How rough they are, from 0 to 1; not with tiles."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.metallic <= 1 and 0 <= self.roughness <= 1):
            raise ValueError(f"metallic and roughness lie between 0 and 1, got {self.metallic} and {self.roughness}")
        if self.tiled and (self.metallic, self.roughness) != (0, 1):
            raise ValueError("tiles are of rough surfaces without metal; other materials need tiled=False")

    def render(self, scenes: SceneBatch) -> Float[Tensor, "batch 3 height width"]:
        """Images in [0, 1], in 256 levels.

        Raises:
            OpenGLError: There is no OpenGL, or it failed.
        """
        like = scenes.position
        kind, yaw, scale = (part[..., None] for part in (scenes.kind.to(like), scenes.yaw, scenes.scale))
        objects = torch.cat([kind, scenes.position, yaw, scale, scenes.colour], -1).detach()
        views = torch.cat([scenes.camera, scenes.light], -1).detach()
        images = _draw(asdict(self), *(part.double().cpu().numpy() for part in (objects, views)))
        return torch.from_numpy(images).to(like.device).movedim(-1, 1).to(like.dtype) / 255


def why_no_opengl() -> str | None:
    """Why there is no OpenGL on this machine, with the remedy; None where there is."""
    if find_spec("pyrender") is None:
        return f"pyrender is not installed; {_INSTALL}"
    try:
        with _lock:
            if not _idle:
                _idle.append(_Process())
    except OpenGLError as error:
        return str(error)
    return None


class _Process:
    """A running `opengl_process`. What interrupts a question ends it, for the answer may come later."""

    def __init__(self) -> None:
        # -P: modules of this package beside the program must not be taken for others of the same name.
        command = [sys.executable, "-P", str(Path(opengl_process.__file__))]
        # Without buffers, a forked copy has nothing to write; in a session of its own, it does not hear Ctrl-C.
        self._program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        # At the latest when nobody holds this any more, or when Python exits.
        self.end = weakref.finalize(self, _end, self._program, os.getpid())
        _running.add(self)
        self._remedy = _INSTALL
        meshes = [mesh_of(kind) for kind in KINDS.values()]
        self.ask({}, *(getattr(mesh, field.name) for mesh in meshes for field in fields(mesh)))
        self._remedy = _RELIEVE

    def ask(self, header: opengl_process.Header, *arrays: np.ndarray) -> list[np.ndarray]:
        """Sends a message and returns the arrays of its answer."""
        try:
            opengl_process.send(self._program.stdin, header, *arrays)  # pyright: ignore
            answer, found = opengl_process.receive(self._program.stdout)  # pyright: ignore
        except BaseException as error:
            self.end()
            if not isinstance(error, BrokenPipeError | EOFError):
                raise
            code = self._program.returncode
            raise OpenGLError(f"the process that draws with OpenGL ended (exit code {code}); {self._remedy}") from None
        if answer["error"] is not None:
            self.end()
            raise OpenGLError(f"OpenGL failed ({answer['error']}); {self._remedy}")
        return found


def _end(program: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        program.kill()
        program.wait()
    else:
        # A forked copy: the process is not its child.
        program.returncode = 0
    for pipe in (program.stdin, program.stdout):
        assert pipe is not None
        pipe.close()


_lock = threading.RLock()
_running: weakref.WeakSet[_Process] = weakref.WeakSet()
_idle: list[_Process] = []
"""The process that waits for a request. While it draws, it is not here: a signal handler that draws starts another."""


def _draw(settings: opengl_process.Header, objects: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Images ``[batch, side, side, 3]``, uint8, of what `opengl_process` takes."""
    with _lock:
        process = _idle.pop() if _idle else _Process()
        try:
            (images,) = process.ask(settings, objects, views)
        except OpenGLError:
            # It may have been killed.
            process = _Process()
            (images,) = process.ask(settings, objects, views)
        _idle.append(process)
    return images


def _start_afresh() -> None:
    """In a forked child: it has no thread that would unlock, and must not talk to the processes of its parent."""
    global _lock
    _lock = threading.RLock()
    for process in list(_running):
        process.end()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
