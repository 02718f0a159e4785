"""What every agent is: a scene model, and a recurrent network that infers with it, one object at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from air_env.explanation import DrawnExplanation, Explanation, Images
from air_env.model import SceneConfig, SceneModel
from air_env.reading import read_whole
from air_env.scene_config import MOST_STEPS
from air_env.spaces import to_images

from ..estimators.problem import log_q_of_counts
from .explainer import Explainer
from .exploration import Exploration
from .latents import Latents, ModePath, SceneLatent
from .posteriors import Categorical, Gaussian, Posterior, select, stack
from .weighing import weigh

_EXPLAIN_BATCH = 1024


@dataclass(frozen=True)
class State:
    """What an agent remembers between steps: tensors, with a row for each image."""

    images: Tensor
    """``[batch, channel, side, side]``."""

    def select(self, rows: Tensor) -> Self:
        """The state of some rows of the batch."""
        return select(self, rows)


S = TypeVar("S", bound=State)
First = TypeVar("First", Gaussian, Categorical)
"""The posterior of what is chosen first of an object."""

Choose = Callable[[Any], Tensor]
"""Picks values of a posterior."""


def mode_of(posterior: Posterior) -> Tensor:
    """Its most probable value."""
    return posterior.mode


@dataclass(frozen=True)
class AgentSettings(ABC):
    """Settings of an inference network."""

    kind: ClassVar[str]
    """Name of these settings in `AGENTS`; files of settings carry it."""

    @abstractmethod
    def make(self, scene: SceneConfig) -> "Agent":
        """Makes the agent, for scenes of a generative model."""


class Agent(nn.Module, Explainer, Generic[S, First]):
    """An inference network ``q(z, n | x)`` and the scene model that it infers with.

    Args:
        scene: Settings of the generative model.
    """

    config: Any
    """Settings of the inference network."""
    hidden_size: int
    """Length of a state's ``hidden``."""
    starts: int = 1
    """Explanations that `explain` compares, which begin in different places."""
    starts_anywhere: bool = False
    """Whether they can."""
    refinements: int = 0
    """Steps of gradient ascent by which `explain` makes explanations better."""
    splits: bool = False
    """Whether objects are described through windows, and may be taken for two."""

    def __init__(self, scene: SceneConfig) -> None:
        super().__init__()
        self.model = SceneModel(scene)
        self.exploration = Exploration()

    @abstractmethod
    def initial(self, images: Images) -> S:
        """The state before the first step."""

    def begin(self, images: Images, start: Float[Tensor, "batch"] | None = None) -> S:
        """The state before the first step of explanations that begin in places of their own.

        Args:
            images: What is to be explained.
            start: From 0 to 1, which of the places where something is unexplained comes first; 0 is the one where it is
                most. None is 0 for all images.
        """
        del start
        return self.initial(images)

    def describe_scene(self, state: S, choose: Choose) -> tuple[S, SceneLatent]:
        """Infers what belongs to the whole scene; nothing, unless an agent says otherwise.

        Args:
            state: The state before the first step.
            choose: Picks ``z_scene`` from its posterior.

        Returns:
            The state that knows ``z_scene``, and ``z_scene``.
        """
        nothing = state.images.new_zeros(len(state.images), 0)
        posterior = Gaussian(nothing, nothing)
        return state, SceneLatent(posterior, choose(posterior))

    @abstractmethod
    def decide(self, state: S) -> tuple[S, Float[Tensor, "batch"], First]:
        """Takes a step.

        Returns:
            The new state, the logit of ``z_pres``, and the posterior of what is chosen first of an object.
        """

    @abstractmethod
    def describe_object(self, state: S, first: First, choose_where: Choose, choose_what: Choose) -> Latents:
        """Where and what the object of a step is.

        Args:
            state: After the decision.
            first: The posterior that the decision gave.
            choose_where: Picks ``z_where`` from its posterior.
            choose_what: Picks ``z_what`` from its posterior; the second of the two may depend on the first.
        """

    @abstractmethod
    def remember(self, state: S, z_where: Tensor, z_what: Tensor) -> S:
        """The state after the latents of a step are chosen."""

    @property
    def latent_dim(self) -> int:
        """Length of the latents of one step as a network reads them, ``z_where`` and ``z_what``, and of ``z_scene``."""
        return self.model.where_dim + self.what_size + self.model.scene_dim

    @property
    def what_size(self) -> int:
        """Length of ``z_what``, or number of its categories."""
        return self.model.prior_what.size

    @property
    def categorical(self) -> bool:
        """Whether ``z_what`` is a category."""
        return self.model.prior_what.categorical

    def with_num_steps(self, num_steps: int) -> Self:
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

    @torch.no_grad()
    def follow_modes(self, images: Images, num_steps: int, start: Float[Tensor, "batch"] | None = None) -> ModePath:
        """The most probable latents, one after the other, of so many steps that all draw an object (`begin`)."""
        state, scene = self.describe_scene(self.begin(images, start), mode_of)
        logits, objects = [], []
        for _ in range(num_steps):
            state, logit, first = self.decide(state)
            z = self.describe_object(state, first, mode_of, mode_of)
            state = self.remember(state, z.z_where, z.z_what)
            logits.append(logit)
            objects.append(z)
        where, what, z_where, z_what, log_q = (
            stack([getattr(z, name) for z in objects]) for name in ("where", "what", "z_where", "z_what", "log_q")
        )
        log_q_scene = scene.posterior.log_prob(scene.z_scene)[:, None]
        z = Explanation(torch.ones_like(log_q), z_where, z_what, scene.z_scene)
        return ModePath(stack(logits), where, what, z, log_q_scene + F.pad(log_q.cumsum(1), (1, 0)))

    @torch.no_grad()
    def explain(
        self,
        images: object,
        num_steps: int | None = None,
        *,
        starts: int | None = None,
        refinements: int | None = None,
    ) -> DrawnExplanation:
        """What each image most probably shows: its count, and the most probable latents of its objects.

        With one start and no refinement, the latents of every step are the modes of their posteriors, given those
        before, and the count is the most probable one along this path. It stops computing for an image as soon as no
        larger count can be more probable.

        Otherwise the model judges what the network proposes. There are as many paths as starts, which begin in
        different places. For each count it is the one of the largest importance weight ``p(x, z_1..n, n) / q(z_1..n |
        x)``, refined by gradient ascent on ``p``. Where that is done and objects are learned, the best explanation of
        one object less with one of them taken for two competes with it. The count is the one of the largest weight.

        Args:
            images: ``[batch, channel, side, side]``, or ``[batch, side, side]`` where they are grey; numpy or torch,
                uint8, or float in [0, 1].
            num_steps: Largest number of objects; by default the model's.
            starts: How many explanations to compare; by default the agent's own number.
            refinements: Steps of gradient ascent; by default the agent's own number.

        Returns:
            The explanation, with its reconstruction, on the agent's device.

        Raises:
            ValueError: The images are not of that form (`to_images`), so many objects cannot be drawn, explanations of
                this agent cannot begin in different places, or its renderer has no gradient.
        """
        num_steps = self.model.config.num_steps if num_steps is None else num_steps
        num_steps = read_whole("num_steps", num_steps, 1, MOST_STEPS)
        if num_steps > (most := self.model.renderer.max_steps):
            raise ValueError(f"num_steps must be at most {most} for this renderer, got {num_steps}")
        starts = self.starts if starts is None else read_whole("starts", starts, 1)
        if starts > 1 and not self.starts_anywhere:
            raise ValueError(f"starts must be 1 for this agent, whose explanations begin in one place, got {starts}")
        refinements = self.refinements if refinements is None else read_whole("refinements", refinements, 0)
        if refinements and not self.model.renderer.differentiable:
            raise ValueError(f"refinements must be 0 for this agent, whose renderer has no gradient, got {refinements}")
        explain = partial(self._explain, num_steps=num_steps)
        if starts > 1 or refinements:
            explain = partial(self._with_at_most(num_steps)._weighed, starts=starts, refinements=refinements)
        size = max(1, _EXPLAIN_BATCH // starts)
        return DrawnExplanation.joined([explain(chunk) for chunk in to_images(images, self.model).split(size)])

    @torch.no_grad()
    def count_posterior(self, images: object, num_steps: int) -> Float[Tensor, "batch count"]:
        """How probable the agent finds each count of 0 to N: ``q(n | x)`` along the path of modes.

        With several starts or refinements, it is what the importance weights say that `explain` compares.
        """
        images = to_images(images, self.model)
        if self.starts > 1 or self.refinements:
            return weigh(self._with_at_most(num_steps), images, self.starts, self.refinements)[0].softmax(1)
        logits = self.follow_modes(images, num_steps).logits
        return log_q_of_counts(F.logsigmoid(logits), F.logsigmoid(-logits)).exp()

    def _with_at_most(self, num_steps: int) -> Self:
        return self if num_steps == self.model.config.num_steps else self.with_num_steps(num_steps)

    def _weighed(self, images: Images, starts: int, refinements: int) -> DrawnExplanation:
        log_weights, explanations = weigh(self, images, starts, refinements)
        rows = log_weights.argmax(1) * len(images) + torch.arange(len(images), device=images.device)
        return self.model.drawn(select(Explanation.joined(explanations), rows))

    def _explain(self, images: Images, num_steps: int) -> DrawnExplanation:
        nothing = self.model.nothing(images, num_steps)
        z_where, z_what = nothing.z_where, nothing.z_what
        count = torch.zeros(len(images), dtype=torch.long, device=images.device)
        best = images.new_zeros(len(images))
        # Rows still open, their state, and P(n >= step): what no count so far has taken.
        rows, open_mass = torch.arange(len(images), device=images.device), best + 1
        state, scene = self.describe_scene(self.initial(images), mode_of)
        for step in range(num_steps):
            state, logit, first = self.decide(state)
            stop_mass = open_mass * torch.sigmoid(-logit)
            better = stop_mass > best[rows]
            count[rows[better]], best[rows[better]] = step, stop_mass[better]
            open_mass = open_mass * torch.sigmoid(logit)
            keep = open_mass > best[rows]
            rows, state, open_mass = rows[keep], state.select(keep), open_mass[keep]
            if len(rows) == 0:
                break
            z = self.describe_object(state, select(first, keep), mode_of, mode_of)
            z_where[rows, step], z_what[rows, step] = z.z_where, z.z_what
            state = self.remember(state, z.z_where, z.z_what)
        count[rows] = num_steps
        return self.model.drawn(replace(nothing, z_where=z_where, z_what=z_what, z_scene=scene.z_scene).keep(count))
