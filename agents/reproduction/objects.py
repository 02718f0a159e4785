"""What Figures 6 and 7 measure of three-dimensional scenes, and what they measure it on.

How kinds and places are recovered: by agents, by networks that are told them, and by descent.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from air_env.explanation import Explanation
from air_env.model import Images
from air_env.renderers.backends import Kind, PyrenderRenderer, RaycastRenderer
from air_env.scenes import SceneDataset, SolidScene, make_scene

from ..comparisons.descent import explain_directly, refine
from ..comparisons.poses import PoseRegressor
from ..evaluation.metrics import compare, kinds_of
from ..inference.agent import Agent
from ..jobs.job import Job
from .experiment import TEST_SEED, Experiment
from .measurements import Figures

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
    **options: Any,
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
def _drawn(scene_name: str, num_scenes: int, condition: str, options: tuple[tuple[str, Any], ...]) -> SceneDataset:
    # Every network is measured on them, and many images take long to draw.
    scene = make_scene(scene_name, **dict(options))
    assert isinstance(scene, SolidScene)
    return replace(scene, drawer=CONDITIONS[condition][0]).dataset("test", num_scenes, TEST_SEED)


def explain(job: Job) -> Callable[[Images], Explanation]:
    """How a trained network explains images."""
    trained: Agent | PoseRegressor = job.load("cpu")
    return trained.explain


def measure_network(job: Job, experiment: Experiment) -> Figures:
    """Of an agent, or of the supervised network."""
    scenes = held_out(experiment, experiment.scale.num_test)
    return measure(explain(job), scenes, _kinds(job))


def measure_transfer(job: Job, condition: str, experiment: Experiment) -> Figures:
    """Of an agent, on images that are made in another way."""
    return measure(explain(job), held_out(experiment, experiment.scale.num_test, condition), _kinds(job))


def measure_direct(job: Job, experiment: Experiment) -> Figures:
    """Of descent from several starts, which knows nothing of the agent but its generative model."""
    return measure(direct(job, experiment), held_out(experiment, experiment.scale.num_direct), _kinds(job))


def measure_refined(job: Job, experiment: Experiment) -> Figures:
    """Of a few steps of descent from what the agent infers."""
    return measure(refined(job, experiment), held_out(experiment, experiment.scale.num_direct), _kinds(job))


def direct(job: Job, experiment: Experiment) -> Callable[[Images], Explanation]:
    """How images are explained by descent."""
    model = prepared(job).model
    starts, steps = experiment.scale.descent
    return lambda images: explain_directly(
        model, images, starts=starts, steps=steps, generator=torch.Generator().manual_seed(job.recipe.seed)
    )


def refined(job: Job, experiment: Experiment) -> Callable[[Images], Explanation]:
    """How images are explained by an agent and a few steps of descent."""
    agent = prepared(job)
    steps = max(1, experiment.scale.descent[1] // 5)
    return lambda images: refine(agent, images, agent.explain(images), steps=steps)


def prepared(job: Job) -> Any:
    """What was trained, with a renderer that is compiled where it was for training."""
    trained: Any = job.load("cpu")
    if getattr(job.recipe, "compile", False):
        trained.model.renderer.compile()
    return trained


def _kinds(job: Job) -> tuple[Kind, ...]:
    trained: Agent | PoseRegressor = job.load("cpu")
    return kinds_of(trained.network if isinstance(trained, PoseRegressor) else trained)


def measure(method: Callable[[Images], Explanation], scenes: SceneDataset, kinds: tuple[Kind, ...]) -> Figures:
    """Accuracies and errors, and the time that an image takes on one thread."""
    z, seconds = timed(method, scenes.float_images(), num_threads=1)
    return judge(z, scenes, kinds) | {"ms_per_image": 1e3 * seconds / len(scenes)}


def timed(method: Callable[[Images], Explanation], images: Images, *, num_threads: int) -> tuple[Explanation, float]:
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


def judge(z: Explanation, scenes: SceneDataset, kinds: tuple[Kind, ...]) -> Figures:
    """Accuracies and errors of explanations, means over the scenes."""
    error = (z.reconstruction - scenes.float_images()).square().mean((1, 2, 3))
    figures = {name: values.double().mean().item() for name, values in compare(z, scenes, kinds).items()}
    return figures | {"reconstruction_error": error.mean().item()}
