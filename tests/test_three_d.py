import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import in_turn

from air_env.renderers.backends import KINDS, RaycastRenderer, SceneBatch, render_with_gradient
from air_env.renderers.backends.meshes import mesh_of
from air_env.renderers.backends.raycast import directions

CUBE, SPHERE, CYLINDER = range(3)
RENDERER = RaycastRenderer()


def scenes_of(kind, position=(0.0, 0.0), yaw=0.0):
    return SceneBatch.of(
        torch.tensor([[kind]]),
        torch.tensor([[position]], dtype=torch.float64),
        torch.tensor([[yaw]], dtype=torch.float64),
    )


def mask(images):
    return (images - RENDERER.background).abs().sum(1) > 1e-6


def test_an_absent_object_is_not_seen():
    images = RENDERER.render(scenes_of(-1))
    torch.testing.assert_close(images, torch.full_like(images, RENDERER.background))


@pytest.mark.parametrize("position", [(0.0, 0.0), (0.8, -0.6), (-0.7, 0.9)])
def test_the_silhouette_of_a_sphere_is_that_of_its_cone(position):
    # A ray meets a sphere where its angle to the centre is at most arcsin(radius / distance).
    renderer = RaycastRenderer(resolution=64, samples=1)
    scenes = scenes_of(SPHERE, position)
    dx, dy, dz = directions(scenes.camera, 64, 1, renderer.field_of_view)
    to_centre = torch.tensor([*position, 0.55], dtype=torch.float64) - scenes.camera[0]
    cosine = torch.stack([dx, dy, dz], -1)[0] @ to_centre / to_centre.norm()
    within = cosine > math.sqrt(1 - (0.55 / to_centre.norm()) ** 2)
    assert 50 < within.sum() < 2_000
    assert torch.equal(mask(renderer.render(scenes))[0].flatten(), within)


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_a_turn_by_its_symmetry_changes_nothing(kind):
    symmetry = list(KINDS.values())[kind].yaw_symmetry or 1.0
    images = [RENDERER.render(scenes_of(kind, (0.3, 0.2), yaw)) for yaw in (0.4, 0.4 + symmetry)]
    assert (images[0] - images[1]).abs().mean() < 1e-4


@pytest.mark.parametrize(("kind", "turn"), [(CUBE, math.pi / 4), (CYLINDER, math.pi / 2), (CYLINDER, math.pi)])
def test_any_other_turn_is_seen(kind, turn):
    images = [RENDERER.render(scenes_of(kind, yaw=yaw)) for yaw in (0.0, turn)]
    assert (images[0] - images[1]).square().sum() > 1


def test_the_nearer_object_hides_the_other_whatever_their_order():
    kind = torch.tensor([[CUBE, SPHERE], [SPHERE, CUBE]])
    position = torch.tensor([[[0.0, -0.7], [0.0, 0.7]], [[0.0, 0.7], [0.0, -0.7]]])
    images = RENDERER.render(SceneBatch.of(kind, position, torch.zeros(2, 2)))
    torch.testing.assert_close(images[0], images[1])
    alone = RENDERER.render(SceneBatch.of(kind[:1, :1], position[:1, :1], torch.zeros(1, 1)))
    assert torch.equal(images[0, :, 20], alone[0, :, 20])


def test_scenes_do_not_depend_on_their_batch():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(3, (300, 1), generator=generator)
    scenes = SceneBatch.of(
        kind, torch.randn(300, 1, 2, generator=generator) / 2, torch.randn(300, 1, generator=generator)
    )
    images = RENDERER.render(scenes)
    assert images.shape == (300, 3, 32, 32)
    assert ((images >= 0) & (images <= 1)).all()
    torch.testing.assert_close(RENDERER.render(scenes.map(lambda part: part[290:])), images[290:])
    assert RENDERER.render(scenes.map(lambda part: part[:0])).shape == (0, 3, 32, 32)


def test_a_larger_scale_is_a_larger_object():
    scenes = scenes_of(CUBE)
    sizes = [mask(RENDERER.render(replace(scenes, scale=scenes.scale * scale))).sum() for scale in (0.8, 1.0, 1.2)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_a_face_turned_to_the_light_has_the_brightness_of_the_formula():
    scenes = replace(scenes_of(CUBE), light=torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    renderer = RaycastRenderer(resolution=65, samples=1)
    image = renderer.render(scenes)[0]
    # The pixel in the middle looks at the origin, through the cube's top or front; the brightest is of its top.
    row, column = divmod(int(image[0].sub((image[0] == renderer.background).double()).argmax()), 65)
    dx, dy, dz = (part.view(65, 65)[row, column] for part in directions(scenes.camera, 65, 1, renderer.field_of_view))
    nv, nl = -dz, 1.0
    half = torch.stack([-dx, -dy, 1 - dz])
    vh = torch.stack([-dx, -dy, -dz]) @ half / half.norm()
    fresnel = 0.04 + 0.96 * (1 - vh) ** 5
    geometric = nl / (0.5 * nl + 0.5) * nv / (0.5 * nv + 0.5)
    base = scenes.colour[0, 0]
    light = nl * 3.0 * ((1 - fresnel) * 0.96 * base / math.pi + fresnel * geometric / (math.pi * (4 * nl * nv + 0.001)))
    torch.testing.assert_close(image[:, row, column], (light + 0.35 * base).clamp(0, 1) ** (1 / 2.2))


def test_bad_scenes_are_refused():
    with pytest.raises(ValueError, match=r"wanted -1 \(none\), 0 \(cube\), 1 \(sphere\), .*, 6 \(table\)"):
        scenes_of(7)
    with pytest.raises(ValueError, match="samples must be one of 1, 4"):
        RaycastRenderer(samples=2)
    with pytest.raises(ValueError, match="resolution must be a whole number of at least 1"):
        RaycastRenderer(resolution=0)


class Blobs:
    """A smooth renderer of which the derivative is known: a Gaussian bump for each object, its colours by the turn."""

    def __init__(self):
        self.calls = 0

    def render(self, scenes):
        self.calls += 1
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, 8, dtype=torch.float64)] * 2, indexing="ij")
        place = scenes.position[..., None, None]
        bumps = torch.exp(-((x - place[:, :, 0]) ** 2) - (y - place[:, :, 1]) ** 2)
        colours = torch.stack([scenes.yaw.sin(), scenes.yaw.cos(), 0.5 * scenes.yaw], -1)
        return torch.einsum("bkc,bkhw->bchw", colours, bumps)


def parameters(batch=3, objects=2):
    generator = torch.Generator().manual_seed(1)
    sizes = (2 * objects, objects)
    return [torch.randn(batch, n, generator=generator, dtype=torch.float64).requires_grad_() for n in sizes]


def scenes_at(position, yaw):
    kind = torch.zeros(yaw.shape, dtype=torch.long)
    return SceneBatch.of(kind, position.unflatten(1, (-1, 2)), yaw)


def test_finite_differences_are_the_derivative_of_a_smooth_renderer():
    poses, renderer = parameters(), Blobs()
    weights = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = torch.autograd.grad((renderer.render(scenes_at(*poses)) * weights).sum(), poses)
    renderer.calls = 0
    images = render_with_gradient(renderer, scenes_at, poses, [1e-4, 1e-4])
    found = torch.autograd.grad((images * weights).sum(), poses)
    assert renderer.calls == 1
    torch.testing.assert_close(images, renderer.render(scenes_at(*poses)))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_what_needs_no_gradient_is_not_perturbed():
    class Counting(Blobs):
        def render(self, scenes):
            self.scenes = len(scenes)
            return super().render(scenes)

    (position, yaw), renderer = parameters(), Counting()
    images = render_with_gradient(renderer, scenes_at, [position, yaw.detach()], [0.1, 0.1])
    assert renderer.scenes == 3 * (1 + 2 * 2 * 2)
    images.sum().backward()
    assert position.grad is not None
    assert yaw.grad is None
    assert not render_with_gradient(renderer, scenes_at, [position.detach(), yaw.detach()], [0.1, 0.1]).requires_grad
    assert renderer.scenes == 3
    with torch.no_grad():
        render_with_gradient(renderer, scenes_at, [position, yaw], [0.1, 0.1])
    assert renderer.scenes == 3


@pytest.mark.parametrize("kind", [CUBE, SPHERE, CYLINDER])
def test_descent_through_the_ray_caster_finds_an_object(kind):
    target = RENDERER.render(scenes_of(kind, (0.2, -0.1), 0.3))
    position = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    yaw = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)

    def scenes(position, yaw):
        return SceneBatch.of(torch.full_like(yaw, kind, dtype=torch.long), position[:, None], yaw)

    optimizer = torch.optim.Adam([position, yaw], lr=0.03)
    for _ in range(60):
        images = render_with_gradient(RENDERER, scenes, [position, yaw], [0.1, 0.1])
        optimizer.zero_grad()
        (images - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(position.detach()[0], torch.tensor([0.2, -0.1], dtype=torch.float64), atol=0.03, rtol=0)
    if kind != SPHERE:
        assert abs(yaw.item() - 0.3) < 0.1


@in_turn("step", [(0.0,), (-1.0,), (math.nan,)])
def test_steps_must_be_positive(step):
    with pytest.raises(ValueError, match="must be positive"):
        render_with_gradient(RENDERER, scenes_at, parameters(), [0.1, step])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_meshes_are_closed_surfaces_of_the_kinds(kind):
    mesh = mesh_of(kind)
    corners = mesh.positions.astype(float)[mesh.triangles]
    # The divergence theorem: tetrahedra to the origin, with sign, fill what is inside.
    volume = np.einsum("ti,ti->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = mesh.normals[mesh.triangles].mean(1)
    assert (np.einsum("ti,ti->t", faces, normals) >= -1e-9).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, rtol=1e-6)
    if kind.half_width:
        wanted = (2 * kind.half_width) ** 2 * kind.height
    else:
        z = np.linspace(0, kind.height, 2_001)
        wanted = math.pi * np.trapezoid([kind.radius_at(height) ** 2 for height in z], z)
    assert volume == pytest.approx(wanted, rel=0.01)


def test_texture_runs_from_end_to_end():
    brightness = [mesh_of(kind).brightness for kind in KINDS.values()]
    assert all((values.min(), values.max()) == (1, 1) for k, values in enumerate(brightness) if k != CYLINDER)
    np.testing.assert_allclose((brightness[CYLINDER].min(), brightness[CYLINDER].max()), (0.2, 1.0), rtol=1e-5)


def test_the_compiled_kernel_draws_the_same_images():
    # In a process of its own: there, annotations are not checked, which compilers do not understand.
    program = """
import torch
from air_env.renderers.backends import RaycastRenderer, SceneBatch
from air_env.renderers.backends.raycast import _compiled_cast
generator = torch.Generator().manual_seed(0)
kind = torch.randint(-1, 3, (70, 2), generator=generator)
scenes = SceneBatch.of(kind, torch.randn(70, 2, 2, generator=generator), torch.randn(70, 2, generator=generator))
images = [RaycastRenderer(samples=1, compiled=compiled).render(scenes) for compiled in (False, True)]
assert images[0].shape == (70, 3, 32, 32)
torch.testing.assert_close(*images, atol=1e-3, rtol=0)
print("compiled" if _compiled_cast('cpu') else "not compiled")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "not compiled" in done.stdout:
        pytest.skip(f"there is no compiler: {done.stderr}")
