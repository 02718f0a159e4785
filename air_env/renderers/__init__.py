"""How objects, and what is behind them, become pixels."""

from air_env.registry import Registry
from air_env.renderers.background import Background
from air_env.renderers.base import Renderer, RendererSettings, WindowRenderer
from air_env.renderers.objects import ObjectRenderer, ObjectsConfig
from air_env.renderers.patch import PatchConfig, PatchRenderer
from air_env.renderers.solids import SolidRenderer, SolidsConfig
from air_env.renderers.sprites import SpriteConfig, SpriteRenderer
from air_env.renderers.tabletop import TabletopConfig, TabletopRenderer

RENDERERS: Registry[type[RendererSettings]] = Registry(
    "renderer", {settings.kind: settings for settings in (PatchConfig, SpriteConfig, ObjectsConfig, TabletopConfig)}
)
"""Kind -> class of settings, which makes the renderer."""

__all__ = [
    "RENDERERS",
    "Background",
    "ObjectRenderer",
    "ObjectsConfig",
    "PatchConfig",
    "PatchRenderer",
    "Renderer",
    "RendererSettings",
    "SolidRenderer",
    "SolidsConfig",
    "SpriteConfig",
    "SpriteRenderer",
    "TabletopConfig",
    "TabletopRenderer",
    "WindowRenderer",
]
