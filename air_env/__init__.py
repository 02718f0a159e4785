"""The world of Attend, Infer, Repeat: scenes, the generative model and its environments.

Importing it registers ``AIRScene-v0`` with Gymnasium.
"""

import gymnasium

from air_env.env import AIRSceneEnv
from air_env.explanation import Explanation
from air_env.model import Action, RewardTerms, SceneConfig, SceneModel, SceneState
from air_env.scenes import SCENES, make_scene
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World, make_world

gymnasium.register(
    id="AIRScene-v0",
    entry_point="air_env.env:AIRSceneEnv",
    vector_entry_point="air_env.vector_env:AIRSceneVectorEnv",
    # N belongs to the model: running out of steps is termination, not truncation.
    max_episode_steps=None,
)

__all__ = [
    "SCENES",
    "AIRSceneEnv",
    "AIRSceneVectorEnv",
    "Action",
    "Explanation",
    "RewardTerms",
    "SceneConfig",
    "SceneModel",
    "SceneState",
    "World",
    "make_scene",
    "make_world",
]
