"""How objects become pixels."""

from air_env.renderers.base import Renderer, RendererConfig, SceneRenderer
from air_env.renderers.objects import ObjectRenderer, ObjectsConfig
from air_env.renderers.patch import PatchConfig, PatchRenderer
from air_env.renderers.solids import SolidRenderer, SolidsConfig
from air_env.renderers.sprites import SpriteConfig, SpriteRenderer
from air_env.renderers.tabletop import TabletopConfig, TabletopRenderer

__all__ = [
    "ObjectRenderer",
    "ObjectsConfig",
    "PatchConfig",
    "PatchRenderer",
    "Renderer",
    "RendererConfig",
    "SceneRenderer",
    "SolidRenderer",
    "SolidsConfig",
    "SpriteConfig",
    "SpriteRenderer",
    "TabletopConfig",
    "TabletopRenderer",
]
