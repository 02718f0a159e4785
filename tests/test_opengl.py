"""pyrender beside the ray caster, and OpenGL in threads, forks and environments."""

import multiprocessing
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from air_env.renderers.backends import (
    KINDS,
    OpenGLError,
    PyrenderRenderer,
    RaycastRenderer,
    SceneBatch,
    opengl,
    render_with_gradient,
)

pytestmark = pytest.mark.opengl


def random_scenes(batch, objects=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(-1, len(KINDS), (batch, objects), generator=generator)
    # Side by side: where surfaces cut each other, pixels depend on rounding.
    position = torch.rand(batch, objects, 2, generator=generator) - 0.5
    position[..., 0] = position[..., 0] + 1.6 * (torch.arange(objects) - (objects - 1) / 2)
    scenes = SceneBatch.of(kind, position, 6.28 * torch.rand(batch, objects, generator=generator))
    colour = torch.rand(scenes.colour.shape, generator=generator)
    scale = 0.7 + 0.4 * torch.rand(scenes.scale.shape, generator=generator)
    camera = scenes.camera + torch.randn(scenes.camera.shape, generator=generator) / 2
    light = torch.nn.functional.normalize(
        scenes.light + torch.randn(scenes.light.shape, generator=generator) / 3, dim=1
    )
    return replace(scenes, colour=colour, scale=scale, camera=camera, light=light)


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("tiled", [False, True])
def test_pyrender_and_the_ray_caster_draw_the_same_images(resolution, tiled):
    scenes = random_scenes(60, objects=2)
    views = {"resolution": resolution, "background": 0.4, "light": 2.5, "ambient": 0.2}
    images = PyrenderRenderer(tiled=tiled, **views).render(scenes)
    error = (images - RaycastRenderer(**views).render(scenes)).abs() * 255
    assert images.std() > 0.05
    assert error.mean() < 0.5
    assert (error > 4).float().mean() < 0.01


def test_tiles_are_what_single_renders_are():
    scenes = random_scenes(40, objects=2, seed=1)
    single, tiled = (PyrenderRenderer(tiled=tiled).render(scenes) for tiled in (False, True))
    # But for pixels at the rim of a shape, where the corners of triangles are rounded.
    different = (single - tiled).abs() > 1.01 / 255
    assert different.float().mean() < 1e-3


def test_tiles_do_not_draw_into_each_other():
    scenes = random_scenes(9)
    wide = replace(scenes, scale=scenes.scale * 3)
    renderer = PyrenderRenderer()
    images = renderer.render(wide)
    for i in range(9):
        alone = renderer.render(wide[i : i + 1])[0]
        assert ((images[i] - alone).abs() > 1.01 / 255).float().mean() < 2e-3


def test_more_scenes_than_a_viewport_holds():
    scenes = random_scenes(70)
    renderer = PyrenderRenderer(resolution=128)
    torch.testing.assert_close(renderer.render(scenes)[64:], renderer.render(scenes[64:]))
    assert renderer.render(scenes[:0]).shape == (0, 3, 128, 128)


def test_finite_differences_go_through_pyrender():
    position, grads = torch.zeros(1, 2, requires_grad=True), []

    def scenes(position):
        return SceneBatch.of(torch.zeros(len(position), 1).long(), position[:, None], torch.zeros(len(position), 1))

    for renderer in (PyrenderRenderer(), RaycastRenderer()):
        images = render_with_gradient(renderer, scenes, [position], [0.15])
        grads.append(torch.autograd.grad((images * torch.linspace(0, 1, 32)).sum(), position)[0])
    torch.testing.assert_close(grads[0], grads[1], atol=0.05 * grads[1].abs().max().item(), rtol=0.05)


def test_threads_share_a_renderer():
    scenes = [random_scenes(20, seed=seed) for seed in range(4)]
    wanted = [PyrenderRenderer().render(batch) for batch in scenes]
    found = {}

    def work(i):
        for _ in range(5):
            found[i] = PyrenderRenderer().render(scenes[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], wanted[i]) for i in range(4))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_worker_processes_render(method):
    scenes = random_scenes(3)
    wanted = PyrenderRenderer().render(scenes)
    context = multiprocessing.get_context(method)
    parent, child = context.Pipe()
    worker = context.Process(target=_render_into, args=(child, scenes))
    worker.start()
    assert parent.poll(60)
    assert torch.equal(torch.tensor(parent.recv()), wanted)
    worker.join()
    assert worker.exitcode == 0
    assert torch.equal(PyrenderRenderer().render(scenes), wanted)


def _render_into(pipe, scenes):
    pipe.send(PyrenderRenderer().render(scenes).tolist())


def test_a_process_that_dies_is_reported_and_replaced():
    scenes = random_scenes(2)
    wanted = PyrenderRenderer().render(scenes)
    os.kill(opengl._process(os.getpid())._process.pid, signal.SIGKILL)
    with pytest.raises(OpenGLError, match="ended"):
        PyrenderRenderer().render(scenes)
    assert torch.equal(PyrenderRenderer().render(scenes), wanted)


def test_many_renders_do_not_grow():
    renderer, scenes = PyrenderRenderer(tiled=False), random_scenes(50)
    for _ in range(20):
        renderer.render(scenes)
    before = _memory()
    for _ in range(100):
        renderer.render(scenes)
    assert _memory() - before < 20


def _memory():
    """Of the process that draws, in MB."""
    pid = opengl._process(os.getpid())._process.pid
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
