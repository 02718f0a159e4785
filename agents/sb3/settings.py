"""Settings of the training of Stable-Baselines3's algorithms."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from air_env.scenes import Scene

from ..training.serialisation import RECIPE_KINDS
from ..training.settings import State, TrainingSettings, refuse_unknown
from .algorithms import ALGORITHMS
from .trainer import PolicyTrainer
from .vec_env import ACTION_MODES


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of the training of a policy; an iteration is a step of one environment."""

    kind: ClassVar[str] = "sb3"

    algorithm: str = "ppo"
    """One of `ALGORITHMS`."""
    scene: str = "sprites"
    """One of `SCENES`."""
    action_mode: str = "latents"
    """One of `ACTION_MODES`: what an action is."""
    max_steps: int = 300_000
    """Environment steps, over all environments."""
    num_envs: int = 256
    """Environments side by side."""
    learning_rate: float = 1e-3
    """Learning rate of Adam (A2C: RMSProp), falling linearly to 0."""
    exploration: float = 0.2
    """The probability of drawing an object is kept this far from 0 and 1 at first (`HybridDistribution`): a badly
    placed object costs hundreds of nats, so an untrained policy would learn to stop at once."""
    num_train: int = 20_000
    """Number of training images."""
    evaluate_every: int = 6_000
    """Environment steps between rows of metrics."""
    num_validation: int = 500
    """Number of validation scenes that rows of metrics are measured on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ALGORITHMS.find(self.algorithm)
        refuse_unknown("action_mode", self.action_mode, ACTION_MODES)
        self._refuse_nonsense(positive=("num_envs",), whole=("num_envs",))
        if not 0 <= self.exploration <= 0.5:
            raise ValueError(f"exploration must lie in [0, 0.5], got {self.exploration}")

    def make_trainer(self, scene: Scene, device: torch.device | str = "cpu") -> PolicyTrainer:
        """The trainer of a policy, with initial weights."""
        return PolicyTrainer(self, scene, device)

    def exploration_at(self, share: float) -> float:
        """The exploration at a share of the training: the full one, then from 0.4 to 0.8 linearly to 0.02."""
        return max(min(0.02, self.exploration), self.exploration * min(1.0, (0.8 - share) / 0.4))

    def upgraded_state(self, state: State) -> State:
        """The state of resume.pt in today's form: these runs had one of their own."""
        if not isinstance(state, dict) or "policy" not in state:
            return state
        rows = [{"iteration": row["steps"]} | row for row in state["rows"]]
        return {
            "trainer": state,
            "device": "cpu",
            "max_minutes": None,
            "minutes": state["minutes"],
            "rows": rows,
            "return_sum": torch.zeros(()),
        }


RECIPE_KINDS[Settings.kind] = Settings


def make_settings(algorithm: str = "ppo", **changes: Any) -> Settings:
    """The settings of an algorithm, with changes; without one, there are 50 rows of metrics."""
    values = dict(ALGORITHMS.find(algorithm).defaults) | changes
    values.setdefault("evaluate_every", max(1, values.get("max_steps", Settings.max_steps) // 50))
    return Settings(algorithm=algorithm, **values)
