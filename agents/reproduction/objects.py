"""Figures 6 and 7: held-out scenes of three-dimensional objects, and how well kinds and places are recovered in them.

Methods are agents, networks trained with the true kinds and places, and descent.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch

from air_env.explanation import DrawnExplanation
from air_env.model import Images
from air_env.renderers.backends import Kind, PyrenderRenderer, RaycastRenderer
from air_env.scenes import SceneDataset, SolidScene, make_scene

from ..comparisons.descent import explain_directly, refine
from ..evaluation.metrics import compare, kinds_of
from ..inference.agent import Agent
from ..jobs.job import Job
from ..training.recipes import Recipe
from .experiment import TEST_SEED, Experiment
from .study import Case, Metrics

Method = Callable[[Images], DrawnExplanation]
"""How images are explained."""
RUNS = {
    "exact": "AIR, exact",
    "score": "AIR, score function",
    "pyrender": "AIR, exact, through pyrender",
    "supervised": "supervised",
}
"""Run -> what a table calls it."""
DIRECT, REFINED = "direct descent", "AIR, exact, then descent"

AS_TRAINED = "ray caster, as in training"
_PERTURBED = {"colour_spread": 0.15, "size_spread": 0.2, "light_spread": 0.3}
CONDITIONS: dict[str, tuple[RaycastRenderer | PyrenderRenderer | None, dict[str, float]]] = {
    AS_TRAINED: (None, {}),
    "pyrender": (PyrenderRenderer(), {}),
    "other colours": (PyrenderRenderer(), {"colour_spread": 0.15}),
    "other sizes": (PyrenderRenderer(), {"size_spread": 0.2}),
    "other light": (PyrenderRenderer(light=2.0, ambient=0.6), {"light_spread": 0.3}),
    "other materials": (PyrenderRenderer(tiled=False, metallic=0.4, roughness=0.4), {}),
    "all of these": (PyrenderRenderer(tiled=False, light=2.0, ambient=0.6, metallic=0.4, roughness=0.4), _PERTURBED),
}
"""What held-out images are made with -> what draws them, and options of the scene."""


def held_out(
    experiment: Experiment,
    num_scenes: int,
    condition: str = AS_TRAINED,
    scene_name: str = "objects3d",
    **options: object,
) -> SceneDataset:
    """Images of other arrangements than any run was trained on.

    Args:
        experiment: Its scale says how large they are.
        num_scenes: How many.
        condition: One of `CONDITIONS`.
        scene_name: One of `SCENES`, of three-dimensional objects.
        options: Of the scene.
    """
    options = {"renderer": "raycast", **experiment.scale.object_options, **CONDITIONS[condition][1], **options}
    return _drawn(scene_name, num_scenes, condition, tuple(sorted(options.items())))


@lru_cache(maxsize=16)
def _drawn(scene_name: str, num_scenes: int, condition: str, options: tuple[tuple[str, object], ...]) -> SceneDataset:
    # Every network is measured on them, and many images take long to draw.
    scene = make_scene(scene_name, **dict(options))
    assert isinstance(scene, SolidScene)
    return replace(scene, drawer=CONDITIONS[condition][0]).dataset("test", num_scenes, TEST_SEED)


def explain(job: Job) -> Method:
    """The inference of a trained network."""
    return job.load("cpu").explain


def measure_network(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Measures an agent or the supervised network."""
    return _measure(explain(job), held_out(experiment, experiment.scale.num_test), job)


def measure_transfer(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Measures an agent on images that another renderer draws."""
    return _measure(explain(job), held_out(experiment, experiment.scale.num_test, case["condition"]), job)


def measure_direct(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Measures descent from random starts, which uses nothing of the agent but its generative model."""
    return _measure(direct(job, experiment), held_out(experiment, experiment.scale.num_direct), job)


def measure_refined(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Measures descent started at the agent's inference."""
    agent, steps = prepared(job), max(1, experiment.scale.descent[1] // 5)
    scenes = held_out(experiment, experiment.scale.num_direct)
    return _measure(lambda images: refine(agent, images, agent.explain(images), steps=steps), scenes, job)


def direct(job: Job, experiment: Experiment) -> Method:
    """Descent from random starts."""
    model = prepared(job).model
    starts, steps = experiment.scale.descent
    return lambda images: explain_directly(
        model, images, starts=starts, steps=steps, generator=torch.Generator().manual_seed(job.recipe.seed)
    )


def prepared(job: Job) -> Agent:
    """The trained agent or network, with a renderer that is compiled where it was for training."""
    trained = job.load("cpu")
    if isinstance(job.recipe, Recipe) and job.recipe.compile:
        trained.model.renderer.compile()
    return trained


def _measure(method: Method, scenes: SceneDataset, job: Job) -> Metrics:
    """Accuracies and errors, and the time that an image takes on one thread."""
    z, seconds = timed(method, scenes.float_images(), num_threads=1)
    return {**judge(z, scenes, kinds_of(job.load("cpu").model)), "ms_per_image": 1e3 * seconds / len(scenes)}


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


def judge(z: DrawnExplanation, scenes: SceneDataset, kinds: tuple[Kind, ...]) -> dict[str, float]:
    """Accuracies and errors of explanations, means over the scenes."""
    error = (z.reconstruction - scenes.float_images()).square().mean((1, 2, 3))
    metrics = {name: values.double().mean().item() for name, values in compare(z, scenes, kinds).items()}
    return metrics | {"reconstruction_error": error.mean().item()}
