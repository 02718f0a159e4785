"""The agent: the inference network, its estimators, its training and its evaluation.

Example:
    >>> from air_agents import load_agent
    >>> agent = load_agent("digits")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inference.agent import Agent
    from .inference.air import AIR, AgentConfig
    from .training.checkpoints import load_agent, save_agent

# Modules are imported when a name is used, so that commands can answer --help without torch.
_MODULES = {
    "AIR": ".inference.air",
    "Agent": ".inference.agent",
    "AgentConfig": ".inference.air",
    "load_agent": ".training.checkpoints",
    "save_agent": ".training.checkpoints",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


__all__ = ["AIR", "Agent", "AgentConfig", "load_agent", "save_agent"]
