"""Notebooks show explanations, scenes, environments and agents as pictures, and `plot` draws them."""

import re
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from air_agents import load_agent
from air_env import AIRSceneEnv, Explanation, World
from air_env.frames import COLOURS
from air_env.pictured import GAP, SCALE, SHOWN, Pictured
from air_env.scenes import make_scene

SIDE = 50
TILE = SCALE * SIDE + GAP


def picture_of(shown: Pictured) -> np.ndarray:
    """What a notebook shows; it is also what `plot` draws."""
    content = shown._repr_png_()
    assert content is not None
    with Image.open(BytesIO(content)) as opened:
        picture = np.asarray(opened)
    axes = shown.plot(Figure().add_subplot())
    np.testing.assert_array_equal(axes.images[0].get_array(), picture)
    return picture


def windows_in(picture: np.ndarray) -> int:
    """Colours of windows that are seen; the last is grey, as pixels are, too."""
    return sum(bool((picture == colour).all(-1).any()) for colour in COLOURS[:-1])


@pytest.fixture(scope="module")
def agent():
    return load_agent("digits")


@pytest.fixture(scope="module")
def scenes():
    return make_scene("digits").dataset("test", SHOWN + 2)


def test_scenes_show_the_first_images_with_their_boxes(scenes):
    picture = picture_of(scenes)
    assert picture.shape == (SCALE * SIDE, SHOWN * TILE, 3)
    assert windows_in(picture) == scenes.count[:SHOWN].max()
    # Without boxes, it is the images.
    first = scenes[scenes.count == 0][:1]
    tile = picture_of(first)[::SCALE, : SCALE * SIDE : SCALE, 0]
    np.testing.assert_array_equal(tile, first.images[0, 0])


@pytest.mark.parametrize("scene", [make_scene("sprites"), make_scene("tabletop3d", renderer="raycast")])
def test_scenes_that_are_not_drawn_yet_show_validation_images(scene):
    np.testing.assert_array_equal(picture_of(scene), picture_of(scene.dataset("validation", SHOWN)))


def test_explanations_show_reconstructions_with_windows_and_latents(agent, scenes):
    z = agent.explain(scenes.images)
    picture = picture_of(z)
    assert picture.shape == (SCALE * SIDE, SHOWN * TILE, 3)
    assert windows_in(picture) == z.count[:SHOWN].max()
    html = z._repr_html_()
    assert html.startswith('<img src="data:image/png;base64,')
    rows = re.findall("<tr><td>.*</tr>", html)
    assert len(rows) == z.count[:SHOWN].sum()
    image = int(z.count.argmax())
    (row,) = (row for row in rows if row.startswith(f"<tr><td>{image}</td><td>2 of {z.count[image]}</td>"))
    assert f"<td>{z.z_where[image, 1, 0]:.2f}, " in row
    assert row.endswith(", ...</td></tr>"), "codes are long"
    latents = Explanation(z.z_pres, z.z_where, z.z_what, z.z_scene)
    assert latents._repr_html_() == html.partition("\n")[2]
    categories = Explanation.of_objects(z.z_pres, z.z_where, torch.full(z.z_pres.shape, 7))
    assert "<td>7</td></tr>" in categories._repr_html_()


def test_agents_show_what_they_make_of_scenes_of_their_own_model(agent):
    before = torch.get_rng_state()
    picture = picture_of(agent)
    assert picture.shape == (2 * (SCALE * SIDE + GAP), SHOWN * TILE, 3)
    assert 0 < windows_in(picture) <= agent.model.config.num_steps
    np.testing.assert_array_equal(picture, picture_of(agent))
    assert torch.equal(torch.get_rng_state(), before)


def test_environments_show_their_frame_whatever_the_render_mode(agent, scenes):
    world = World(agent.model, scenes)
    env, rendering = AIRSceneEnv(world=world), AIRSceneEnv(world=world, render_mode="rgb_array")
    assert env._repr_png_() is None, "nothing has begun"
    for each in (env, rendering):
        each.reset(options={"scene": 1})
        each.action_space.seed(0)
        each.step(each.action_space.sample() | {"z_pres": 1})
    np.testing.assert_array_equal(picture_of(env), rendering.render())


def test_plot_draws_on_the_current_axes(scenes):
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, axes = plt.subplots()
    try:
        assert scenes.plot() is axes
    finally:
        plt.close(figure)


def test_matplotlib_is_imported_only_for_plots():
    code = """if True:
        import sys
        import air_env
        air_env.AIRSceneEnv(scene="sprites", num_scenes=2)._repr_png_()
        assert "matplotlib.pyplot" not in sys.modules
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
