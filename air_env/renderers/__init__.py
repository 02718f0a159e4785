"""How objects become pixels."""

from air_env.renderers.base import Renderer
from air_env.renderers.patch import PatchRenderer

__all__ = ["PatchRenderer", "Renderer"]
