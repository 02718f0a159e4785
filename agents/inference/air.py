"""AIR: the recurrent inference network ``q(z, n | x)`` (Eq. 2; Figure 2, middle and right), and DAIR.

At every step the core reads the image and the latents of the step before, and decides whether there is
another object and where; the window is then read out of the image and encoded into what it holds:

    h_i = LSTM(embed(x), z_{i-1}, h_{i-1})                                      AIR
    h_i = LSTM(embed(c_{i-1} - x), h_{i-1})                                     DAIR: c_i the canvas after i objects
    z_pres_i ~ Bernoulli(sigmoid(logit(h_i))),    z_where_i ~ N(head(h_i)),
    z_what_i ~ N(encoder(attend(x, z_where_i))), or a category

Where the background has a code, ``z_scene ~ N(head(embed'(x)))`` is inferred first, by an embedding of its own, since
that of the core may be of what is left to explain (our choice). AIR's core reads it, too; canvases begin with the
background.

DAIR's windows start at the peak of the error canvas ``c_{i-1} - x``. `Agent.explain` and the training rollout call, at
every step, `decide` (the logit of ``z_pres``, and ``q(z_where)``), `describe_object` (``z_where``, then ``z_what``) and
`remember`. `CORES` embed what the core sees; `Exploration` is set by the trainer, and does nothing after training.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Explanation, Images
from air_env.model import SceneConfig
from air_env.precision import Head
from air_env.reading import keep_whole

from .agent import Agent, AgentSettings, Choose, State
from .cores import CORES, ImageEmbedding
from .latents import Latents, SceneLatent
from .posteriors import CategoricalHead, Gaussian, GaussianHead, Posterior
from .weighing import GOLDEN_RATIO


@dataclass(frozen=True)
class AgentConfig(AgentSettings):
    """Settings of the inference network."""

    kind: ClassVar[str] = "air"
    embedding: int = 256
    """Units of the image embedding, computed once per image (our choice)."""
    hidden: int = 256
    """Units of the LSTM (paper: 256)."""
    glimpse_size: int = 20
    """Side of the glimpse in pixels (paper: 20)."""
    initial_scale: float = 0.5
    """Size of the windows before training, relative to the image (Deviation): a window that does not touch an object
    gets no gradient towards it."""
    encoder_hidden: int = 200
    """Units of the glimpse encoder's hidden layer (our choice)."""
    core: str = "air"
    """What the core sees at every step, one of `CORES`: air, dair (the error canvas only), ..."""
    sees_unexplained: bool = False
    """Whether the glimpse encoder also sees what the objects so far leave of the glimpse; for cores that read the
    canvas (Deviation). Of two objects that touch it is then clear which one is meant."""
    starts: int = 1
    """Explanations that `Agent.explain` compares, which begin in different places; for cores that look where something
    is unexplained, such as dair (Deviation; paper: 1). Two objects that touch are then less easily taken for one."""
    refinements: int = 0
    """Steps of gradient ascent by which `Agent.explain` refines what it compares (Deviation; paper: 0)."""

    def __post_init__(self) -> None:
        core = CORES.find(self.core)
        keep_whole(self, 1, "starts")
        keep_whole(self, 0, "refinements")
        if self.sees_unexplained and not core.reads_canvas:
            raise ValueError(
                f"sees_unexplained is for cores that read the canvas, which {self.core!r} does not; take one of "
                f"{', '.join(name for name, core in CORES.items() if core.reads_canvas)}"
            )
        if self.starts > 1 and not core.starts_anywhere:
            raise ValueError(
                f"starts must be 1 with core {self.core!r}, whose windows cannot begin elsewhere, got {self.starts}; "
                f"take one of {', '.join(name for name, core in CORES.items() if core.starts_anywhere)}"
            )

    def make(self, scene: SceneConfig) -> "AIR":
        """The agent."""
        return AIR(scene, self)


@dataclass(frozen=True)
class AgentState(State):
    """What the core remembers between steps.

    Attributes:
        canvas: The background and the objects so far, without gradient; not kept up to date if the core does not read
            it.
        z_scene: ``[batch, scene]``, the background's code; 0 until it is inferred.
        features: ``[batch, embedding]``, the embedded image; empty if the core reads the canvas, too.
        hidden: ``[batch, hidden]``, output of the LSTM.
        cell: ``[batch, hidden]``, its memory.
        z_previous: ``[batch, where + what]``, the latents of the step before; 0 at first.
        start: ``[batch]``, which of the places where something is unexplained comes next, from 0 to 1; 0: where it is
            most.
    """

    canvas: Tensor
    z_scene: Tensor
    features: Tensor
    hidden: Tensor
    cell: Tensor
    z_previous: Tensor
    start: Tensor


class AIR(Agent[AgentState, Gaussian]):
    """The AIR agent: an inference network and the scene model it infers with.

    Args:
        scene: Settings of the generative model.
        config: Settings of the inference network.

    Raises:
        ValueError: Objects are not drawn into windows.

    Example:
        >>> agent = AIR(SceneConfig(), AgentConfig())
        >>> agent.explain(torch.zeros(2, 50, 50)).z_where.shape
        torch.Size([2, 3, 3])
    """

    config: AgentConfig

    def __init__(self, scene: SceneConfig, config: AgentConfig) -> None:
        super().__init__(scene)
        if not scene.renderer.windows:
            raise ValueError(
                f"AIR looks at objects through windows, which renderers of kind {scene.renderer.kind!r} do not have; "
                "take the agent made for them, such as InverseGraphicsConfig or TabletopAgentConfig"
            )
        self.config = config
        self.starts, self.starts_anywhere = config.starts, CORES.find(config.core).starts_anywhere
        self.refinements, self.splits = config.refinements, not self.categorical
        self.hidden_size = config.hidden
        where_dim, channels = self.model.where_dim, self.model.image_shape[0]
        self.embed = CORES.find(config.core)(self.model.image_shape, config.embedding)
        num_latents = self.latent_dim if self.embed.reads_latents else 0
        self.core = nn.LSTMCell(self.embed.features + num_latents, config.hidden)
        self.presence = Head(config.hidden, 1)
        first_window = torch.tensor([math.log(config.initial_scale), 0.0, 0.0])
        prior = self.model.prior_where
        initial_mean = (first_window - prior.mean) / prior.sd
        self.where = GaussianHead(config.hidden, where_dim, initial_sd=0.5, initial_mean=initial_mean)
        pixels = (1 + config.sees_unexplained) * channels * config.glimpse_size**2
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, config.encoder_hidden), nn.ReLU())
        self.scene: GaussianHead | None = None
        if self.model.scene_dim > 0:
            self.embed_scene = ImageEmbedding(self.model.image_shape, config.embedding)
            self.scene = GaussianHead(config.embedding, self.model.scene_dim, initial_sd=0.7)
        if self.categorical:
            self.what = CategoricalHead(config.encoder_hidden, self.what_size)
        else:
            self.what = GaussianHead(config.encoder_hidden, self.what_size, initial_sd=0.7)

    def initial(self, images: Images) -> AgentState:
        """The state before the first step."""
        zeros = images.new_zeros(len(images), self.config.hidden)
        z_scene = images.new_zeros(len(images), self.model.scene_dim)
        latents = images.new_zeros(len(images), self.latent_dim - self.model.scene_dim)
        canvas = torch.zeros_like(images)
        features = images.new_empty(len(images), 0) if self.embed.reads_canvas else self.embed(images)[0]
        return AgentState(images, canvas, z_scene, features, zeros, zeros, latents, images.new_zeros(len(images)))

    def begin(self, images: Images, start: Float[Tensor, "batch"] | None = None) -> AgentState:
        """The state before the first step; starts above 0 change from step to step."""
        state = self.initial(images)
        return state if start is None else replace(state, start=start)

    def describe_scene(self, state: AgentState, choose: Choose) -> tuple[AgentState, SceneLatent]:
        """Chooses the code of the background, if there is one, and sees the scene without objects."""
        if self.scene is None:
            state, scene = super().describe_scene(state, choose)
        else:
            posterior = self.scene(self.embed_scene(state.images)[0], self.model.prior_scene)
            scene = SceneLatent(posterior, choose(posterior))
        z = replace(self.model.nothing(state.images), z_scene=scene.z_scene)
        with torch.no_grad():
            return replace(state, canvas=self.model.blank(z), z_scene=scene.z_scene), scene

    def decide(self, state: AgentState) -> tuple[AgentState, Float[Tensor, "batch"], Gaussian]:
        """Advances the core by one step.

        Returns:
            The new state, the logit of ``z_pres`` and the posterior of ``z_where``.
        """
        features, place = state.features, None
        if self.embed.reads_canvas:
            features, place = self.embed(state.images, state.canvas, state.start)
        inputs = torch.cat([features, state.z_previous, state.z_scene], 1) if self.embed.reads_latents else features
        hidden, cell = self.core(inputs, (state.hidden, state.cell))
        where = self.where(hidden, self.model.prior_where)
        if place is not None:
            where = replace(where, mean=where.mean + F.pad(place, (1, 0)))
        logit = self.exploration.mix_presence(self.presence(hidden)[:, 0])
        start = torch.where(state.start > 0, (state.start + GOLDEN_RATIO) % 1, state.start)
        return replace(state, hidden=hidden, cell=cell, start=start), logit, where

    def describe(self, images: Images, canvas: Images, z_where: Float[Tensor, "batch where"]) -> Posterior:
        """The posterior of ``z_what``, given the window, and what is drawn already."""
        if self.config.sees_unexplained:
            images = torch.cat([images, images - canvas], 1)
        glimpse = geometry.attend(images, z_where, self.config.glimpse_size)
        return self.exploration.mix_categories(self.what(self.encoder(glimpse), self.model.prior_what))

    def describe_object(self, state: AgentState, first: Gaussian, choose_where: Choose, choose_what: Choose) -> Latents:
        """First where it is, then what is there."""
        z_where = choose_where(first)
        what = self.describe(state.images, state.canvas, z_where)
        return Latents(first, what, z_where, choose_what(what))

    def remember(self, state: AgentState, z_where: Tensor, z_what: Tensor) -> AgentState:
        """The state after the latents of a step are chosen."""
        what = self.model.prior_what.features(z_what)
        state = replace(state, z_previous=torch.cat([z_where, what], 1))
        if not self.embed.reads_canvas:
            return state
        # Deviation: what was drawn is told as a fact. With the gradient that leads from later steps through the canvas
        # to earlier ones, training is unstable.
        with torch.no_grad():
            one = Explanation.of_objects(torch.ones_like(z_where[:, :1]), z_where[:, None], z_what[:, None])
            return replace(state, canvas=self.model.renderer.draw(state.canvas, one))


__all__ = ["AIR", "AgentConfig", "AgentState"]
