"""The world of Attend, Infer, Repeat: scenes, the generative model and its environments.

Importing it registers ``AIRScene-v1`` and ``AIRSceneFlat-v1`` with Gymnasium, and their earlier versions.
"""

import gymnasium

from air_env.env import AIRSceneEnv
from air_env.episode_statistics import EpisodeStatistics
from air_env.explanation import Action, DrawnExplanation, Explanation
from air_env.model import SceneConfig, SceneModel, SceneState
from air_env.renderers import PatchConfig, SpriteConfig
from air_env.rewards import RewardTerms
from air_env.scenes import SCENES, make_scene
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World, make_world

__version__ = "0.1.0"

# The same world for stock RL algorithms: actions are vectors in [-1, 1]; pixels are bytes, as many as a CNN needs.
_FLAT = {"action_mode": "latents", "byte_images": True}
for _id, _settings in {
    "AIRScene-v0": {"raw_latents": True},
    "AIRScene-v1": {},
    "AIRSceneFlat-v0": _FLAT | {"raw_latents": True},
    "AIRSceneFlat-v1": _FLAT | {"min_side": 36},
}.items():
    gymnasium.register(
        id=_id,
        entry_point="air_env.env:AIRSceneEnv",
        vector_entry_point="air_env.vector_env:AIRSceneVectorEnv",
        # N belongs to the model: running out of steps is termination, not truncation.
        max_episode_steps=None,
        kwargs=_settings,
    )

__all__ = [
    "SCENES",
    "AIRSceneEnv",
    "AIRSceneVectorEnv",
    "Action",
    "DrawnExplanation",
    "EpisodeStatistics",
    "Explanation",
    "PatchConfig",
    "RewardTerms",
    "SceneConfig",
    "SceneModel",
    "SceneState",
    "SpriteConfig",
    "World",
    "make_scene",
    "make_world",
]
