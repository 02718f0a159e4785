"""Figures 6 and 7: held-out images of three-dimensional objects, and how well kinds and places are recovered."""

import time
from collections.abc import Callable
from typing import Any

import torch

from air_env.explanation import DrawnExplanation
from air_env.model import Images, SceneModel
from air_env.renderers.backends import PyrenderRenderer
from air_env.scenes import SceneDataset

from ..evaluation.metrics import judge
from ..jobs.job import Job
from ..training.recipes import Recipe
from .experiment import Drawer, Experiment, held_out

Method = Callable[[Images], DrawnExplanation]
"""How images are explained."""

AS_TRAINED = "ray caster, as in training"
_PERTURBED = {"colour_spread": 0.15, "size_spread": 0.2, "light_spread": 0.3}
CONDITIONS: dict[str, tuple[Drawer | None, dict[str, float]]] = {
    AS_TRAINED: (None, {}),
    "pyrender": (PyrenderRenderer(), {}),
    "other colours": (PyrenderRenderer(), {"colour_spread": 0.15}),
    "other sizes": (PyrenderRenderer(), {"size_spread": 0.2}),
    "other light": (PyrenderRenderer(light=2.0, ambient=0.6), {"light_spread": 0.3}),
    "other materials": (PyrenderRenderer(tiled=False, metallic=0.4, roughness=0.4), {}),
    "all of these": (PyrenderRenderer(tiled=False, light=2.0, ambient=0.6, metallic=0.4, roughness=0.4), _PERTURBED),
}
"""What held-out images are made with -> what draws them, and options of the scene."""


def images_of(
    experiment: Experiment, num_scenes: int, condition: str = AS_TRAINED, scene: str = "objects3d", **options: object
) -> SceneDataset:
    """Images of other arrangements than any run was trained on.

    Args:
        experiment: Its scale says how large they are.
        num_scenes: How many.
        condition: One of `CONDITIONS`.
        scene: One of `SCENES`, of three-dimensional objects.
        options: Of the scene.
    """
    drawer, perturbations = CONDITIONS[condition]
    options = {"renderer": "raycast", **experiment.scale.object_options, **perturbations, **options}
    return held_out(scene, num_scenes, drawer, **options)


def prepared(job: Job) -> Any:
    """The trained agent or network, with a renderer that is compiled where it was for training."""
    trained = job.load("cpu")
    if isinstance(job.recipe, Recipe) and job.recipe.compile:
        trained.model.renderer.compile()
    return trained


def timed(method: Method, images: Images, *, num_threads: int) -> tuple[DrawnExplanation, float]:
    """Explanations, and the seconds that they took on so many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        method(images[:2])  # compiles what is to be compiled
        begun = time.perf_counter()
        z = method(images)
        return z, time.perf_counter() - begun
    finally:
        torch.set_num_threads(threads)


def errors(z: DrawnExplanation, scenes: SceneDataset, model: SceneModel) -> dict[str, float]:
    """Accuracies and errors of explanations, means over the scenes."""
    error = (z.reconstruction - scenes.float_images()).square().mean((1, 2, 3))
    return judge(z, scenes, model) | {"reconstruction_error": error.mean().item()}
