"""pyrender beside the ray caster, and OpenGL in threads, forks and environments."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from air_agents.inference.objects3d import InverseGraphicsConfig
from air_agents.training.recipes import RECIPES
from air_agents.training.trainer import Trainer
from air_env.model import SceneConfig
from air_env.renderers import ObjectsConfig
from air_env.renderers.backends import (
    KINDS,
    OpenGLError,
    PyrenderRenderer,
    RaycastRenderer,
    SceneBatch,
    opengl,
    opengl_process,
    render_with_gradient,
    why_no_opengl,
)
from air_env.scenes import make_scene

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


def process_id():
    """Of the process that draws and waits."""
    return opengl._idle[0]._program.pid


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_worker_processes_render(method):
    scenes = random_scenes(3)
    wanted, before = PyrenderRenderer().render(scenes), process_id()
    # Another thread draws at the moment of the fork.
    with ThreadPoolExecutor(1) as pool, opengl._lock:
        rendered = pool.submit(PyrenderRenderer().render, scenes)
        context = multiprocessing.get_context(method)
        parent, child = context.Pipe()
        worker = context.Process(target=_render_into, args=(child, scenes))
        worker.start()
        assert parent.poll(60)
    assert torch.equal(torch.tensor(parent.recv()), wanted)
    worker.join()
    assert worker.exitcode == 0
    assert torch.equal(rendered.result(), wanted)
    assert process_id() == before


def _render_into(pipe, scenes):
    pipe.send(PyrenderRenderer().render(scenes).tolist())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("message", ["send", "receive"])
def test_an_interrupted_render_leaves_no_answer_behind(monkeypatch, message, exception):
    scenes = random_scenes(8)
    wanted = PyrenderRenderer().render(scenes)

    def interrupt(stream, *request):
        if message == "send":
            stream.write(b"{")
        raise exception

    with monkeypatch.context() as patch:
        patch.setattr(opengl_process, message, interrupt)
        with pytest.raises(exception):
            PyrenderRenderer().render(scenes[:4])
    assert torch.equal(PyrenderRenderer().render(scenes), wanted)


def test_a_signal_handler_may_render_while_its_thread_renders(monkeypatch):
    scenes = [random_scenes(4, seed=seed) for seed in range(2)]
    wanted = [PyrenderRenderer().render(batch) for batch in scenes]
    receive, inner = opengl_process.receive, []

    def receive_later(stream):
        monkeypatch.undo()
        inner.append(PyrenderRenderer().render(scenes[1]))
        return receive(stream)

    monkeypatch.setattr(opengl_process, "receive", receive_later)
    assert torch.equal(PyrenderRenderer().render(scenes[0]), wanted[0])
    assert torch.equal(inner[0], wanted[1])


def test_a_process_that_is_killed_is_replaced():
    scenes = random_scenes(2)
    wanted = PyrenderRenderer().render(scenes)
    os.kill(process_id(), signal.SIGKILL)
    assert torch.equal(PyrenderRenderer().render(scenes), wanted)


def test_training_goes_on_where_the_process_is_killed():
    scenes = make_scene("objects3d", renderer="pyrender", image_size=16).dataset("train", 20)
    recipe = replace(
        RECIPES.find("objects3d"),
        batch_size=4,
        model=SceneConfig(image_size=16, num_steps=1, renderer=ObjectsConfig(renderer="pyrender")),
        agent=InverseGraphicsConfig(channels=4, glimpse_size=6, hidden=8),
    )
    quiet, disturbed = Trainer(recipe, scenes), Trainer(recipe, scenes)
    elbos = [quiet.step() for _ in range(3)]
    for elbo in elbos:
        os.kill(process_id(), signal.SIGKILL)
        assert torch.equal(disturbed.step(), elbo)


@pytest.mark.parametrize(
    ("program", "remedy"),
    [
        ("os._exit(3)", "exit code 3.*apt install"),
        ("send(answers, {'error': 'no EGL'})", "no EGL.*apt install"),
        ("send(answers, {'error': None}); os._exit(4)", "exit code 4.*free memory.*'raycast'"),
    ],
)
def test_errors_say_what_helps(monkeypatch, tmp_path, program, remedy):
    heading = f"""
import os, sys
sys.path.append({os.path.dirname(opengl_process.__file__)!r})
from opengl_process import *
requests, answers = FileIO(0), FileIO(1, "w")
receive(requests)
"""
    (tmp_path / "program.py").write_text(heading + program)
    opengl._idle.clear()
    with monkeypatch.context() as patch:
        patch.setattr(opengl_process, "__file__", str(tmp_path / "program.py"))
        with pytest.raises(OpenGLError, match=remedy):
            PyrenderRenderer().render(random_scenes(1))
    assert why_no_opengl() is None


def test_ctrl_c_is_not_for_the_process_that_draws():
    assert os.getpgid(process_id()) != os.getpgid(0)


def test_what_libraries_say_is_no_answer_where_errors_go_nowhere(monkeypatch):
    scenes = random_scenes(2)
    wanted = PyrenderRenderer().render(scenes)
    monkeypatch.setenv("EGL_LOG_LEVEL", "debug")
    opengl._idle.clear()
    errors = os.dup(2)
    os.close(2)
    try:
        assert torch.equal(PyrenderRenderer().render(scenes), wanted)
    finally:
        os.dup2(errors, 2)
        os.close(errors)
        opengl._idle.clear()


def test_many_renders_do_not_grow():
    renderer, scenes = PyrenderRenderer(tiled=False), random_scenes(50)
    for _ in range(10):
        renderer.render(scenes)
    before = _memory()
    for _ in range(40):
        renderer.render(scenes)
    assert _memory() - before < 8


def _memory():
    """Of the process that draws, in MB."""
    with open(f"/proc/{process_id()}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
