"""Inverse graphics of whole scenes: crockery on a table, one item after the other, and the camera (Section 3.2).

    q(z_scene | x) prod_i q(z_pres_i | x, s_i) q(z_what_i | x, s_i) q(z_where_i | z_what_i, x, s_i)

with ``s_i`` the scene so far, of which the network sees what the camera would see. At every step there is one proposal
for each kind. A heat map says where such an item would be seen, the place is projected back onto the table, and the
proposal is drawn: what it explains says how probable the kind is, and whether there is another item at all.

Deviations: the paper's network sees the image only, and no heat maps. What is drawn is told to the network as a fact,
without gradient: the gradient leaves out what the camera and earlier places do, through the canvas, to later choices,
and what a proposal's place does to how probable its own kind is.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env.explanation import Explanation, Images
from air_env.model import SceneConfig
from air_env.precision import Head, exact
from air_env.renderers import TabletopConfig, TabletopRenderer
from air_env.renderers.backends import KINDS
from air_env.renderers.backends.camera import unproject

from .agent import Agent, AgentSettings, Choose, State
from .latents import Latents, SceneLatent
from .objects3d import glimpses_at, heads_of_kinds, of_kind, pixel_centres
from .posteriors import Categorical, Gaussian


@dataclass(frozen=True)
class TabletopAgentConfig(AgentSettings):
    """Settings of the inference network."""

    kind: ClassVar[str] = "tabletop3d"
    channels: int = 32
    """Channels of the convolutions that make the heat maps."""
    camera_hidden: int = 64
    """Units of the network that infers the camera."""
    glimpse_size: int = 10
    """Side of a glimpse in pixels."""
    glimpse_scale: float = 0.4
    """Its size relative to the image."""
    hidden: int = 128
    """Units of the networks that look at glimpses and decide on presence."""
    sharpness: float = 5.0
    """How much a heat map prefers what is unexplained before training, in nats for each colour's full range."""
    focus: float = 0.35
    """Radius, in image coordinates, around a heat map's peak that counts: of two items the map then means one."""
    position_sd: float = 0.3
    """Largest standard deviation of x and y in q."""
    camera_sd: float = 0.15
    """Largest standard deviation of the camera's angle in q."""

    def make(self, scene: SceneConfig) -> "TabletopAgent":
        """The agent."""
        return TabletopAgent(scene, self)


@dataclass(frozen=True)
class TabletopState(State):
    """What is inferred of images so far.

    Attributes:
        canvas: The scene so far, as the camera sees it, without gradient.
        z_scene: ``[batch, 1]``.
        z_where: ``[batch, so far, 2]``.
        z_what: ``[batch, so far]``.
        hidden: ``[batch, hidden]``, what the last decision was made of.
        mean: ``[batch, kind, 2]``, of the place of the next item, given its kind.
        sd: ``[batch, kind, 2]``.
        gains: ``[batch, kind]``, log-likelihood that each proposal gains, in nats.
    """

    canvas: Tensor
    z_scene: Tensor
    z_where: Tensor
    z_what: Tensor
    hidden: Tensor
    mean: Tensor
    sd: Tensor
    gains: Tensor


class TabletopAgent(Agent[TabletopState, Categorical]):
    """Infers the camera, and one item after the other.

    Args:
        scene: Settings of the generative model.
        config: Settings of the inference network.

    Raises:
        ValueError: The model does not draw tables.
    """

    config: TabletopAgentConfig
    heights: Tensor
    places: Tensor

    @property
    def renderer(self) -> TabletopRenderer:
        """What the scene model draws with."""
        return cast(TabletopRenderer, self.model.renderer)

    def __init__(self, scene: SceneConfig, config: TabletopAgentConfig) -> None:
        super().__init__(scene)
        if scene.renderer.kind != TabletopConfig.kind:
            raise ValueError("this agent needs a renderer of items on a table (TabletopConfig)")
        self.config = config
        self.hidden_size = config.hidden
        kinds, width, hidden = len(self.renderer.kinds), config.channels, config.hidden
        side = scene.image_size
        for _ in range(3):
            side = (side + 1) // 2
        self.camera = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * side * side, config.camera_hidden),
            nn.ReLU(),
            Head(config.camera_hidden, 2),
        )
        self.features = nn.Sequential(
            nn.Conv2d(9, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.heat = nn.Conv2d(width, kinds, 1)
        nn.init.zeros_(self.heat.weight)
        seen = 9 * config.glimpse_size**2 + 2 * width + 1
        self.look = nn.Sequential(nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        # For every kind: an offset, two standard deviations and how likely it is.
        self.heads = nn.Parameter(torch.randn(kinds, hidden, 5) * (0.3 / math.sqrt(hidden)))
        self.decision = nn.Sequential(nn.Linear(hidden + width + 4, hidden), nn.ReLU())
        self.presence = Head(hidden, 1)
        nn.init.zeros_(self.presence.weight)
        nn.init.constant_(self.presence.bias, -1.0)
        # How much kinds and presence go by what proposals explain; softplus keeps it positive.
        self.trust = nn.Parameter(torch.ones(2))
        heights = [KINDS[name].height / 2 for name in self.renderer.kinds]
        self.register_buffer("heights", torch.tensor(heights), persistent=False)
        self.register_buffer("places", pixel_centres(scene.image_size), persistent=False)

    def initial(self, images: Images) -> TabletopState:
        """The state before the camera is chosen."""
        nothing = self.model.nothing(images)
        per_kind = images.new_zeros(len(images), len(self.heights), self.model.where_dim)
        return TabletopState(
            images=images,
            canvas=torch.zeros_like(images),
            z_scene=nothing.z_scene,
            z_where=nothing.z_where,
            z_what=nothing.z_what,
            hidden=images.new_zeros(len(images), self.hidden_size),
            mean=per_kind,
            sd=per_kind,
            gains=per_kind[..., 0],
        )

    def describe_scene(self, state: TabletopState, choose: Choose) -> tuple[TabletopState, SceneLatent]:
        """Chooses the camera, and sees the empty table."""
        mean, sd = self.camera(state.images).split(1, 1)
        posterior = Gaussian(0.5 * mean, (self.config.camera_sd * (sd - 1).sigmoid()).clamp_min(1e-3))
        z_scene = choose(posterior)
        state = replace(state, z_scene=z_scene)
        return replace(state, canvas=self._draw(state)), SceneLatent(posterior, z_scene)

    def decide(self, state: TabletopState) -> tuple[TabletopState, Float[Tensor, "batch"], Categorical]:
        """Draws a proposal of every kind; says whether there is another item, and of which kind."""
        images, canvas = state.images, state.canvas
        unexplained = images - canvas
        inputs = torch.cat([images, canvas, 2 * unexplained], 1)
        features = self.features(inputs)
        error = F.avg_pool2d(unexplained.abs().sum(1, keepdim=True), 2, ceil_mode=True)
        heat = self._focused((self.heat(features) + self.config.sharpness * error).flatten(2))
        seen = exact(torch.matmul)(heat, self.places)
        glimpses = glimpses_at(inputs, seen.detach(), self.config.glimpse_size, self.config.glimpse_scale).flatten(2)
        features, error = features.flatten(2), error.flatten(2).transpose(1, 2)
        around = features.amax(2)[:, None].expand(-1, len(self.heights), -1)
        hidden = self.look(torch.cat([glimpses, heat @ features.transpose(1, 2), around, heat @ error], 2))
        offset, sd, likely = heads_of_kinds(hidden, self.heads).split([2, 2, 1], -1)
        camera = self.renderer.camera(state.z_scene)[:, None]
        mean = unproject(seen, self.heights, camera, self.renderer.drawer.field_of_view).clamp(-4, 4) + 0.3 * offset
        sd = (self.config.position_sd * sd.sigmoid()).clamp_min(1e-3)
        explained, gains = self._judge(state, mean.detach())
        what_trust, presence_trust = F.softplus(self.trust)
        log_q = (likely[..., 0] + what_trust * explained).log_softmax(1)
        what = self.exploration.mix_categories(Categorical(log_q))
        assert isinstance(what, Categorical)
        q, best = log_q.exp()[..., None], explained.amax(1, keepdim=True)
        evidence = torch.cat(
            [
                (q * hidden).sum(1),
                features.mean(2),
                (q * (heat @ error)).sum(1),
                error.mean(1),
                best.clamp(-5, 5),
                best.abs().sqrt() * best.sign(),
            ],
            1,
        )
        decision = self.decision(evidence)
        logit = (self.presence(decision) + presence_trust * best.clamp(-10, 10))[:, 0]
        state = replace(state, hidden=decision, mean=mean, sd=sd, gains=gains)
        return state, self.exploration.mix_presence(logit), what

    def describe_object(
        self, state: TabletopState, first: Categorical, choose_where: Choose, choose_what: Choose
    ) -> Latents:
        """First what it is, then where such an item would be."""
        z_what = choose_what(first)
        where = Gaussian(of_kind(state.mean, z_what), of_kind(state.sd, z_what))
        return Latents(where, first, choose_where(where), z_what, state.gains)

    def remember(self, state: TabletopState, z_where: Tensor, z_what: Tensor) -> TabletopState:
        """The scene with one more item."""
        state = replace(
            state,
            z_where=torch.cat([state.z_where, z_where[:, None]], 1),
            z_what=torch.cat([state.z_what, z_what[:, None]], 1),
        )
        return replace(state, canvas=self._draw(state))

    @torch.no_grad()
    def _draw(self, state: TabletopState) -> Images:
        present = torch.ones_like(state.z_where[..., 0])
        return self.renderer.render(state.canvas, Explanation(present, state.z_where, state.z_what, state.z_scene))

    @torch.no_grad()
    def _judge(
        self, state: TabletopState, mean: Float[Tensor, "batch kind 2"]
    ) -> tuple[Float[Tensor, "batch kind"], Float[Tensor, "batch kind"]]:
        """The squared error, and the log-likelihood, that an item of each kind explains."""
        batch, kinds, _ = mean.shape
        rows = torch.arange(batch, device=mean.device).repeat_interleave(kinds)
        every = torch.arange(kinds, device=mean.device).repeat(batch)
        proposed = state.select(rows)
        proposed = replace(
            proposed,
            z_where=torch.cat([proposed.z_where, mean.flatten(0, 1)[:, None]], 1),
            z_what=torch.cat([proposed.z_what, every[:, None]], 1),
        )
        drawn, likelihood = self._draw(proposed).unflatten(0, (batch, kinds)), self.model.likelihood
        errors = (state.images[:, None] - drawn).square().sum((2, 3, 4))
        explained = (state.images - state.canvas).square().sum((1, 2, 3))[:, None] - errors
        before = likelihood.log_prob(state.images, state.canvas)
        return explained, likelihood.log_prob(state.images[:, None], drawn) - before[:, None]

    def _focused(self, logits: Float[Tensor, "batch kind place"]) -> Float[Tensor, "batch kind place"]:
        """A heat map around the peak of its logits."""
        peak = self.places[logits.argmax(-1)]
        far = torch.cdist(peak, self.places.expand(len(peak), -1, -1)) >= self.config.focus
        return logits.masked_fill(far, -1e9).softmax(-1)
