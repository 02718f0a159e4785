"""PPO, A2C and SAC with settings that suit scenes, made from settings and saved as data.

Stable-Baselines3's own ``save`` and ``load`` work with `HybridPolicy` as with any policy, but ``load`` unpickles parts
of the file, which may run anything that its author wrote: keep it for files of your own. `save_algorithm` writes
weights and JSON (safetensors) instead, and `load_algorithm` makes the algorithm anew from the settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from air_env.registry import Registry

from ..training.checkpoints import POLICY_FILE
from ..training.serialisation import from_json, to_json
from ..training.settings import Options, TrainingSettings
from ..training.weights import Weights, fill, opened_weights, save_weights, weights_path
from .policy import HybridPolicy, SceneExtractor
from .vec_env import AIRSceneVecEnv

if TYPE_CHECKING:
    from .settings import Settings

Optimizers = dict[str, torch.optim.Optimizer]
_FORMAT = "air-env stable-baselines3 1"


def _ppo(settings: Settings, num_envs: int) -> Options:
    # With gamma 1 the return is the log-joint. Episodes have at most N steps: short rollouts of many episodes.
    sizes = {"n_steps": 8, "batch_size": math.gcd(8 * num_envs, 128), "n_epochs": 4}
    return _on_policy(settings) | sizes | {"max_grad_norm": 1.0}


def _a2c(settings: Settings, num_envs: int) -> Options:
    return _on_policy(settings) | {"n_steps": 4, "normalize_advantage": True}


def _on_policy(settings: Settings) -> Options:
    hybrid = settings.action_mode == "latents"
    particular = {"exploration": settings.exploration} if hybrid else _EXTRACTOR
    return {
        "policy": HybridPolicy if hybrid else "MultiInputPolicy",
        "policy_kwargs": {"activation_fn": nn.ReLU, "log_std_init": -2.3} | particular,
        "gae_lambda": 0.8,
    }


def _sac(settings: Settings, num_envs: int) -> Options:
    steps = {"learning_starts": 4 * settings.num_envs, "gradient_steps": max(1, settings.num_envs // 16)}
    # A transition of 40x40 RGB takes 19 kB.
    sizes = {"buffer_size": 20_000, "batch_size": 256, "train_freq": 1}
    return {"policy": "MultiInputPolicy", "policy_kwargs": {**_EXTRACTOR}} | steps | sizes  # which SAC writes to


def _policy_optimizer(algorithm: BaseAlgorithm) -> Optimizers:
    return {"policy": cast(BasePolicy, algorithm.policy).optimizer}


def _sac_optimizers(algorithm: SAC) -> Optimizers:
    entropy = algorithm.ent_coef_optimizer
    assert entropy is not None  # the coefficient is learned
    return {"actor": algorithm.actor.optimizer, "critic": algorithm.critic.optimizer, "entropy": entropy}


@dataclass(frozen=True)
class Algorithm:
    """What is particular to an algorithm."""

    make: Callable[..., BaseAlgorithm]
    """Class of Stable-Baselines3."""
    options: Callable[[Settings, int], Options]
    """Function of settings and the number of environments: its arguments that others lack or set otherwise."""
    rollout: int
    """Steps of each environment between updates of a `TrainingRun`."""
    defaults: Options = field(default_factory=dict)
    """Settings that differ from those of PPO."""
    optimizers: Callable[..., Optimizers] = _policy_optimizer
    """Its optimisers by name."""
    entropy: Callable[..., Tensor | None] = lambda algorithm: None
    """Its learned entropy coefficient, if it has one."""


ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    {
        "ppo": Algorithm(PPO, _ppo, rollout=8),
        "a2c": Algorithm(A2C, _a2c, rollout=4, defaults={"num_envs": 64, "learning_rate": 7e-4}),
        "sac": Algorithm(
            SAC,
            _sac,
            rollout=4,
            defaults={"num_envs": 32, "learning_rate": 3e-4, "max_steps": 60_000},
            optimizers=_sac_optimizers,
            entropy=lambda algorithm: algorithm.log_ent_coef,
        ),
    },
)
"""Name -> algorithm."""

_EXTRACTOR = {"features_extractor_class": SceneExtractor}


def make_algorithm(settings: Settings, envs: VecEnv, device: torch.device | str = "cpu") -> BaseAlgorithm:
    """An untrained algorithm for environments."""
    rate, algorithm = settings.learning_rate, ALGORITHMS.find(settings.algorithm)
    options = {"gamma": 1.0, "seed": settings.seed, "device": device} | algorithm.options(settings, envs.num_envs)
    return algorithm.make(env=envs, learning_rate=lambda remaining: rate * remaining, **options)


def save_algorithm(algorithm: BaseAlgorithm, path: Path, settings: Settings) -> None:
    """Saves the weights of an algorithm's policy, with the settings.

    Raises:
        FloatingPointError: A weight is not finite; what was there before is untouched.
        OSError: They cannot be written; what was there before is untouched.
    """
    state = algorithm.policy.state_dict()
    if not all(part.isfinite().all() for part in state.values()):
        raise FloatingPointError(
            f"a weight is not finite: training diverged; lower --learning-rate. {path} is as it was"
        )
    save_weights(path, state, _FORMAT, settings=to_json(settings))


def load_algorithm(
    source: str | Path, *, data_dir: str | None = None, device: torch.device | str = "cpu"
) -> BaseAlgorithm:
    """Loads what `save_algorithm` saved, with one environment.

    ``set_env`` gives it others to go on learning, of the scene's own size: ``AIRSceneVecEnv(..., min_side=1)``.

    Args:
        source: A run directory, or a ``policy.safetensors`` file.
        data_dir: Folder of the data files, for scenes that need some.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or is none of these.
    """
    with _opened(source) as (settings, weights):
        envs = AIRSceneVecEnv(
            1, action_mode=settings.action_mode, min_side=1, scene=settings.scene, num_scenes=1, data_dir=data_dir,
            scene_options=settings.scene_options, device=device,
        )  # fmt: skip
        algorithm = make_algorithm(settings, envs, device)
        fill(algorithm.policy, weights.tensors)
    return algorithm


def load_settings(source: str | Path) -> Settings:
    """The settings that a saved policy was trained by, from where `load_algorithm` loads it."""
    with _opened(source) as (settings, _):
        return settings


@contextmanager
def _opened(source: str | Path) -> Iterator[tuple[Settings, Weights]]:
    with opened_weights(weights_path(source, POLICY_FILE, "policy"), _FORMAT) as weights:
        yield cast("Settings", from_json(TrainingSettings, weights.settings("settings"))), weights
