"""Stable-Baselines3: an adapter of the vector environment, and a policy that knows what an object is.

Needs the extra ``sb3``: ``pip install -e ".[sb3]"``.
"""

from agents.sb3.algorithms import ALGORITHMS, Settings, load_algorithm, make_algorithm, make_settings, save_algorithm
from agents.sb3.evaluation import evaluate_policy
from agents.sb3.policy import HybridDistribution, HybridPolicy, SceneExtractor
from agents.sb3.vec_env import AIRSceneVecEnv

__all__ = [
    "ALGORITHMS",
    "AIRSceneVecEnv",
    "HybridDistribution",
    "HybridPolicy",
    "SceneExtractor",
    "Settings",
    "evaluate_policy",
    "load_algorithm",
    "make_algorithm",
    "make_settings",
    "save_algorithm",
]
