"""What the cut through the canvas costs.

A core that reads the canvas (`CORES`, ``reads_canvas``) is told what was drawn as a fact: no gradient leads from later
choices through the canvas to the objects before them (README, Deviations). "Exact", for such an agent, is the gradient
that training follows, and not that of the ELBO. Here is how far the two are apart, with all counts and categories
summed out, on the same noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation

from ..estimators import make_estimator
from ..estimators.enumeration import objective
from ..inference.air import AIR, AgentState
from ..inference.rollout import context_dim
from .frozen import FrozenAgent, in_double_precision

NUM_IMAGES = 24
_AT_A_TIME = 4


class Uncut(AIR):
    """The agent with the gradient through the canvas."""

    def remember(self, state: AgentState, z_where: Tensor, z_what: Tensor) -> AgentState:
        """The state after the latents of a step are chosen."""
        after = super().remember(state, z_where, z_what)
        one = Explanation.of_objects(torch.ones_like(z_where[:, :1]), z_where[:, None], z_what[:, None])
        return replace(after, canvas=self.model.renderer.draw(state.canvas, one))


@dataclass(frozen=True)
class Cut:
    """How far the gradient with the cut is from the ELBO's, both means over images.

    Attributes:
        scene: Of the frozen problem.
        stage: Of the frozen problem.
        core: What the agent's core sees, one of `CORES`.
        count_accuracy: Of the agent at that stage.
        bias: Norm of the difference over the norm of the ELBO's gradient, in all parameters.
        cosine: Of the two.
    """

    scene: str
    stage: str
    core: str
    count_accuracy: float
    bias: float
    cosine: float


def measure_cut(frozen: FrozenAgent, seed: int = 0) -> Iterator[Cut]:
    """The cost of the cut on a frozen problem; nothing, where the core does not read the canvas."""
    if not frozen.agent.embed.reads_canvas:
        return
    cut, whole = mean_gradient(frozen, seed), mean_gradient(uncut(frozen), seed)
    bias, cosine = (cut - whole).norm() / whole.norm(), torch.cosine_similarity(cut, whole, 0)
    core, accuracy = frozen.agent.config.core, frozen.count_accuracy
    yield Cut(frozen.scene, frozen.stage, core, accuracy, bias.item(), cosine.item())


def uncut(frozen: FrozenAgent) -> FrozenAgent:
    """The same agent, with the gradient through the canvas."""
    agent = in_double_precision(frozen.agent.model.config, frozen.agent.config, Uncut)
    agent.load_state_dict(frozen.agent.state_dict())
    agent.exploration = frozen.agent.exploration
    return replace(frozen, agent=agent.eval())


def elbos(frozen: FrozenAgent, seed: int, num_images: int = NUM_IMAGES) -> Iterator[Float[Tensor, ""]]:
    """The ELBOs of a few images at a time, counts and categories summed out; they add up to the mean over images."""
    agent = frozen.agent
    estimator = make_estimator("exact", context_dim(agent))
    noise = frozen.noise(num_images, estimator, seed)
    for images, own in zip(frozen.images[:num_images].split(_AT_A_TIME), noise.split(_AT_A_TIME), strict=True):
        problem = frozen.problem(images, own, estimator, enumerate_categories=agent.categorical)
        yield objective(problem).sum() / num_images


def mean_gradient(frozen: FrozenAgent, seed: int, num_images: int = NUM_IMAGES) -> Float[Tensor, "parameter"]:
    """The gradient of the mean of `elbos` in all parameters, as the agent's graph has it."""
    parameters = list(frozen.agent.parameters())
    gradient = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
    for elbo in elbos(frozen, seed, num_images):
        parts = torch.autograd.grad(elbo, parameters, materialize_grads=True)
        gradient += torch.cat([part.flatten() for part in parts])
    return gradient
