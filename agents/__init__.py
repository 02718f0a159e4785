"""The agent: the inference network, its estimators, its training and its evaluation.

Example:
    >>> from agents import load_agent
    >>> agent = load_agent("digits")
"""

from agents.agent import Agent
from agents.air import AIR, AgentConfig
from agents.checkpoints import load_agent, save_agent

__all__ = ["AIR", "Agent", "AgentConfig", "load_agent", "save_agent"]
