"""Backends, which make images of three-dimensional scenes, and derivatives through them (Section 3.2).

A scene is a `SceneBatch`; what turns one into images is a `Backend`. Backends are black boxes: their gradient comes
from `render_with_gradient`, by finite differences.
"""

from air_env.renderers.backends.finite_difference import Backend, render_with_gradient
from air_env.renderers.backends.kinds import KINDS, Kind
from air_env.renderers.backends.opengl import OpenGLError, PyrenderRenderer, why_no_opengl
from air_env.renderers.backends.raycast import RaycastRenderer
from air_env.renderers.backends.scene import SceneBatch, View

__all__ = [
    "KINDS",
    "Backend",
    "Kind",
    "OpenGLError",
    "PyrenderRenderer",
    "RaycastRenderer",
    "SceneBatch",
    "View",
    "render_with_gradient",
    "why_no_opengl",
]
