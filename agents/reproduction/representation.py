"""Representations: what can be read from unsupervised features (Section 3.1.2).

A model that was trained without labels computes features of labelled scenes; a small classifier, the head, is trained
on some of them. Its accuracy is measured on held-out scenes.
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
from .study import Case, Metrics

TASKS = {"sum": "sum of the two digits", "order": "left digit smaller than the right one"}
"""Name of a task -> what is asked."""
REPRESENTATIONS = {"air_sharp": "AIR", "draw": "DRAW", "autoencoder": "autoencoder"}
"""Family of runs -> name."""
PIXELS = "CNN on pixels"


@torch.no_grad()
def describe(
    model: AIR | DRAW | Autoencoder, scenes: SceneDataset
) -> Float[Tensor, "scene look step feature"] | Float[Tensor, "scene feature"]:
    """A model's features of scenes: of each object, where it is an agent; else one code."""
    if isinstance(model, AIR):
        return objects(model, scenes).cpu()
    return model.features(scenes.float_images(next(model.parameters()).device)).cpu()


def measure_head(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Held-out accuracy of a head that is trained on a model's features of labelled scenes."""
    num_labels, (num_classes, targets) = int(case["labels"]), get_task(case["task"])
    run = (case.run, case.seed, job.fingerprint())
    train, test = labelled(experiment, case.seed, num_labels), held_out(experiment)
    features = _described(experiment, *run, num_labels)
    head = fit_head(features, targets(train), num_classes, case.seed, experiment.scale.fitting)
    return {"accuracy": accuracy(head(_described(experiment, *run, None)), targets(test))}


@torch.no_grad()
def measure_pixels(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Held-out accuracy of a classifier of pixels."""
    return job.load().measure(held_out(experiment))


def guessing(task: str, experiment: Experiment) -> float:
    """Accuracy of the constant most frequent answer."""
    targets = get_task(task)[1](held_out(experiment))
    return targets.bincount().max().item() / len(targets)


@lru_cache(maxsize=1)
def labelled(experiment: Experiment, seed: int, num_labels: int) -> SceneDataset:
    """Scenes of two training digits: those that the classifier of pixels with as many labels was trained on."""
    scene = experiment.scale.make_scene(experiment.data_dir, counts=(2,))
    return scene.dataset("train", num_labels, seed)


def held_out(experiment: Experiment) -> SceneDataset:
    """Held-out scenes of two digits."""
    return experiment.held_out(experiment.scale.num_test, counts=(2,))


# The held-out scenes' and the last training scenes', which two tasks are learned from.
@lru_cache(maxsize=2)
def _described(experiment: Experiment, name: str, seed: int, weights: str, num_labels: int | None) -> Tensor:
    del weights
    scenes = held_out(experiment) if num_labels is None else labelled(experiment, seed, num_labels)
    return describe(experiment.job(name, seed).load(), scenes)
