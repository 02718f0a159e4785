"""The reference renderer: pyrender, which draws with OpenGL, with EGL where there is no display."""

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
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

_REMEDY = "install the extra and a driver (pip install air-env[opengl]; Debian: apt install libegl1 libgl1-mesa-dri)"


class OpenGLError(RuntimeError):
    """There is no OpenGL, or it failed."""


@dataclass(frozen=True)
class PyrenderRenderer(View):
    """Renders scenes with pyrender, one after the other or many at once; the same images within rounding.

    OpenGL runs in a process of its own, one for every process that renders: this may be used from any thread, from a
    forked worker, and by any number of environments.

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
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__}
        try:
            images = _process(os.getpid()).draw(settings, *(part.double().cpu().numpy() for part in (objects, views)))
        except OpenGLError:
            # It has ended; the next call starts another one.
            _process.cache_clear()
            raise
        return torch.from_numpy(images.copy()).to(like.device).movedim(-1, 1).to(like.dtype) / 255


@cache
def why_no_opengl() -> str | None:
    """Why there is no OpenGL on this machine, with the remedy; None where there is."""
    if find_spec("pyrender") is None:
        return f"pyrender is not installed; {_REMEDY}"
    try:
        _process(os.getpid())
    except OpenGLError as error:
        return str(error)
    return None


class _Process:
    """A running `opengl_process`."""

    def __init__(self) -> None:
        # -P: modules of this package beside the program must not be taken for others of the same name.
        command = [sys.executable, "-P", str(Path(opengl_process.__file__))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        meshes = [mesh_of(kind) for kind in KINDS.values()]
        atexit.register(self.close)
        self._ask({}, *(getattr(mesh, field.name) for mesh in meshes for field in fields(mesh)))

    def draw(self, settings: dict[str, object], objects: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Images ``[batch, side, side, 3]``, uint8."""
        return self._ask(settings, objects, views)[0]

    def close(self) -> None:
        """Ends it, if it has not ended."""
        atexit.unregister(self.close)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self._process.wait()

    def _ask(self, header: dict[str, object], *arrays: np.ndarray) -> list[np.ndarray]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        with self._lock:
            try:
                opengl_process.send(requests, header, *arrays)  # pyright: ignore
                answer = opengl_process.receive(answers)  # pyright: ignore
            except (OSError, ValueError):
                answer = None
        if answer is None or answer[0]["error"] is not None:
            self.close()
        if answer is None:
            code = self._process.returncode
            raise OpenGLError(f"the process that draws with OpenGL ended (exit code {code}); {_REMEDY}")
        if answer[0]["error"] is not None:
            raise OpenGLError(f"OpenGL failed ({answer[0]['error']}); {_REMEDY}")
        return answer[1]


@cache
def _process(pid: int) -> _Process:
    """The one of this process: a forked worker, whose number is another, starts its own."""
    del pid
    return _Process()
