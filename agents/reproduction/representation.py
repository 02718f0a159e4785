"""What representations know of two digits that nobody told them (Section 3.1.2).

A model that was trained without labels describes labelled scenes; a small classifier, the head, learns an answer from
the descriptions of some. Of held-out scenes, how many does it answer right?
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.scenes import SceneDataset

from ..comparisons import DRAW, Autoencoder
from ..comparisons.heads import fit_head, objects
from ..comparisons.tasks import accuracy, get_task
from ..inference.air import AIR
from ..jobs.job import Job
from .experiment import Experiment
from .measurements import Figures

TASKS = {"sum": "sum of the two digits", "order": "left digit smaller than the right one"}
"""Name of a task -> what is asked."""
REPRESENTATIONS = {"air_sharp": "AIR", "draw": "DRAW", "autoencoder": "autoencoder"}
"""Family of runs -> name."""


@torch.no_grad()
def describe(
    model: AIR | DRAW | Autoencoder, scenes: SceneDataset
) -> Float[Tensor, "scene look step feature"] | Float[Tensor, "scene feature"]:
    """What a model says of scenes: an agent, of each of its objects; the others, a code."""
    if isinstance(model, AIR):
        return objects(model, scenes).cpu()
    return model.features(scenes.float_images(next(model.parameters()).device)).cpu()


def measure_head(job: Job, task: str, num_labels: int, experiment: Experiment) -> Figures:
    """Held-out accuracy of a head on a model's descriptions of so many labelled scenes."""
    num_classes, targets = get_task(task)
    seed, run = job.recipe.seed, (job.kind, job.recipe.seed, job.fingerprint())
    train, test = labelled(experiment, seed, num_labels), held_out(experiment)
    head = fit_head(
        _described(experiment, *run, num_labels), targets(train), num_classes, seed, experiment.scale.fitting
    )
    answers = head(_described(experiment, *run, None))
    return {"accuracy": accuracy(answers, targets(test))}


@torch.no_grad()
def measure_pixels(job: Job, experiment: Experiment) -> Figures:
    """Held-out accuracy of a classifier of pixels."""
    return job.load().measure(held_out(experiment))


def guessing(task: str, experiment: Experiment) -> float:
    """Accuracy of who always gives the most frequent answer."""
    targets = get_task(task)[1](held_out(experiment))
    return targets.bincount().max().item() / len(targets)


@lru_cache(maxsize=1)
def labelled(experiment: Experiment, seed: int, num_labels: int) -> SceneDataset:
    """Scenes of two training digits: those that the classifier of pixels with as many labels was trained on."""
    scene = experiment.scale.make_scene(experiment.data_dir, counts=(2,))
    return scene.dataset("train", num_labels, seed)


def held_out(experiment: Experiment) -> SceneDataset:
    """Scenes of two digits that nobody was trained on."""
    return experiment.held_out(experiment.scale.num_test, counts=(2,))


# The held-out scenes' and the last training scenes', which two tasks are learned from.
@lru_cache(maxsize=2)
def _described(experiment: Experiment, name: str, seed: int, weights: str, num_labels: int | None) -> Tensor:
    del weights
    scenes = held_out(experiment) if num_labels is None else labelled(experiment, seed, num_labels)
    return describe(experiment.job(name, seed).load(), scenes)
