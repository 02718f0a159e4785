"""A recipe: everything that decides what a training run computes. This one takes all of it from this package.

It counts 0.94 of held-out scenes right, after a minute on one core (seed 0).
"""

from air_agents.training.recipes import Recipe

from .agent import GlanceConfig
from .scene import model_of_rings

RINGS = Recipe(
    scene="rings",
    scene_options={"image_size": 24, "object_size": (6, 10)},
    model=model_of_rings(24, (6, 10)),
    agent=GlanceConfig(),
    estimator="midpoint",
    max_steps=2_000,
    exploration_steps=1_000,
)
