"""`sprites` and `sprites_overlap`: scenes of coloured shapes from a fixed set, with a known renderer.

Everything about these scenes is specified: `SpriteRenderer` draws exactly these images from the right
``z_what``, a category, and the right windows, which are the objects' boxes. Only where the sprites are,
which and how many is to be inferred, and which of two that overlap is in front (Appendix H).
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from air_env.model import SceneConfig
from air_env.renderers import SpriteConfig
from air_env.renderers.sprites import COLOURS, sprite_mask
from air_env.scenes.arrangement import Overlap
from air_env.scenes.base import Split
from air_env.scenes.composer import ComposedScene, Glyphs


def sprite_glyphs(split: Split, config: SpriteConfig) -> Glyphs:
    """One glyph for each kind; a fixed set is the same in all splits, which differ in their arrangements."""
    del split
    masks = np.stack([sprite_mask(kind, config.size) for kind in config.kinds])
    colours = np.array([COLOURS[kind.split()[0]] for kind in config.kinds])
    pixels = np.concatenate([np.broadcast_to(colours[:, None, None], (*masks.shape, 3)), masks[..., None]], -1)
    return Glyphs((pixels * 255).round().astype(np.uint8), np.arange(len(config.kinds)))


def sprites(
    *,
    data_dir: Path | str | None = None,
    kinds: tuple[str, ...] = SpriteConfig.kinds,
    counts: tuple[int, ...] = (0, 1, 2),
    image_size: int = 40,
    num_steps: int = 3,
    **options,
) -> ComposedScene:
    """Sprites of 10 to 16 pixels, unless the difficulty says otherwise; `ComposedScene` has the options.

    Args:
        data_dir: Not used.
        kinds: Some of `air_env.renderers.sprites.KINDS`; the position in this list is the label.
        counts: Numbers of objects, equally probable.
        image_size: Side of the image in pixels.
        num_steps: N of the generative model.
        options: Other options of `ComposedScene`; where sprites overlap, later ones hide earlier ones.
    """
    del data_dir
    config = SpriteConfig(kinds)
    scene = ComposedScene(
        partial(sprite_glyphs, config=config),
        counts=counts,
        image_size=image_size,
        default_size=(10, 16),
        **options,
    )
    low, high = (math.log(size / scene.image_size) for size in scene.arrangement.size_range(config.size))
    model = SceneConfig(
        image_size=image_size,
        num_steps=num_steps,
        where_mean=((low + high) / 2, 0.0, 0.0),
        # About a uniform distribution over these sizes, and over the image.
        where_sd=(max(0.05, (high - low) / 3), 0.45, 0.45),
        renderer=config,
    )
    return replace(scene, model=model)


def sprites_overlap(
    *,
    data_dir: Path | str | None = None,
    kinds: tuple[str, ...] = ("red square", "green disc", "blue triangle", "yellow diamond"),
    counts: tuple[int, ...] = (0, 1, 2, 3, 4),
    image_size: int = 40,
    num_steps: int = 4,
    overlap: Overlap | bool = "any",
    **options,
) -> ComposedScene:
    """`sprites` that hide each other in part, or whole: the truth has the ``visible`` share of each, and its ``depth``.

    Args:
        data_dir: Not used.
        kinds: As `sprites` has them; of two sprites of one colour that overlap, nothing shows which is in front.
        counts: Numbers of objects, equally probable.
        image_size: Side of the image in pixels.
        num_steps: N of the generative model.
        overlap: As `ComposedScene` has it.
        options: Other options of `sprites`.
    """
    return sprites(
        data_dir=data_dir,
        kinds=kinds,
        counts=counts,
        image_size=image_size,
        num_steps=num_steps,
        overlap=overlap,
        **options,
    )
