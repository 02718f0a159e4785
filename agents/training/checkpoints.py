"""Agents on disk: weights in safetensors with the settings in the metadata."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from air_env.model import SceneConfig
from air_env.scenes import scene_options

from ..inference.agent import Agent, AgentSettings
from ..inference.explainer import Explainer
from .recipes import Recipe
from .serialisation import from_json, to_json
from .settings import Options, TrainingSettings
from .weights import fill, opened_weights, save_weights

AGENT_FILE = "agent.safetensors"
_FORMAT = "air-env agent 1"
POLICY_FILE = "policy.safetensors"
_OTHER_RUNS = {
    POLICY_FILE: "a run of Stable-Baselines3. Load its policy with air_agents.sb3.TrainedPolicy.load; air-env "
    "evaluate, explain and watch take it, and air-env train-sb3 --resume continues it",
    "model.safetensors": "a model to compare agents with. Its metrics are in evaluation.json; continue it with air-env "
    "train --resume, load it with air_agents.comparisons.load_comparison",
}
"""File of another kind of run -> what that is, and what can be done with it."""
_WEIGHTS = resources.files("air_agents") / "weights"


@dataclass(frozen=True)
class _Settings:
    """Settings of an agent: scene model and inference network."""

    scene: SceneConfig
    agent: AgentSettings


def save_agent(agent: Agent, path: Path, recipe: Recipe | None = None) -> None:
    """Saves an agent, with the recipe it was trained by."""
    trained_by = {} if recipe is None else {"recipe": to_json(recipe)}
    config = to_json(_Settings(agent.model.config, agent.config))
    save_weights(path, agent.state_dict(), _FORMAT, config=config, **trained_by)


def load_agent(source: str | Path, device: torch.device | str = "cpu") -> Agent:
    """Loads a trained agent.

    Args:
        source: A run directory, an ``agent.safetensors`` file, or the name of a shipped agent (``"digits"``).
        device: Where to put it.

    Raises:
        FileNotFoundError: There is no such agent.
        ValueError: The file is not an agent's, or is damaged.
    """
    path = _find(source)
    with opened_weights(path, _FORMAT) as weights:
        settings = from_json(_Settings, weights.settings("config"))
        agent = settings.agent.make(settings.scene)
        fill(agent, weights.tensors)
    return agent.to(device).eval()


def load_recipe(source: str | Path) -> Recipe:
    """The recipe a saved agent was trained by."""
    path = _find(source)
    remedy = "what is your own must be installed, or named with its file (path.py:my_scene)"
    with opened_weights(path, _FORMAT, remedy) as weights:
        if "recipe" in weights.metadata:
            return from_json(Recipe, weights.settings("recipe"))
    raise ValueError(f"{path} does not say by which recipe it was trained")


def scene_of(
    source: str | Path, agent: Explainer, scene: str | None = None, recipe: TrainingSettings | None = None
) -> tuple[str, Options, int]:
    """Scenes that something was trained on.

    Args:
        source: Where it was loaded from.
        agent: The agent, or whatever else explains scenes.
        scene: Name of a scene; by default the one that it was trained on.
        recipe: What it was trained by; by default what the agent's file says.

    Returns:
        Name and options of the scene, as in training where it is the same; and the seed of training.

    Raises:
        ValueError: The file does not say what the agent was trained on, and no scene is named.
    """
    try:
        recipe = recipe or load_recipe(source)
    except ValueError as error:
        if scene is None:
            raise ValueError(f"{error}; name a scene with --scene") from error
        return scene, _image_size(agent, scene), 0
    name = scene or recipe.scene
    return name, _image_size(agent, name) | (recipe.scene_options if name == recipe.scene else {}), recipe.seed


def _image_size(agent: Explainer, scene: str) -> Options:
    """The option that makes a scene as large as the agent's images, where the scene has it."""
    return {"image_size": agent.model.config.image_size} if "image_size" in scene_options(scene) else {}


def _find(source: str | Path) -> Path:
    path = Path(source) / AGENT_FILE if Path(source).is_dir() else Path(source)
    if path.is_file() and path.name not in _OTHER_RUNS:
        return path
    for name, remedy in _OTHER_RUNS.items():
        if (Path(source) / name).is_file() or Path(source).name == name:
            raise ValueError(f"{source} holds no agent: it is {remedy}")
    shipped = sorted(
        file.name.removesuffix(".safetensors") for file in _WEIGHTS.iterdir() if file.name.endswith(".safetensors")
    )
    if str(source) in shipped:
        return Path(str(_WEIGHTS / f"{source}.safetensors"))
    raise FileNotFoundError(
        f"there is no agent at {path}; name a run directory that holds {AGENT_FILE}, such a file, "
        f"or a shipped agent: {', '.join(shipped)}"
    )
