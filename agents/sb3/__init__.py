"""Stable-Baselines3: an adapter of the vector environment, and a policy that knows what an object is.

Requires the extra: ``pip install "air-env[sb3]"``.
"""

from .algorithms import ALGORITHMS, load_algorithm, make_algorithm, save_algorithm
from .evaluation import evaluate_policy
from .policy import HybridDistribution, HybridPolicy, SceneExtractor
from .settings import Settings, make_settings
from .trained import TrainedPolicy
from .trainer import PolicyTrainer
from .vec_env import AIRSceneVecEnv

__all__ = [
    "ALGORITHMS",
    "AIRSceneVecEnv",
    "HybridDistribution",
    "HybridPolicy",
    "PolicyTrainer",
    "SceneExtractor",
    "Settings",
    "TrainedPolicy",
    "evaluate_policy",
    "load_algorithm",
    "make_algorithm",
    "make_settings",
    "save_algorithm",
]
