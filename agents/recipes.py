"""Recipes: named settings that reproduce a result."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from agents.air import AgentConfig, Exploration
from agents.estimators import ESTIMATORS
from air_env.model import SceneConfig
from air_env.scenes import SCENES
from air_env.scenes.sprites import sprites

CATEGORIES = ("score_function", "exact")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes."""

    scene: str
    """One of `SCENES`."""
    max_steps: int
    """Iterations of training."""
    scene_options: dict[str, Any] = field(default_factory=dict)
    """Options of the scene: counts, object_size, ..."""
    num_train: int = 60_000
    """Number of training images (paper: 60,000)."""
    model: SceneConfig = field(default_factory=SceneConfig)
    """The generative model."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """The inference network."""
    estimator: str = "half_critic"
    """One of `ESTIMATORS`: the gradient of the stop action (Deviation; paper: nvil)."""
    categories: str = "score_function"
    """Gradient of the category, where z_what is one: score_function (by the estimator's baselines) or exact (every
    category at every step)."""
    batch_size: int = 64
    """Images per iteration (paper: 64)."""
    learning_rate: float = 1e-3
    """Of Adam, for the inference network and the renderer (Deviation; paper: 1e-4 with RMSProp)."""
    baseline_learning_rate: float = 1e-2
    """Of Adam, for learned baselines: they have to keep up with what they predict."""
    exploration_steps: int = 2_000
    """Iterations over which the weight of `Exploration` falls linearly from 1 to 0; 0 does without."""
    decay: float = 0.4
    """Last part of training over which the learning rates fall to 0, as a share of all iterations."""
    evaluate_every: int = 250
    """Iterations between rows of metrics."""
    seed: int = 0
    """Decides the training images, the initial weights, the order of batches and all noise."""

    def __post_init__(self) -> None:
        for what, name, known in [
            ("scene", self.scene, SCENES),
            ("estimator", self.estimator, ESTIMATORS),
            ("categories", self.categories, CATEGORIES),
        ]:
            if name not in known:
                raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")
        positive = ("max_steps", "num_train", "batch_size", "learning_rate", "baseline_learning_rate", "evaluate_every")
        for name in positive:
            if not getattr(self, name) > 0:  # so that NaN is refused
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("seed", "exploration_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("max_steps", "num_train", "batch_size", "seed", "exploration_steps", "evaluate_every"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.batch_size > self.num_train:
            raise ValueError(f"batch_size {self.batch_size} exceeds the {self.num_train} training images")

    def exploration_at(self, iteration: int) -> Exploration:
        """What is mixed into q at an iteration of training."""
        return Exploration(max(0.0, 1 - iteration / self.exploration_steps) if self.exploration_steps else 0.0)

    def learning_rate_factor(self, progress: float) -> float:
        """What the learning rates are multiplied by at a share of the training: 1, then linearly to 0."""
        return min(1.0, (1 - progress) / self.decay) if self.decay > 0 else 1.0


_SPRITES = sprites().model
assert _SPRITES is not None

RECIPES: dict[str, Recipe] = {
    # These digits are thick and vary less in size: a wide window would explain two of them at once.
    "digits": Recipe(
        scene="digits",
        max_steps=2_500,
        exploration_steps=1_250,
        model=SceneConfig(where_mean=(-1.2, 0.0, 0.0), where_sd=(0.15, 0.5, 0.5)),
        agent=AgentConfig(initial_scale=0.3),
    ),
    "multi_mnist": Recipe(scene="multi_mnist", max_steps=6_000),
    # The renderer is known: only where, what and how many is to be inferred.
    "sprites": Recipe(
        scene="sprites",
        max_steps=4_000,
        exploration_steps=1_500,
        # Wrong categories cost hundreds of nats: with twice the rate some are given up for good.
        learning_rate=4e-4,
        model=_SPRITES,
        agent=AgentConfig(initial_scale=0.32, glimpse_size=16, reads_canvas=True),
    ),
}
"""Name -> recipe; the README says what each reaches."""


def get_recipe(name: str) -> Recipe:
    """A registered recipe."""
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
