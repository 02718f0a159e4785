"""What `air-env benchmark-speed` measures: training, explanation, the environments and the 3D renderers."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import gymnasium
import numpy as np
import torch
from torch import Tensor

from air_env import AIRSceneEnv, AIRSceneVectorEnv, SceneConfig, SceneModel, World
from air_env.renderers.backends import KINDS, Backend, PyrenderRenderer, RaycastRenderer, SceneBatch, why_no_opengl
from air_env.scenes import SceneDataset, make_scene

from ..inference.air import AIR, AgentConfig
from ..jobs.timing import Workload
from ..training.recipes import RECIPES
from ..training.trainer import Trainer

_NUM_SCENES = 2_000


@dataclass(frozen=True)
class Setting:
    """What all benchmarks share: the device, and a pool of scenes that needs no download."""

    device: str
    scenes: SceneDataset

    @classmethod
    def on(cls, device: str) -> "Setting":
        """The setting on a device."""
        return cls(device, make_scene("digits").dataset("train", _NUM_SCENES))


def training(setting: Setting) -> Iterator[Workload]:
    """Whole training iterations: rollout, rewards, estimator, backward, Adam."""
    for estimator, batch_size in itertools.product(("half_critic", "exact"), (64, 256)):
        recipe = replace(RECIPES.find("multi_mnist_air"), estimator=estimator, batch_size=batch_size)
        trainer = Trainer(recipe, setting.scenes, setting.device)
        yield Workload(f"training {estimator}, batch {batch_size}", "images/s", batch_size, trainer.step)


def explaining(setting: Setting) -> Iterator[Workload]:
    """`AIR.explain` of images in which it finds as many objects as it may, which takes longest."""
    agent = AIR(SceneConfig(), AgentConfig()).to(setting.device).eval()
    torch.nn.init.constant_(agent.presence.bias, 10.0)
    for num_images in (1, 256):
        images = setting.scenes.images[:num_images]
        name = f"explain, {num_images} image{'s' * (num_images > 1)}"
        yield Workload(name, "ms", num_images, partial(agent.explain, images))


def single_environment(setting: Setting) -> Iterator[Workload]:
    """Whole episodes of `AIRSceneEnv`, resets included: numpy in and out."""
    model = SceneModel(SceneConfig()).to(setting.device)
    env = AIRSceneEnv(world=World(model, setting.scenes))
    env.reset(seed=0)
    z_where, z_what = (part[0, 0].numpy() for part in _latents(model, 1))
    action = {"z_pres": np.int64(1), "z_where": z_where, "z_what": z_what}

    def episode() -> None:
        env.reset()
        for _ in range(model.config.num_steps):
            env.step(action)

    yield Workload("environment", "steps/s", model.config.num_steps, episode)


def vector_environment(setting: Setting) -> Iterator[Workload]:
    """Whole episodes of `AIRSceneVectorEnv`, resets included; with gradients also their backward pass."""
    for num_envs, grad_enabled in itertools.product((64, 1024), (False, True)):
        model = SceneModel(SceneConfig()).to(setting.device)
        envs = AIRSceneVectorEnv(num_envs, grad_enabled=grad_enabled, world=World(model, setting.scenes))
        envs.reset(seed=0)
        plan = [part.to(setting.device).requires_grad_(grad_enabled) for part in _latents(model, num_envs)]
        kind = "with gradients" if grad_enabled else "no gradients"
        steps = num_envs * model.config.num_steps
        yield Workload(f"{num_envs} environments, {kind}", "steps/s", steps, partial(_episodes, envs, *plan))


def _episodes(envs: AIRSceneVectorEnv, z_where: Tensor, z_what: Tensor) -> None:
    envs.reset()
    z_pres = torch.ones(envs.num_envs, device=envs.device)
    total = torch.zeros(envs.num_envs, device=envs.device)
    for where, what in zip(z_where.unbind(1), z_what.unbind(1), strict=True):
        _, rewards, _, _, _ = envs.step({"z_pres": z_pres, "z_where": where, "z_what": what})
        total = total + rewards
    if envs.grad_enabled:
        total.sum().backward()


def _latents(model: SceneModel, num_envs: int) -> tuple[Tensor, Tensor]:
    """Windows and appearances from the prior, ``[num_envs, N, ...]``."""
    generator = torch.Generator(model.log_p_count.device).manual_seed(0)
    shape = (num_envs, model.config.num_steps)
    return model.prior_where.sample(*shape, generator=generator), model.prior_what.sample(*shape, generator=generator)


def sync_vector_environment(setting: Setting) -> Iterator[Workload]:
    """What Gymnasium makes of 64 single environments, for comparison."""
    model, num_envs = SceneModel(SceneConfig()).to(setting.device), 64
    world = World(model, setting.scenes)
    make = partial(gymnasium.make, "AIRScene-v1", world=world, disable_env_checker=True)
    envs = gymnasium.vector.SyncVectorEnv([make] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    z_where, z_what = (part[:, 0].numpy(force=True) for part in _latents(model, num_envs))
    action = {"z_pres": np.ones(num_envs, np.int64), "z_where": z_where, "z_what": z_what}
    yield Workload("SyncVectorEnv, 64 environments", "steps/s", num_envs, partial(envs.step, action))


def stable_baselines(setting: Setting) -> Iterator[Workload]:
    """What Stable-Baselines3 makes of 64 single environments, and the adapter; left out where it is not installed."""
    try:
        from stable_baselines3.common.vec_env import DummyVecEnv

        from ..sb3 import AIRSceneVecEnv
    except ModuleNotFoundError:
        return
    world = World(SceneModel(SceneConfig()).to(setting.device), setting.scenes)
    make = partial(gymnasium.make, "AIRSceneFlat-v1", world=world, disable_env_checker=True)
    adapters = (("SB3 adapter", AIRSceneVecEnv(num_envs, world=world)) for num_envs in (64, 1024))
    for name, envs in (("DummyVecEnv", DummyVecEnv([make] * 64)), *adapters):
        envs.reset()
        action = np.full((envs.num_envs, *(envs.action_space.shape or ())), 0.1, np.float32)
        yield Workload(f"{name}, {envs.num_envs} environments", "steps/s", envs.num_envs, partial(envs.step, action))


def rendering(setting: Setting) -> Iterator[Workload]:
    """Images of one three-dimensional object; pyrender is left out where there is no OpenGL."""
    for resolution in (32, 64):
        drawers: dict[str, tuple[Backend, int]] = {
            "ray caster, eager": (RaycastRenderer(resolution), 256),
            "ray caster, compiled": (RaycastRenderer(resolution, compiled=True), 1_024),
            "ray caster, compiled, 1 sample": (RaycastRenderer(resolution, samples=1, compiled=True), 1_024),
        }
        if why_no_opengl() is None:
            drawers["pyrender, single"] = PyrenderRenderer(resolution, tiled=False), 64
            drawers["pyrender, tiled"] = PyrenderRenderer(resolution), 1_024
        for name, (drawer, batch) in drawers.items():
            generator = torch.Generator().manual_seed(0)
            kind = torch.randint(len(KINDS), (batch, 1), generator=generator)
            pose = torch.rand(batch, 1, 3, generator=generator) * 2 - 1
            scenes = SceneBatch.of(kind, pose[..., :2], pose[..., 2]).map(lambda part: part.to(setting.device))
            call = partial(drawer.render, scenes)
            yield Workload(f"{name}, {resolution} px", "images/s", batch, call, counted=False)


RATIOS = [
    ("1024 environments, no gradients", "SyncVectorEnv, 64 environments"),
    ("SB3 adapter, 64 environments", "DummyVecEnv, 64 environments"),
    ("SB3 adapter, 1024 environments", "DummyVecEnv, 64 environments"),
]
"""Pairs of benchmarks whose speeds are compared."""

BENCHMARKS: list[Callable[[Setting], Iterator[Workload]]] = [
    training,
    explaining,
    single_environment,
    vector_environment,
    sync_vector_environment,
    stable_baselines,
    rendering,
]
"""A new benchmark is a function that yields workloads, and a line here."""
