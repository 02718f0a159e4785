"""What `evaluate`, `explain` and `watch` look at: agents, and policies of Stable-Baselines3."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from air_env.scenes import Treatment

from ..inference.agent import Agent
from ..training.checkpoints import POLICY_FILE, load_agent, scene_of
from ..training.settings import Options
from . import terminal

if TYPE_CHECKING:
    from ..sb3 import TrainedPolicy


def load_trained(source: str, device: str, data_dir: Path | None = None) -> "Agent | TrainedPolicy":
    """Loads what was trained, an agent or a policy.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is something else, or damaged, or Stable-Baselines3 is not installed.
    """
    if Path(source).name != POLICY_FILE and not Path(source, POLICY_FILE).is_file():
        return load_agent(source, device)
    terminal.require("sb3", "stable_baselines3")
    from ..sb3 import TrainedPolicy

    return TrainedPolicy.load(source, data_dir=None if data_dir is None else str(data_dir), device=device)


def treatment_of_trained(source: str, trained: "Agent | TrainedPolicy") -> Treatment | None:
    """How people's own pictures were read in its training; None where it was trained on other scenes."""
    try:
        scene, options, _ = scene_of_trained(source, trained, None)
    except ValueError:
        return None
    known = {field.name for field in fields(Treatment)}
    return Treatment(**{n: v for n, v in options.items() if n in known}) if scene == "images" else None


def scene_of_trained(source: str, trained: "Agent | TrainedPolicy", scene: str | None) -> tuple[str, Options, int]:
    """The scene that it was trained on, or another one, as `scene_of` has it."""
    return scene_of(source, trained, scene, None if isinstance(trained, Agent) else trained.settings)
