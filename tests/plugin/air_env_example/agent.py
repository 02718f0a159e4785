"""An agent without a recurrent core: each step looks only at what the objects so far leave unexplained.

h_i = relu(W (x - c_{i-1})),    c_i the canvas after i objects
z_pres_i ~ Bernoulli(sigmoid(logit(h_i))),    z_where_i ~ N(head(h_i)),    z_what_i ~ N(head(attend(x - c_{i-1})))
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_agents.inference.agent import Agent, AgentSettings, Choose, State
from air_agents.inference.cores import ErrorEmbedding
from air_agents.inference.latents import Latents
from air_agents.inference.posteriors import Gaussian, GaussianHead
from air_env import geometry
from air_env.explanation import Explanation, Images
from air_env.model import SceneConfig


@dataclass(frozen=True)
class GlanceConfig(AgentSettings):
    """Settings of the agent."""

    kind: ClassVar[str] = "glance"
    hidden: int = 64
    """Features of the error canvas."""
    glimpse_size: int = 10
    """Side of the glimpse in pixels."""

    def make(self, scene: SceneConfig) -> "Glance":
        """The agent."""
        return Glance(scene, self)


@dataclass(frozen=True)
class GlanceState(State):
    """What is known between steps: images and canvas ``[batch, channel, side, side]``, ``hidden [batch, feature]``."""

    canvas: Tensor
    hidden: Tensor


class Glance(Agent[GlanceState, Gaussian]):
    """The agent; `unstopped_rollout` and `explain` follow from its four methods."""

    def __init__(self, scene: SceneConfig, config: GlanceConfig) -> None:
        super().__init__(scene)
        self.config = config
        self.hidden_size = config.hidden + 2
        self.embed = ErrorEmbedding(self.model.image_shape, config.hidden)
        self.presence = nn.Linear(self.hidden_size, 1)
        self.where = GaussianHead(self.hidden_size, self.model.where_dim, initial_sd=0.5)
        pixels = self.model.image_shape[0] * config.glimpse_size**2
        self.what = GaussianHead(pixels, self.what_size, initial_sd=0.7)

    def initial(self, images: Images) -> GlanceState:
        """The state before the first step."""
        return GlanceState(images, torch.zeros_like(images), images.new_zeros(len(images), self.hidden_size))

    def decide(self, state: GlanceState) -> tuple[GlanceState, Float[Tensor, "batch"], Gaussian]:
        """The state with new features, the logit of ``z_pres`` and the posterior of ``z_where``."""
        hidden, place = self.embed(state.images, state.canvas)
        logit = self.exploration.mix_presence(self.presence(hidden)[:, 0])
        where = self.where(hidden, self.model.prior_where)
        return replace(state, hidden=hidden), logit, replace(where, mean=where.mean + F.pad(place, (1, 0)))

    def describe_object(
        self, state: GlanceState, first: Gaussian, choose_where: Choose, choose_what: Choose
    ) -> Latents:
        """First where the object is, then what is there."""
        z_where = choose_where(first)
        glimpse = geometry.attend(state.images - state.canvas, z_where, self.config.glimpse_size)
        what = self.what(glimpse.flatten(1), self.model.prior_what)
        return Latents(first, what, z_where, choose_what(what))

    def remember(self, state: GlanceState, z_where: Tensor, z_what: Tensor) -> GlanceState:
        """The state after the object is drawn; no gradient leads through the canvas to earlier steps."""
        one = Explanation.of_objects(torch.ones_like(z_where[:, :1]), z_where[:, None], z_what[:, None])
        with torch.no_grad():
            return replace(state, canvas=self.model.renderer.draw(state.canvas, one))
