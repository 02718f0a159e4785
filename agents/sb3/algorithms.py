"""PPO, A2C and SAC with settings that suit scenes, made from settings and saved as data.

Stable-Baselines3's own ``save`` and ``load`` work with `HybridPolicy` as with any policy, but ``load`` unpickles parts
of the file, which may run anything that its author wrote: keep it for files of your own. `save_algorithm` writes
weights and JSON (safetensors) instead, and `load_algorithm` makes the algorithm anew from the settings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from air_env.registry import Registry

from ..training.files import read_weights, save_weights
from ..training.serialisation import from_json, to_json
from ..training.settings import TrainingSettings
from .policy import HybridPolicy, SceneExtractor
from .vec_env import AIRSceneVecEnv

if TYPE_CHECKING:
    from .settings import Settings

POLICY_FILE = "policy.safetensors"
Optimizers = dict[str, torch.optim.Optimizer]
_FORMAT = "air-env stable-baselines3 1"


def _ppo(envs: VecEnv, settings: Settings, **options: Any) -> BaseAlgorithm:
    # With gamma 1 the return is the log-joint. Episodes have at most N steps: short rollouts of many episodes.
    rollout = 8 * envs.num_envs
    return PPO(
        *_policy(settings), envs, n_steps=8, batch_size=math.gcd(rollout, 128), n_epochs=4, gamma=1.0, gae_lambda=0.8,
        max_grad_norm=1.0, policy_kwargs=_policy_options(settings), **options,
    )  # fmt: skip


def _a2c(envs: VecEnv, settings: Settings, **options: Any) -> BaseAlgorithm:
    return A2C(
        *_policy(settings), envs, n_steps=4, gamma=1.0, gae_lambda=0.8, normalize_advantage=True,
        policy_kwargs=_policy_options(settings), **options,
    )  # fmt: skip


def _sac(envs: VecEnv, settings: Settings, **options: Any) -> BaseAlgorithm:
    # A transition of 40x40 RGB takes 19 kB.
    return SAC(
        "MultiInputPolicy", envs, buffer_size=20_000, learning_starts=4 * settings.num_envs, batch_size=256, gamma=1.0,
        train_freq=1, gradient_steps=max(1, settings.num_envs // 16), policy_kwargs=_EXTRACTOR, **options,
    )  # fmt: skip


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
    """Function of environments, settings and the options that all algorithms have."""
    rollout: int
    """Steps of each environment between updates of a `TrainingRun`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from those of PPO."""
    optimizers: Callable[..., Optimizers] = _policy_optimizer
    """Its optimisers by name."""
    entropy: Callable[..., Tensor | None] = lambda algorithm: None
    """Its learned entropy coefficient, if it has one."""


ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    {
        "ppo": Algorithm(_ppo, rollout=8),
        "a2c": Algorithm(_a2c, rollout=4, defaults={"num_envs": 64, "learning_rate": 7e-4}),
        "sac": Algorithm(
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
    rate = settings.learning_rate
    return ALGORITHMS.find(settings.algorithm).make(
        envs, settings, learning_rate=lambda remaining: rate * remaining, seed=settings.seed, device=device
    )


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
    """Loads what `save_algorithm` saved, with one environment; ``set_env`` gives it others to go on learning.

    Args:
        source: A run directory, or a ``policy.safetensors`` file.
        data_dir: Folder of the data files, for scenes that need some.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or is none of these.
    """
    path = Path(source) / POLICY_FILE if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no policy at {path}; name a run directory that holds {POLICY_FILE}, or the file"
        )
    metadata, tensors = read_weights(path, _FORMAT)
    try:
        settings = cast("Settings", from_json(TrainingSettings, json.loads(metadata["settings"])))
        envs = AIRSceneVecEnv(
            1, action_mode=settings.action_mode, scene=settings.scene, num_scenes=1, data_dir=data_dir,
            scene_options=settings.scene_options, device=device,
        )  # fmt: skip
        algorithm = make_algorithm(settings, envs, device)
        algorithm.policy.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} does not fit this version ({error}); train it again") from error
    return algorithm


def _policy(settings: Settings) -> tuple[type[HybridPolicy] | str]:
    return (HybridPolicy if settings.action_mode == "latents" else "MultiInputPolicy",)


def _policy_options(settings: Settings) -> dict[str, Any]:
    shared = {"activation_fn": nn.ReLU, "log_std_init": -2.3}
    if settings.action_mode == "latents":
        return shared | {"exploration": settings.exploration}
    return shared | _EXTRACTOR
