"""How objects become pixels."""

from air_env.renderers.base import Renderer, RendererConfig
from air_env.renderers.objects import ObjectRenderer, ObjectsConfig
from air_env.renderers.patch import PatchConfig, PatchRenderer
from air_env.renderers.sprites import SpriteConfig, SpriteRenderer

__all__ = [
    "ObjectRenderer",
    "ObjectsConfig",
    "PatchConfig",
    "PatchRenderer",
    "Renderer",
    "RendererConfig",
    "SpriteConfig",
    "SpriteRenderer",
]
