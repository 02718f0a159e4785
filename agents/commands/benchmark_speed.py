"""How fast training, explanation, the environments and the 3D renderers are, and how far from what the machine can do.

    python scripts/benchmark_speed.py
    python scripts/benchmark_speed.py --threads 1 --only training --seconds 5

Beside each speed stands the floating-point rate it reaches: the operations of one call (matrix products and
convolutions, forward and backward, as `torch.utils.flop_counter` counts them) over its time, as a share of the rate of
a 2048x2048 float32 matrix product. That product is timed before, between and after the repeats of each measurement, on
the same threads. `median` is over the repeats, `best` the fastest; where they are far apart, the machine was busy with
something else.
"""

import csv
import io
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from air_env import AIRSceneEnv, AIRSceneVectorEnv, SceneConfig, SceneModel, World
from air_env.renderers.backends import (
    KINDS,
    Backend,
    PyrenderRenderer,
    RaycastRenderer,
    SceneBatch,
    why_no_opengl,
)
from air_env.scenes import SceneDataset, make_scene

from .. import AIR, AgentConfig
from ..jobs.devices import pick_device
from ..jobs.timing import Measurement, Workload, measure
from ..training.checkpoints import write_text_atomically
from ..training.recipes import get_recipe
from ..training.trainer import Trainer

_NUM_SCENES = 2_000


@dataclass(frozen=True)
class Arguments:
    """Measures the speed of training, explanation, the environments and the renderers of 3D scenes."""

    threads: tuple[int, ...] = ()
    """Numbers of CPU threads; default: 1 and all cores."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    seconds: float = 2.0
    """Time spent on each measurement, not counting the matrix products and the warm-up."""
    only: str = ""
    """Leaves out benchmarks whose name does not contain this."""
    json: bool = False
    """Prints one JSON object instead of the table."""
    output_dir: Path | None = None
    """Folder to write speed.json and speed.csv to; default: writes nothing."""


@dataclass(frozen=True)
class Setting:
    """What all benchmarks share: the device, and a pool of scenes that needs no download."""

    device: str
    scenes: SceneDataset


def training(setting: Setting) -> Iterator[Workload]:
    """Whole training iterations: rollout, rewards, estimator, backward, Adam."""
    for estimator, batch_size in itertools.product(("half_critic", "exact"), (64, 256)):
        recipe = replace(get_recipe("multi_mnist"), estimator=estimator, batch_size=batch_size)
        trainer = Trainer(recipe, setting.scenes, setting.device)
        yield Workload(f"training {estimator}, batch {batch_size}", "images/s", batch_size, trainer.step)


def explaining(setting: Setting) -> Iterator[Workload]:
    """`AIR.explain` of images in which it finds as many objects as it may, which takes longest."""
    agent = AIR(SceneConfig(), AgentConfig()).to(setting.device).eval()
    torch.nn.init.constant_(agent.presence.bias, 10.0)
    for num_images in (1, 256):
        images = setting.scenes.images[:num_images]
        name = f"explain, {num_images} image{'s' * (num_images > 1)}"
        yield Workload(name, "ms", num_images, lambda images=images: agent.explain(images))


def single_environment(setting: Setting) -> Iterator[Workload]:
    """Whole episodes of `AIRSceneEnv`, resets included: numpy in and out."""
    model = SceneModel(SceneConfig()).to(setting.device)
    env = AIRSceneEnv(world=World(model, setting.scenes))
    env.reset(seed=0)
    *latents, num_steps = (*_latents(model, 1), model.config.num_steps)
    z_where, z_what = (part[0, 0].numpy() for part in latents)
    action = {"z_pres": np.int64(1), "z_where": z_where, "z_what": z_what}

    def episode() -> None:
        env.reset()
        for _ in range(num_steps):
            env.step(action)

    yield Workload("environment", "steps/s", num_steps, episode)


def vector_environment(setting: Setting) -> Iterator[Workload]:
    """Whole episodes of `AIRSceneVectorEnv`, resets included; with gradients also their backward pass."""
    for num_envs, grad_enabled in itertools.product((64, 1024), (False, True)):
        model = SceneModel(SceneConfig()).to(setting.device)
        envs = AIRSceneVectorEnv(num_envs, grad_enabled=grad_enabled, world=World(model, setting.scenes))
        envs.reset(seed=0)
        plan = [part.to(setting.device).requires_grad_(grad_enabled) for part in _latents(model, num_envs)]
        kind = "with gradients" if grad_enabled else "no gradients"
        name = f"{num_envs} environments, {kind}"
        steps = num_envs * model.config.num_steps
        yield Workload(name, "steps/s", steps, lambda envs=envs, plan=plan: _episodes(envs, *plan))


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
    make = partial(gymnasium.make, "AIRScene-v0", world=world, disable_env_checker=True)
    envs = gymnasium.vector.SyncVectorEnv([make] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    z_where, z_what = (part[:, 0].numpy(force=True) for part in _latents(model, num_envs))
    action = {"z_pres": np.ones(num_envs, np.int64), "z_where": z_where, "z_what": z_what}
    yield Workload(SYNC_VECTOR_ENV, "steps/s", num_envs, lambda: envs.step(action))


def stable_baselines(setting: Setting) -> Iterator[Workload]:
    """What Stable-Baselines3 makes of 64 single environments, and the adapter; left out where it is not installed."""
    try:
        from stable_baselines3.common.vec_env import DummyVecEnv

        from ..sb3 import AIRSceneVecEnv
    except ModuleNotFoundError:
        return
    world = World(SceneModel(SceneConfig()).to(setting.device), setting.scenes)
    make = partial(gymnasium.make, "AIRSceneFlat-v0", world=world, disable_env_checker=True)
    all_envs = {
        DUMMY_VEC_ENV: lambda: DummyVecEnv([make] * 64),
        ADAPTER.format(64): lambda: AIRSceneVecEnv(64, world=world),
        ADAPTER.format(1024): lambda: AIRSceneVecEnv(1024, world=world),
    }
    for name, make_envs in all_envs.items():
        envs = make_envs()
        envs.reset()
        action = np.full((envs.num_envs, *envs.action_space.shape), 0.1, np.float32)
        yield Workload(name, "steps/s", envs.num_envs, lambda envs=envs, action=action: envs.step(action))


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


SYNC_VECTOR_ENV, VECTOR_ENV = "SyncVectorEnv, 64 environments", "1024 environments, no gradients"
DUMMY_VEC_ENV, ADAPTER = "DummyVecEnv, 64 environments", "SB3 adapter, {} environments"
RATIOS = [(VECTOR_ENV, SYNC_VECTOR_ENV), (ADAPTER.format(64), DUMMY_VEC_ENV), (ADAPTER.format(1024), DUMMY_VEC_ENV)]
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


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        report = benchmark(arguments)
        print(json.dumps(report, indent=2) if arguments.json else table(report))
        if arguments.output_dir is not None:
            write_text_atomically(arguments.output_dir / "speed.json", json.dumps(report, indent=2) + "\n")
            write_text_atomically(arguments.output_dir / "speed.csv", as_csv(report))
            print(f"\nwrote speed.json and speed.csv to {arguments.output_dir}", file=sys.stderr)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def benchmark(arguments: Arguments) -> dict[str, Any]:
    """The machine, and the measurements for every number of threads."""
    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be positive, got {arguments.seconds}")
    if any(threads < 1 for threads in arguments.threads):
        raise ValueError(f"--threads must be at least 1, got {arguments.threads}")
    device = pick_device(arguments.device)
    setting = Setting(device, make_scene("digits").dataset("train", _NUM_SCENES))
    measurements = []
    before = torch.get_num_threads()
    try:
        for threads in arguments.threads or default_threads(device):
            torch.set_num_threads(threads)
            workloads = [w for function in BENCHMARKS for w in function(setting) if arguments.only in w.name]
            if not workloads:
                raise ValueError(
                    f"no benchmark's name contains {arguments.only!r}; try training, explain, environment, pyrender"
                )
            for workload in tqdm(workloads, f"threads: {threads}", dynamic_ncols=True, leave=False):
                measurements.append(asdict(measure(workload, threads, device, arguments.seconds)))
    finally:
        torch.set_num_threads(before)
    return machine(device) | {"measurements": measurements}


def default_threads(device: str) -> list[int]:
    """1 and all cores; all cores where a GPU does the work."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, cores}) if torch.device(device).type == "cpu" else [cores]


def machine(device: str) -> dict[str, Any]:
    """What the measurements were made on."""
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "device": gpu or f"{device}, {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average": load,
        "torch": torch.__version__,
    }


def table(report: dict[str, Any]) -> str:
    """The measurements, for people."""
    lines = [
        f"{report['device']}, {report['cores']} cores, torch {report['torch']}, load average {report['load_average']}",
        "",
        f"{'':47s}{'':>12s}{'':>12s}{'':10s}{'GFLOP/s':>9s}{'matmul':>9s}{'share of matmul':>17s}",
        f"{'threads':9s}{'benchmark':38s}{'median':>12s}{'best':>12s}{'':10s}{'median':>9s}{'median':>9s}"
        f"{'median':>9s}{'best':>8s}",
    ]
    for row in (Measurement(**values) for values in report["measurements"]):
        digits = 2 if row.unit == "ms" else 0
        lines.append(
            f"{row.threads:<9d}{row.name:38s}{row.median:12,.{digits}f}{row.best:12,.{digits}f} {row.unit:9s}"
            f"{row.rate:9.1f}{row.matmul_rate:9.1f}{row.share:9.2f}{row.share_best:8.2f}"
        )
    return "\n".join([*lines, "", *ratios(report)])


def ratios(report: dict[str, Any]) -> list[str]:
    """How many times as fast one benchmark is as another, where both were measured."""
    medians = {(row["threads"], row["name"]): row["median"] for row in report["measurements"]}
    return [
        f"threads {threads}: {fast} take {median / medians[threads, slow]:.1f} times as many steps as {slow}"
        for (threads, name), median in medians.items()
        for fast, slow in RATIOS
        if name == fast and (threads, slow) in medians
    ]


def as_csv(report: dict[str, Any]) -> str:
    """The measurements as comma-separated values."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, [field.name for field in fields(Measurement)])
    writer.writeheader()
    writer.writerows(report["measurements"])
    return file.getvalue()
