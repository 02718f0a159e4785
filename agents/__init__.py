"""The agent: the inference network, its estimators, its training and its evaluation.

Example:
    >>> from air_agents import load_agent
    >>> agent = load_agent("digits")
"""

from .inference.agent import Agent
from .inference.air import AIR, AgentConfig
from .training.checkpoints import load_agent, save_agent

__all__ = ["AIR", "Agent", "AgentConfig", "load_agent", "save_agent"]
