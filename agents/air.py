"""AIR: the recurrent inference network ``q(z, n | x)`` (Eq. 2; Figure 2, middle and right).

At every step the core reads the image and the latents of the step before, and decides whether there is
another object and where; the window is then read out of the image and encoded into what it holds:

    h_i = LSTM(embed(x), z_{i-1}, h_{i-1})
    z_pres_i ~ Bernoulli(sigmoid(logit(h_i))),    z_where_i ~ N(head(h_i)),
    z_what_i ~ N(encoder(attend(x, z_where_i)))
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from agents.networks import Gaussian, GaussianHead, ImageEmbedding
from air_env import geometry
from air_env.explanation import Explanation
from air_env.model import Images, SceneConfig, SceneModel
from air_env.spaces import to_images

_EXPLAIN_BATCH = 1024


@dataclass(frozen=True)
class AgentConfig:
    """Settings of the inference network."""

    embedding: int = 256
    """Units of the image embedding, computed once per image (our choice)."""
    hidden: int = 256
    """Units of the LSTM (paper: 256)."""
    glimpse_size: int = 20
    """Side of the glimpse in pixels (paper: 20)."""
    initial_scale: float = 0.5
    """Size of the windows before training, relative to the image (our choice): a window that does not touch an
    object gets no gradient towards it."""
    encoder_hidden: int = 200
    """Units of the glimpse encoder's hidden layer (our choice)."""


@dataclass(frozen=True)
class Exploration:
    """A fixed probability of going on that is mixed into q, whatever the network thinks (our choice).

        q(z_pres_i = 1) = (1 - weight) sigmoid(logit_i) + weight * presence

    Training starts with weight 1, so that every count is explained before the agent may choose among them, and
    ends with 0: a count that is never sampled is never learned, and what is not learned is never chosen. It is
    part of q, so that every estimator stays what it is.
    """

    weight: float = 0.0
    presence: float = 0.75

    def mix(self, logit: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The logit of the mixture."""
        if self.weight == 0:
            return logit
        # In logarithms, so that a small weight keeps saturated logits finite.
        own = math.log1p(-self.weight) if self.weight < 1 else -math.inf
        go, stop = (
            torch.logaddexp(torch.full_like(logit, math.log(self.weight * fixed)), own + F.logsigmoid(signed))
            for fixed, signed in ((self.presence, logit), (1 - self.presence, -logit))
        )
        return go - stop


@dataclass(frozen=True)
class AgentState:
    """What the core remembers between steps.

    Attributes:
        features: ``[batch, embedding]``, the embedded image.
        hidden: ``[batch, hidden]``, output of the LSTM.
        cell: ``[batch, hidden]``, its memory.
        z_previous: ``[batch, where + what]``, the latents of the step before; 0 at first.
    """

    features: Tensor
    hidden: Tensor
    cell: Tensor
    z_previous: Tensor

    def select(self, rows: Tensor) -> "AgentState":
        """The state of some rows of the batch."""
        return AgentState(self.features[rows], self.hidden[rows], self.cell[rows], self.z_previous[rows])


class AIR(nn.Module):
    """The AIR agent: an inference network and the scene model it infers with.

    Args:
        scene: Settings of the generative model.
        config: Settings of the inference network.

    Example:
        >>> agent = AIR(SceneConfig(), AgentConfig())
        >>> agent.explain(torch.zeros(2, 50, 50)).z_where.shape
        torch.Size([2, 3, 3])
    """

    def __init__(self, scene: SceneConfig, config: AgentConfig) -> None:
        super().__init__()
        self.config = config
        self.model = SceneModel(scene)
        where_dim, what_dim = self.model.where_dim, scene.what_dim
        self.embed = ImageEmbedding(scene.image_size, config.embedding)
        self.core = nn.LSTMCell(config.embedding + self.latent_dim, config.hidden)
        self.presence = nn.Linear(config.hidden, 1)
        first_window = torch.tensor([math.log(config.initial_scale), 0.0, 0.0])
        prior = self.model.prior_where
        initial_mean = (first_window - prior.mean) / prior.sd
        self.where = GaussianHead(config.hidden, where_dim, initial_sd=0.5, initial_mean=initial_mean)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(config.glimpse_size**2, config.encoder_hidden), nn.ReLU())
        self.what = GaussianHead(config.encoder_hidden, what_dim, initial_sd=0.7)
        self.exploration = Exploration()

    @property
    def latent_dim(self) -> int:
        """Length of the continuous latents of one step, ``z_where`` and ``z_what``."""
        return self.model.where_dim + self.model.config.what_dim

    def initial(self, images: Images) -> AgentState:
        """The state before the first step."""
        zeros = images.new_zeros(len(images), self.config.hidden)
        latents = images.new_zeros(len(images), self.latent_dim)
        return AgentState(self.embed(images), zeros, zeros, latents)

    def decide(self, state: AgentState) -> tuple[AgentState, Float[Tensor, "batch"], Gaussian]:
        """Advances the core by one step.

        Returns:
            The new state, the logit of ``z_pres`` and the posterior of ``z_where``.
        """
        inputs = torch.cat([state.features, state.z_previous], 1)
        hidden, cell = self.core(inputs, (state.hidden, state.cell))
        where = self.where(hidden, self.model.prior_where)
        logit = self.exploration.mix(self.presence(hidden)[:, 0])
        return AgentState(state.features, hidden, cell, state.z_previous), logit, where

    def describe(self, images: Images, z_where: Float[Tensor, "batch where"]) -> Gaussian:
        """The posterior of ``z_what``, given the window."""
        glimpse = geometry.attend(images, z_where, self.config.glimpse_size)
        return self.what(self.encoder(glimpse), self.model.prior_what)

    @staticmethod
    def remember(state: AgentState, z_where: Tensor, z_what: Tensor) -> AgentState:
        """The state after the latents of a step are chosen."""
        return AgentState(state.features, state.hidden, state.cell, torch.cat([z_where, z_what], 1))

    @torch.no_grad()
    def explain(self, images: object, num_steps: int | None = None) -> Explanation:
        """The most probable count of each image, and the posterior means of its objects.

        Stops computing for an image as soon as no larger count can be more probable.

        Args:
            images: ``[batch, side, side]`` or ``[batch, 1, side, side]``, numpy or torch; uint8, or float in [0, 1].
            num_steps: Largest number of objects; by default the model's.

        Returns:
            The explanation, with its reconstruction, on the agent's device.

        Raises:
            ValueError: The images are not of that form (`to_images`).
        """
        num_steps = self.model.config.num_steps if num_steps is None else num_steps
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        chunks = to_images(images, self.model).split(_EXPLAIN_BATCH)
        parts = [self._explain(chunk, num_steps) for chunk in chunks]
        z = Explanation(*(torch.cat([getattr(p, k) for p in parts]) for k in ("z_pres", "z_where", "z_what")))
        return Explanation(z.z_pres, z.z_where, z.z_what, self.model.render(z))

    def _explain(self, images: Images, num_steps: int) -> Explanation:
        z_where = images.new_zeros(len(images), num_steps, self.model.where_dim)
        z_what = images.new_zeros(len(images), num_steps, self.model.config.what_dim)
        count = torch.zeros(len(images), dtype=torch.long, device=images.device)
        best = images.new_zeros(len(images))
        # Rows still open, their state, and P(n >= step): what no count so far has taken.
        rows, state, open_mass = torch.arange(len(images), device=images.device), self.initial(images), best + 1
        for step in range(num_steps):
            state, logit, where = self.decide(state)
            stop_mass = open_mass * torch.sigmoid(-logit)
            better = stop_mass > best[rows]
            count[rows[better]], best[rows[better]] = step, stop_mass[better]
            open_mass = open_mass * torch.sigmoid(logit)
            keep = open_mass > best[rows]
            rows, state, open_mass = rows[keep], state.select(keep), open_mass[keep]
            if len(rows) == 0:
                break
            z_where[rows, step] = where.mean[keep]
            z_what[rows, step] = self.describe(images[rows], where.mean[keep]).mean
            state = self.remember(state, z_where[rows, step], z_what[rows, step])
        count[rows] = num_steps
        z_pres = (torch.arange(num_steps, device=images.device) < count[:, None]).to(images.dtype)
        return Explanation(z_pres, z_where * z_pres[..., None], z_what * z_pres[..., None])
