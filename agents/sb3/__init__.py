"""Stable-Baselines3: an adapter of the vector environment, and a policy that knows what an object is.

Needs the extra ``sb3``: ``pip install -e ".[sb3]"``.
"""

from .algorithms import ALGORITHMS, Settings, load_algorithm, make_algorithm, make_settings, save_algorithm
from .evaluation import evaluate_policy
from .policy import HybridDistribution, HybridPolicy, SceneExtractor
from .vec_env import AIRSceneVecEnv

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
