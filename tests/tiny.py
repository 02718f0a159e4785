"""Tiny worlds and agents, small enough to enumerate: what the tests share."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, distributions, nn

from air_agents.inference.air import AIR, AgentConfig
from air_agents.inference.rollout import Rollout, unstopped_rollout
from air_agents.training.recipes import Recipe
from air_env.model import SceneConfig, SceneModel
from air_env.renderers import PatchConfig
from air_env.scenes import ComposedScene, SceneDataset, make_scene
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

SIDE, NUM_STEPS, WHAT, WHERE = 12, 3, 4, 3
SCENE = SceneConfig(image_size=SIDE, num_steps=NUM_STEPS, renderer=PatchConfig(what_dim=WHAT, patch_size=5, hidden=8))
AGENT = AgentConfig(embedding=16, hidden=16, glimpse_size=5, encoder_hidden=12)
SCENE_OPTIONS = {"image_size": SIDE, "object_size": (4, 6)}
FEW = {"num_validation": 16, "num_final": 16, "num_pictured": 2}
"""Settings of runs that are measured on few scenes."""
RECIPE = Recipe(
    scene="digits",
    scene_options=SCENE_OPTIONS,
    num_train=64,
    batch_size=8,
    max_steps=12,
    model=SCENE,
    agent=AGENT,
    **FEW,
)


@contextmanager
def float64(seed: int = 0) -> Iterator[None]:
    """Makes weights from a seed and constants in double precision, which `Module.double` comes too late for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(before)


def in_turn(names: str, cases: Iterable[tuple[object, ...]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a test go through all cases of some arguments; a failure names its case."""
    cases, own = list(cases), names.split()

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(**others: object) -> None:
            for case in cases:
                arguments = dict(zip(own, case, strict=True))
                try:
                    test(**others, **arguments)
                except BaseException as error:  # pytest's own failures among them
                    error.add_note(f"in the case {arguments}")
                    raise

        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in own]
        setattr(run, "__signature__", signature.replace(parameters=others))  # noqa: B010
        return run

    return decorate


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def make_model(seed: int = 0, **changes: Any) -> SceneModel:
    with float64(seed):
        model = SceneModel(replace(SCENE, **changes))
        # Patches that are neither empty nor alike.
        nn.init.normal_(model.renderer.decoder[-1].bias)
        return model


def make_agent(seed: int = 0, core: str = "air", *, sees_unexplained: bool = False, **changes: Any) -> AIR:
    """An agent whose presences and latents depend on the image; changes are of the model."""
    with float64(seed):
        agent = AIR(replace(SCENE, **changes), replace(AGENT, core=core, sees_unexplained=sees_unexplained))
        nn.init.normal_(agent.model.renderer.decoder[-1].bias)
        nn.init.normal_(agent.presence.weight)
        return agent.eval()


def tiny_scene(**options: Any) -> ComposedScene:
    return make_scene("digits", **SCENE_OPTIONS | options)


def make_scenes(num_scenes: int, split: str = "test", seed: int = 0) -> SceneDataset:
    return tiny_scene().dataset(split, num_scenes, seed)


def make_images(num_scenes: int, seed: int = 0) -> Tensor:
    """Images in float64."""
    return make_scenes(num_scenes, seed=seed).images.double() / 255


def make_envs(agent: AIR, images: Tensor) -> AIRSceneVectorEnv:
    """The agent's environments, reset to the images."""
    envs = AIRSceneVectorEnv(len(images), world=World(agent.model, make_scenes(1)))
    envs.reset(options={"images": images})
    return envs


def roll_out(agent: AIR, images: Tensor, noise: Tensor | int = 0) -> Rollout:
    """An unstopped rollout with the given noise, or with noise from a seed."""
    if isinstance(noise, int):
        noise = normal(len(images), agent.model.config.num_steps, agent.latent_dim, seed=noise)
    return unstopped_rollout(agent, make_envs(agent, images), noise)


def count_probabilities(logits: Tensor) -> Tensor:
    """``q(n)`` by the definition: n steps go on, then one stops."""
    p, num_steps = logits.sigmoid(), logits.shape[1]
    return torch.stack([p[:, :n].prod(1) * (1 - p[:, n : n + 1]).prod(1) for n in range(num_steps + 1)], 1)


SCALES = {
    "gaussian": 0.3,
    "learned_gaussian": 0.3,
    "laplace": 0.2,
    "bernoulli": 1e-3,
    "student_t": 0.15,
    "outliers": 0.2,
}
"""Likelihood -> its own scale."""


def pixel_log_prob(likelihood: str, image: Tensor, canvas: Tensor, scale: float | None = None) -> Tensor:
    """The log-probability of every pixel, by the distributions of torch; images are from 0 to 1."""
    scale = SCALES[likelihood] if scale is None else scale
    if likelihood == "outliers":
        return (0.95 * distributions.Normal(canvas, scale).log_prob(image).exp() + 0.05).log()
    if likelihood == "bernoulli":
        return distributions.Bernoulli(canvas.clip(scale, 1 - scale), validate_args=False).log_prob(image)
    if likelihood == "student_t":
        return distributions.StudentT(3.0, canvas, scale).log_prob(image)
    family = distributions.Laplace if likelihood == "laplace" else distributions.Normal
    return family(canvas, scale).log_prob(image)


def assert_equal(actual: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Tensors, or containers of them, are equal: to the last bit by default."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def z_score(samples: Tensor, mean: Tensor | float = 0.0) -> float:
    """How many standard errors the mean of the samples is away from a mean."""
    deviation = samples.double() - mean
    return (deviation.mean() / (deviation.std() / len(deviation) ** 0.5)).item()
