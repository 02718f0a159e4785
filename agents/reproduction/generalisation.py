"""Strong generalisation: metrics of models on scenes that training did not have (Section 3.1.1).

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
from ..jobs.job import Job
from .experiment import TEST_SEED, Experiment
from .study import Case, Metrics

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


def measure_bounds(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Bounds in nats, with as many steps as in training; of agents, also count accuracies, with as many and with more.

    All models are measured on the same scenes.
    """
    scale, model = experiment.scale, job.load()
    scenes = experiment.held_out(scale.num_test, counts=tuple(map(int, case["shown"])))
    if isinstance(model, DRAW):
        return _draw_bounds(model, scenes[: scale.num_bound], scale.num_samples)
    generator = torch.Generator(job.device).manual_seed(TEST_SEED)
    bounds = evaluate(model, scenes[: scale.num_bound], num_samples=scale.num_samples, generator=generator)
    return {
        "elbo": bounds["elbo"],
        "iwae": bounds["iwae"],
        "count_accuracy": _accuracy(model, scenes, model.model.config.num_steps),
        "count_accuracy_more": _accuracy(model, scenes, MORE_STEPS),
    }


@torch.no_grad()
def _draw_bounds(model: DRAW, scenes: SceneDataset, num_samples: int) -> Metrics:
    device = model.canvas.device
    generator = torch.Generator(device).manual_seed(TEST_SEED)
    parts = scenes.float_images(device).split(_BATCH)
    elbo = torch.cat([model.bound(part, generator) for part in parts])
    iwae = torch.cat([model.iwae(part, num_samples, generator) for part in parts])
    return {"elbo": elbo.mean().item(), "iwae": iwae.mean().item()}


def measure_far(job: Job, case: Case, experiment: Experiment) -> list[Metrics]:
    """Count accuracies far from training: a row for each number of small digits, and for each larger image."""
    scale, agent = experiment.scale, job.agent()
    rows: list[Metrics] = [
        {"side": None, "shown": str(n), "count_accuracy_far": _accuracy(agent, small_digits(experiment, n), FAR_STEPS)}
        for n in FAR_COUNTS
    ]
    for side, counts in scale.canvases.items():
        for n in counts:
            scenes = experiment.held_out(scale.num_far, counts=(n,), image_size=side)
            images = shrink(scenes.float_images(), agent.model.config.image_size)
            right = agent.explain(images, FAR_STEPS).count.cpu() == scenes.count
            rows.append({"side": side, "shown": str(n), "count_accuracy_far": right.float().mean().item()})
    return rows


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
