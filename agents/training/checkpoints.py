"""Agents on disk: weights in safetensors with the configuration in the metadata, written atomically.

Nothing a user hands in is unpickled: safetensors holds tensors and strings only, and the resume state
is loaded with ``weights_only=True``.
"""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import dacite
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from air_env.model import SceneConfig
from air_env.renderers import RENDERERS, RendererSettings

from ..inference.agent import Agent
from ..inference.air import AgentConfig
from ..inference.objects3d import InverseGraphicsConfig
from ..inference.tabletop3d import TabletopAgentConfig
from .recipes import Recipe

AGENT_FILE = "agent.safetensors"
_FORMAT = "air-env agent 1"
_WEIGHTS = resources.files("air_agents") / "weights"


@dataclass(frozen=True)
class _Settings:
    """What an agent is made of."""

    scene: SceneConfig
    agent: AgentConfig | InverseGraphicsConfig | TabletopAgentConfig


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside its place, then moves it there: the old file lives until the new one is whole.

    Args:
        path: Where it belongs; its folder is made if need be.
        write: Writes it to the path that it is called with.

    Raises:
        OSError: The folder is full or read-only; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(
            f"could not write {path} ({error}); free some space or make the folder writable. "
            "What was saved there before is untouched"
        ) from error


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file as `write_atomically` does."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def save_agent(agent: Agent, path: Path, recipe: Recipe | None = None) -> None:
    """Saves an agent, with the recipe it was trained by."""
    config = {"scene": asdict(agent.model.config), "agent": asdict(agent.config)}
    metadata = {"format": _FORMAT, "config": json.dumps(config)}
    if recipe is not None:
        metadata["recipe"] = json.dumps(asdict(recipe))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in agent.state_dict().items()}
    content = save(tensors, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


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
    metadata, tensors = read_weights(path, _FORMAT)
    try:
        settings = from_json(_Settings, json.loads(metadata["config"]))
        agent = settings.agent.make(settings.scene)
        agent.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not fit this version of the agent ({error}); train it again") from error
    return agent.to(device).eval()


def load_recipe(source: str | Path) -> Recipe:
    """The recipe a saved agent was trained by."""
    path = _find(source)
    metadata, _ = read_weights(path, _FORMAT)
    if "recipe" not in metadata:
        raise ValueError(f"{path} does not say by which recipe it was trained")
    try:
        return from_json(Recipe, json.loads(metadata["recipe"]))
    except ValueError as error:
        raise ValueError(f"{path} has a recipe that this version does not know ({error}); train it again") from error


def scene_of(source: str | Path, agent: Agent, scene: str | None = None) -> tuple[str, dict[str, Any], int]:
    """What to show a saved agent.

    Args:
        source: Where it was loaded from.
        agent: The agent.
        scene: Name of a scene; by default the one that it was trained on.

    Returns:
        Name and options of the scene, as in training where it is the same; and the seed of training.

    Raises:
        ValueError: The file does not say what the agent was trained on, and no scene is named.
    """
    try:
        recipe = load_recipe(source)
    except ValueError as error:
        if scene is None:
            raise ValueError(f"{error}; name a scene with --scene") from error
        return scene, {"image_size": agent.model.config.image_size}, 0
    same = recipe.scene_options if scene in (None, recipe.scene) else {}
    return scene or recipe.scene, {"image_size": agent.model.config.image_size} | same, recipe.seed


def from_json(cls: type[Any], values: object) -> Any:
    """A settings dataclass from what `dataclasses.asdict` and JSON made of it.

    Raises:
        ValueError: The values do not fit.
    """
    if not isinstance(values, dict):
        raise ValueError(f"settings must be a JSON object, got {values!r}")
    try:
        hooks = {RendererSettings: _renderer_settings}
        return dacite.from_dict(cls, values, dacite.Config(strict=True, cast=[tuple, float], type_hooks=hooks))
    except (dacite.DaciteError, TypeError) as error:
        raise ValueError(f"settings do not fit {cls.__name__}: {error}") from error


def _renderer_settings(values: object) -> object:
    for settings in RENDERERS.values():
        with contextlib.suppress(ValueError):
            return from_json(settings, values)
    raise ValueError(f"a renderer has no such settings: {values}")


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_dir():
        path = path / AGENT_FILE
    if path.is_file():
        return path
    shipped = sorted(
        file.name.removesuffix(".safetensors") for file in _WEIGHTS.iterdir() if file.name.endswith(".safetensors")
    )
    if str(source) in shipped:
        return Path(str(_WEIGHTS / f"{source}.safetensors"))
    raise FileNotFoundError(
        f"there is no agent at {path}; name a run directory that holds {AGENT_FILE}, such a file, "
        f"or a shipped agent: {', '.join(shipped)}"
    )


def read_weights(path: Path, wanted: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and tensors of a safetensors file of this package.

    Args:
        path: The file.
        wanted: The ``format`` that its metadata must have.

    Raises:
        ValueError: It is damaged, or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}); get or train it again") from error
    if metadata.get("format") != wanted:
        raise ValueError(f"{path} is none of this package (format {metadata.get('format')!r}, wanted {wanted!r})")
    return metadata, tensors
