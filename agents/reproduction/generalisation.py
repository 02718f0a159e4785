"""Scenes that training did not have, and what models make of them (Section 3.1.1).

Trained on 0, 1, 2 digits and shown 3 (extrapolation), or trained on 0, 1, 3 and shown 2 (interpolation); then, further
than the paper, up to 5 small digits, and larger images whose digits look smaller.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from air_env.scenes import SceneDataset

from ..comparisons import DRAW
from ..evaluation.metrics import evaluate
from ..inference.agent import Agent
from .experiment import TEST_SEED, Experiment
from .measurements import Figures

_BATCH = 250

TRAININGS: dict[str, tuple[int, ...]] = {"012": (0, 1, 2), "013": (0, 1, 3)}
"""Part of a run's name -> numbers of digits that it was trained on."""
MORE_STEPS, FAR_STEPS = 6, 8
"""Largest counts that agents are asked for beyond those of training."""
FAR_COUNTS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Condition:
    """What models trained on some numbers of digits are shown."""

    name: str
    """As the page has it."""
    training: str
    """One of `TRAININGS`."""
    counts: tuple[int, ...]
    """Numbers of digits in the scenes."""
    paper: str = ""
    """The count accuracy of the paper's DAIR, about, as readers of its figure report it."""

    @property
    def key(self) -> str:
        """For names of files."""
        return "".join(map(str, self.counts))


CONDITIONS = (
    Condition("in distribution", "012", TRAININGS["012"]),
    Condition("extrapolation", "012", (3,), "0.80"),
    Condition("in distribution", "013", TRAININGS["013"]),
    Condition("interpolation", "013", (2,), "0.95"),
)


def measure_agent(agent: Agent, condition: Condition, experiment: Experiment) -> Figures:
    """Bounds of an agent in nats, with as many steps as in training; count accuracies with as many and with more."""
    scale = experiment.scale
    generator = torch.Generator(agent.model.log_p_count.device).manual_seed(TEST_SEED)
    scenes = experiment.held_out(scale.num_test, counts=condition.counts)
    bounds = evaluate(agent, scenes[: scale.num_bound], num_samples=scale.num_samples, generator=generator)
    return {
        "elbo": bounds["elbo"],
        "iwae": bounds["iwae"],
        "count_accuracy": _accuracy(agent, scenes, agent.model.config.num_steps),
        "count_accuracy_more": _accuracy(agent, scenes, MORE_STEPS),
    }


@torch.no_grad()
def measure_draw(model: DRAW, condition: Condition, experiment: Experiment) -> Figures:
    """Bounds of DRAW in nats, on the same scenes as those of agents."""
    scale, device = experiment.scale, model.canvas.device
    generator = torch.Generator(device).manual_seed(TEST_SEED)
    scenes = experiment.held_out(scale.num_test, counts=condition.counts)[: scale.num_bound]
    parts = scenes.float_images(device).split(_BATCH)
    elbo = torch.cat([model.elbo(part, generator) for part in parts])
    iwae = torch.cat([model.iwae(part, scale.num_samples, generator) for part in parts])
    return {"elbo": elbo.mean().item(), "iwae": iwae.mean().item()}


def measure_far(agent: Agent, experiment: Experiment) -> Figures:
    """Count accuracies far from training.

    Returns:
        ``small``: number of small digits -> accuracy; ``canvases``: ``SIDE-COUNT`` -> accuracy.
    """
    scale = experiment.scale
    small = {str(count): _accuracy(agent, small_digits(experiment, count), FAR_STEPS) for count in FAR_COUNTS}
    canvases = {}
    for side, counts in scale.canvases.items():
        for count in counts:
            scenes = experiment.held_out(scale.num_far, counts=(count,), image_size=side)
            images = shrink(scenes.float_images(), agent.model.config.image_size)
            found = agent.explain(images, FAR_STEPS).count.cpu()
            canvases[f"{side}-{count}"] = (found == scenes.count).float().mean().item()
    return {"small": small, "canvases": canvases}


def small_digits(experiment: Experiment, count: int) -> SceneDataset:
    """Held-out scenes of so many small digits."""
    scale = experiment.scale
    return experiment.held_out(scale.num_far, counts=(count,), object_size=scale.small_objects)


def shrink(images: Float[Tensor, "batch channel height width"], side: int) -> Float[Tensor, "batch channel side side"]:
    """Images made smaller with antialiasing, as pictures are for an agent."""
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def _accuracy(agent: Agent, scenes: SceneDataset, num_steps: int) -> float:
    """Share of the scenes whose most probable count is right."""
    return (agent.explain(scenes.images, num_steps).count.cpu() == scenes.count).float().mean().item()
