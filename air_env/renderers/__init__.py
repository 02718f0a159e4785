"""How objects become pixels."""

from air_env.renderers.base import Renderer, RendererConfig
from air_env.renderers.patch import PatchConfig, PatchRenderer
from air_env.renderers.sprites import SpriteConfig, SpriteRenderer

__all__ = ["PatchConfig", "PatchRenderer", "Renderer", "RendererConfig", "SpriteConfig", "SpriteRenderer"]
