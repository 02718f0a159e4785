"""PPO, A2C and SAC with settings that suit scenes, made from settings and saved as data.

Stable-Baselines3's own ``save`` and ``load`` work with `HybridPolicy` as with any policy, but ``load`` unpickles parts
of the file, which may run anything that its author wrote: keep it for files of your own. `save_algorithm` writes
weights and JSON (safetensors) instead, and `load_algorithm` makes the algorithm anew from the settings.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from air_env.scenes import SCENES

from ..training.files import read_weights, write_atomically
from ..training.serialisation import from_json
from .policy import HybridPolicy, SceneExtractor
from .vec_env import ACTION_MODES, AIRSceneVecEnv

POLICY_FILE = "policy.safetensors"
_FORMAT = "air-env stable-baselines3 1"


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run computes."""

    algorithm: str = "ppo"
    """One of `ALGORITHMS`."""
    scene: str = "sprites"
    """One of `SCENES`."""
    scene_options: dict[str, Any] = field(default_factory=dict)
    """Options of the scene: counts, object_size, ..."""
    action_mode: str = "latents"
    """One of `ACTION_MODES`: what an action is."""
    total_steps: int = 300_000
    """Environment steps, over all environments."""
    num_envs: int = 256
    """Environments side by side."""
    learning_rate: float = 1e-3
    """Of Adam (A2C: RMSProp), falling linearly to 0."""
    exploration: float = 0.2
    """The probability of drawing an object is kept this far from 0 and 1 at first (`HybridDistribution`): whoever
    draws badly loses hundreds of nats, and would learn to stop at once before it can place an object."""
    num_train: int = 20_000
    """Number of training images."""
    seed: int = 0
    """Decides the training images, the initial weights and all noise."""

    def __post_init__(self) -> None:
        known = {"algorithm": ALGORITHMS, "scene": SCENES, "action_mode": ACTION_MODES}
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(names)}")
        for name in ("total_steps", "num_envs", "learning_rate", "num_train"):
            if not getattr(self, name) > 0:  # so that NaN is refused
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.exploration <= 0.5:
            raise ValueError(f"exploration must lie in [0, 0.5], got {self.exploration}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def exploration_at(self, share: float) -> float:
        """The exploration at a share of the training: the full one, then from 0.4 to 0.8 linearly to 0.02."""
        return max(min(0.02, self.exploration), self.exploration * min(1.0, (0.8 - share) / 0.4))


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


ALGORITHMS: dict[str, Callable[..., BaseAlgorithm]] = {"ppo": _ppo, "a2c": _a2c, "sac": _sac}
"""Name -> function of environments, settings and the options that all algorithms have."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "ppo": {},
    "a2c": {"num_envs": 64, "learning_rate": 7e-4},
    "sac": {"num_envs": 32, "learning_rate": 3e-4, "total_steps": 60_000},
}
"""Name -> where an algorithm's settings differ from those of PPO."""

_EXTRACTOR = {"features_extractor_class": SceneExtractor}


def make_settings(algorithm: str = "ppo", **changes: Any) -> Settings:
    """The settings of an algorithm, with changes."""
    return replace(Settings(algorithm=algorithm), **DEFAULTS[algorithm] | changes)


def make_algorithm(settings: Settings, envs: VecEnv, device: torch.device | str = "cpu") -> BaseAlgorithm:
    """An untrained algorithm for environments."""
    rate = settings.learning_rate
    return ALGORITHMS[settings.algorithm](
        envs, settings, learning_rate=lambda remaining: rate * remaining, seed=settings.seed, device=device
    )


def save_algorithm(algorithm: BaseAlgorithm, path: Path, settings: Settings) -> None:
    """Saves the weights of an algorithm's policy, with the settings.

    Raises:
        FloatingPointError: A weight is not finite; what was there before is untouched.
        OSError: They cannot be written; what was there before is untouched.
    """
    tensors = {name: part.detach().cpu().contiguous().clone() for name, part in algorithm.policy.state_dict().items()}
    if not all(part.isfinite().all() for part in tensors.values()):
        raise FloatingPointError(
            f"a weight is not finite: training diverged; lower --learning-rate. {path} is as it was"
        )
    metadata = {"format": _FORMAT, "settings": json.dumps(asdict(settings))}
    content = save(tensors, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


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
        settings = from_json(Settings, json.loads(metadata["settings"]))
        envs = AIRSceneVecEnv(
            1, action_mode=settings.action_mode, scene=settings.scene, num_scenes=1, data_dir=data_dir,
            scene_options=settings.scene_options, device=device,
        )  # fmt: skip
        algorithm = make_algorithm(settings, envs, device)
        algorithm.policy.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} does not fit this version ({error}); train it again") from error
    return algorithm


def _policy(settings: Settings) -> tuple[Any]:
    return (HybridPolicy if settings.action_mode == "latents" else "MultiInputPolicy",)


def _policy_options(settings: Settings) -> dict[str, Any]:
    shared = {"activation_fn": nn.ReLU, "log_std_init": -2.3}
    if settings.action_mode == "latents":
        return shared | {"exploration": settings.exploration}
    return shared | _EXTRACTOR
