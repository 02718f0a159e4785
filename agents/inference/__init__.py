"""The inference network ``q(z, n | x)``: one agent for each kind of scene."""

from air_env.registry import Registry

from .agent import Agent, AgentSettings
from .air import AgentConfig
from .objects3d import InverseGraphicsConfig
from .tabletop3d import TabletopAgentConfig

AGENTS: Registry[type[AgentSettings]] = Registry(
    "agent", {settings.kind: settings for settings in (AgentConfig, InverseGraphicsConfig, TabletopAgentConfig)}
)
"""Kind -> class of settings, which makes the agent."""

__all__ = ["AGENTS", "Agent", "AgentConfig", "AgentSettings", "InverseGraphicsConfig", "TabletopAgentConfig"]
