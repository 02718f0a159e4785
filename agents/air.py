"""AIR: the recurrent inference network ``q(z, n | x)`` (Eq. 2; Figure 2, middle and right), and DAIR.

At every step the core reads the image and the latents of the step before, and decides whether there is
another object and where; the window is then read out of the image and encoded into what it holds:

    h_i = LSTM(embed(x), z_{i-1}, h_{i-1})                                      AIR
    h_i = LSTM(embed(c_{i-1} - x), h_{i-1})                                     DAIR: c_i the canvas after i objects,
                                                                                and means of windows from its peak
    z_pres_i ~ Bernoulli(sigmoid(logit(h_i))),    z_where_i ~ N(head(h_i)),
    z_what_i ~ N(encoder(attend(x, z_where_i))), or a category
"""

import math
from copy import deepcopy
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from agents.cores import CORES
from agents.networks import Categorical, CategoricalHead, Gaussian, GaussianHead, Posterior
from air_env import geometry
from air_env.explanation import Explanation
from air_env.model import Images, SceneConfig, SceneModel, masked
from air_env.priors import CategoricalPrior
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
    """Size of the windows before training, relative to the image (Deviation): a window that does not touch an object
    gets no gradient towards it."""
    encoder_hidden: int = 200
    """Units of the glimpse encoder's hidden layer (our choice)."""
    core: str = "air"
    """What the core sees at every step, one of `CORES`: air, dair (the error canvas only), ..."""

    def __post_init__(self) -> None:
        if self.core not in CORES:
            raise ValueError(f"core {self.core!r} is unknown; choose one of {', '.join(CORES)}")


@dataclass(frozen=True)
class Exploration:
    """Fixed probabilities that are mixed into q's discrete choices, whatever the network thinks.

    Deviation: the paper's q is the network's alone.

        q(z_pres_i = 1) = (1 - weight) sigmoid(logit_i) + weight * presence
        q(z_what_i)     = (1 - share) softmax(logits_i) + share / number of categories,  share = weight * categories

    Training starts with weight 1, so that every count is explained before the agent may choose among them, and
    ends with 0: a choice that is never sampled is never learned, and what is not learned is never chosen. It is
    part of q, so that every estimator stays what it is.
    """

    weight: float = 0.0
    """Share of the fixed probability in q, from 0 to 1."""
    presence: float = 0.75
    """The fixed probability of going on (our choice)."""
    categories: float = 0.2
    """Share of the uniform distribution over categories at weight 1 (our choice): without it some category is given up
    before the windows are any good; with more of it the wrong ones drive the windows out of the image."""

    def mix_presence(self, logit: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The logit of the mixture."""
        if self.weight == 0:
            return logit
        go, stop = (
            _mix(F.logsigmoid(signed), fixed, self.weight)
            for signed, fixed in ((logit, self.presence), (-logit, 1 - self.presence))
        )
        return go - stop

    def mix_categories(self, what: Posterior) -> Posterior:
        """The mixture, if it is over categories."""
        share = self.weight * self.categories
        if share == 0 or not isinstance(what, Categorical):
            return what
        return Categorical(_mix(what.log_q, 1 / what.log_q.shape[-1], share))


def _mix(log_q: Tensor, fixed: float, weight: float) -> Tensor:
    """``log((1 - weight) q + weight * fixed)``; in logarithms, so that saturated probabilities stay finite."""
    own = math.log1p(-weight) if weight < 1 else -math.inf
    return torch.logaddexp(torch.full_like(log_q, math.log(weight * fixed)), own + log_q)


@dataclass(frozen=True)
class AgentState:
    """What the core remembers between steps.

    Attributes:
        images: ``[batch, channel, side, side]``.
        canvas: The objects so far, without gradient; not kept up to date if the core does not read it.
        features: ``[batch, embedding]``, the embedded image; empty if the core reads the canvas, too.
        hidden: ``[batch, hidden]``, output of the LSTM.
        cell: ``[batch, hidden]``, its memory.
        z_previous: ``[batch, where + what]``, the latents of the step before; 0 at first.
    """

    images: Tensor
    canvas: Tensor
    features: Tensor
    hidden: Tensor
    cell: Tensor
    z_previous: Tensor

    def select(self, rows: Tensor) -> "AgentState":
        """The state of some rows of the batch."""
        return AgentState(*(getattr(self, field.name)[rows] for field in fields(self)))


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
        where_dim, channels = self.model.where_dim, self.model.image_shape[0]
        self.embed = CORES[config.core](self.model.image_shape, config.embedding)
        num_latents = self.latent_dim if self.embed.reads_latents else 0
        self.core = nn.LSTMCell(self.embed.features + num_latents, config.hidden)
        self.presence = nn.Linear(config.hidden, 1)
        first_window = torch.tensor([math.log(config.initial_scale), 0.0, 0.0])
        prior = self.model.prior_where
        initial_mean = (first_window - prior.mean) / prior.sd
        self.where = GaussianHead(config.hidden, where_dim, initial_sd=0.5, initial_mean=initial_mean)
        pixels = channels * config.glimpse_size**2
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, config.encoder_hidden), nn.ReLU())
        if self.categorical:
            self.what = CategoricalHead(config.encoder_hidden, self.what_size)
        else:
            self.what = GaussianHead(config.encoder_hidden, self.what_size, initial_sd=0.7)
        self.exploration = Exploration()

    @property
    def latent_dim(self) -> int:
        """Length of the latents of one step, ``z_where`` and ``z_what``, as the core reads them."""
        return self.model.where_dim + self.what_size

    @property
    def what_size(self) -> int:
        """Length of ``z_what``, or number of its categories."""
        prior = self.model.prior_what
        return prior.num_categories if isinstance(prior, CategoricalPrior) else prior.event_shape[0]

    @property
    def categorical(self) -> bool:
        """Whether ``z_what`` is a category."""
        return isinstance(self.model.prior_what, CategoricalPrior)

    def with_num_steps(self, num_steps: int) -> "AIR":
        """A copy of the agent that infers up to another number of objects: nothing that is learned depends on N.

        Raises:
            ValueError: ``num_steps`` is not a whole number of at least 1.
        """
        other = deepcopy(self)
        with torch.random.fork_rng(devices=[]):
            model = SceneModel(replace(self.model.config, num_steps=num_steps)).to(self.model.log_p_count)
        model.load_state_dict(self.model.state_dict())
        other.model = model.train(self.model.training)
        return other

    def initial(self, images: Images) -> AgentState:
        """The state before the first step."""
        zeros = images.new_zeros(len(images), self.config.hidden)
        latents = images.new_zeros(len(images), self.latent_dim)
        canvas = torch.zeros_like(images)
        features = images.new_empty(len(images), 0) if self.embed.reads_canvas else self.embed(images, canvas)[0]
        return AgentState(images, canvas, features, zeros, zeros, latents)

    def decide(self, state: AgentState) -> tuple[AgentState, Float[Tensor, "batch"], Gaussian]:
        """Advances the core by one step.

        Returns:
            The new state, the logit of ``z_pres`` and the posterior of ``z_where``.
        """
        features, place = state.features, None
        if self.embed.reads_canvas:
            features, place = self.embed(state.images, state.canvas)
        inputs = torch.cat([features, state.z_previous], 1) if self.embed.reads_latents else features
        hidden, cell = self.core(inputs, (state.hidden, state.cell))
        where = self.where(hidden, self.model.prior_where)
        if place is not None:
            where = replace(where, mean=where.mean + F.pad(place, (1, 0)))
        logit = self.exploration.mix_presence(self.presence(hidden)[:, 0])
        return replace(state, hidden=hidden, cell=cell), logit, where

    def describe(self, images: Images, z_where: Float[Tensor, "batch where"]) -> Posterior:
        """The posterior of ``z_what``, given the window."""
        glimpse = geometry.attend(images, z_where, self.config.glimpse_size)
        return self.exploration.mix_categories(self.what(self.encoder(glimpse), self.model.prior_what))

    def remember(self, state: AgentState, z_where: Tensor, z_what: Tensor) -> AgentState:
        """The state after the latents of a step are chosen."""
        what = F.one_hot(z_what, self.what_size).to(z_where.dtype) if self.categorical else z_what
        state = replace(state, z_previous=torch.cat([z_where, what], 1))
        if not self.embed.reads_canvas:
            return state
        # Deviation: what was drawn is told as a fact. With the gradient that leads from later steps through the canvas
        # to earlier ones, training is unstable.
        with torch.no_grad():
            return replace(state, canvas=self.model.renderer.draw(state.canvas, z_where, z_what))

    @torch.no_grad()
    def follow_modes(
        self, images: Images, num_steps: int
    ) -> tuple[Float[Tensor, "batch step"], Float[Tensor, "batch step where"], Tensor]:
        """The presence logits, and the most probable latents, of so many steps that all draw an object."""
        state, steps = self.initial(images), []
        for _ in range(num_steps):
            state, logit, where = self.decide(state)
            z_what = self.describe(images, where.mode).mode
            state = self.remember(state, where.mode, z_what)
            steps.append((logit, where.mode, z_what))
        logits, z_where, z_what = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        return logits, z_where, z_what

    @torch.no_grad()
    def explain(self, images: object, num_steps: int | None = None) -> Explanation:
        """The most probable count of each image, and the most probable latents of its objects.

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
        return Explanation(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Explanation)))

    def _explain(self, images: Images, num_steps: int) -> Explanation:
        z_where = images.new_zeros(len(images), num_steps, self.model.where_dim)
        prior = self.model.prior_what
        z_what = images.new_zeros(len(images), num_steps, *prior.event_shape, dtype=prior.dtype)
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
            z_where[rows, step] = where.mode[keep]
            z_what[rows, step] = self.describe(state.images, where.mode[keep]).mode
            state = self.remember(state, z_where[rows, step], z_what[rows, step])
        count[rows] = num_steps
        z_pres = (torch.arange(num_steps, device=images.device) < count[:, None]).to(images.dtype)
        z = Explanation(z_pres, masked(z_pres > 0, z_where), masked(z_pres > 0, z_what))
        return replace(z, reconstruction=self.model.render(z))
