"""The commands for using an agent: evaluate, explain, benchmark-speed, summarise."""

import csv
import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from air_agents import AIR, AgentConfig, load_agent, save_agent
from air_agents.commands import benchmark_speed, workloads
from air_agents.commands.evaluate import confusion_grid
from air_agents.commands.summarise import curves
from air_agents.evaluation import photographs
from air_agents.inference.cores import CORES
from air_agents.inference.tabletop3d import TabletopAgent, TabletopAgentConfig
from air_agents.training.recipes import Recipe
from air_agents.training.results import Finished
from air_env import PatchConfig, SceneConfig, SpriteConfig
from air_env.explanation import DrawnExplanation
from air_env.renderers import TabletopConfig
from air_env.scenes import make_scene, picture_files

SIDE = 12


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_agent_file(folder: Path, core: str = "air") -> Path:
    """A tiny agent that always finds two objects, and the recipe that it could have been trained by."""
    scene = SceneConfig(image_size=SIDE, num_steps=2, renderer=PatchConfig(what_dim=4, patch_size=5, hidden=8))
    config = AgentConfig(embedding=8, hidden=8, glimpse_size=5, encoder_hidden=8, core=core)
    options = {"image_size": SIDE, "object_size": (4, 6)}
    recipe = Recipe(
        scene="digits", max_steps=10, scene_options=options, num_train=64, model=scene, agent=config, seed=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agent = AIR(scene, config)
    torch.nn.init.constant_(agent.presence.bias, 10.0)
    save_agent(agent, folder / "agent.safetensors", recipe)
    return folder / "agent.safetensors"


@pytest.fixture
def agent_file(tmp_path) -> Path:
    """A tiny agent that always finds two objects."""
    return make_agent_file(tmp_path)


def save_png(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def square_picture(background: int, foreground: int, shape: tuple[int, int] = (60, 60)) -> np.ndarray:
    """A square of 20 pixels from (10, 5), that is x 10 to 30, y 5 to 25."""
    pixels = np.full(shape, background, np.uint8)
    pixels[5:25, 10:30] = foreground
    return pixels


# evaluate


def test_evaluation_is_flat_json_with_count_accuracy_first(air_env_command, agent_file):
    status, out, _ = air_env_command("evaluate", agent_file, "--num-scenes", 40, "--num-samples", 2, "--json")
    assert status == 0
    metrics = json.loads(out)
    assert next(iter(metrics)) == "count_accuracy"
    assert all(value is None or isinstance(value, int | float | str) for value in metrics.values())
    # An agent that always finds two is right where there are two.
    assert (metrics["confusion_0_2"], metrics["confusion_1_2"], metrics["count_accuracy_2"]) == (1, 1, 1)
    assert 0 < metrics["count_accuracy"] < metrics["count_accuracy_nonempty"] < 1
    assert 0 <= metrics["identity_agreement"] < metrics["identity_agreement_originals"]
    assert (metrics["scene"], metrics["num_scenes"], metrics["seed"]) == ("digits", 40, 4)


def test_evaluation_writes_what_it_prints(air_env_command, agent_file, tmp_path):
    options = ("--num-scenes", 10, "--num-samples", 1, "--counts", 2, "--output-dir", tmp_path / "new" / "folder")
    _, out, _ = air_env_command("evaluate", agent_file, *options)
    metrics = json.loads((tmp_path / "new" / "folder" / "evaluation_digits.json").read_text())
    assert metrics["count_accuracy"] == 1
    assert "count accuracy              1.0000" in out
    assert "         2 |             0.0000  0.0000  1.0000" in out


def test_more_objects_than_may_be_inferred_have_their_line():
    metrics = {"count_accuracy_0": 0.75, "confusion_0_1": 0.25, "count_accuracy_3": 0.0, "confusion_3_0": 0.5}
    _, header, none, three = confusion_grid(metrics | {"confusion_3_1": 0.5})
    assert header.split()[-3:] == ["0", "1", "3"]
    assert (none.split()[2:], three.split()[2:]) == (["0.7500", "0.2500", "0.0000"], ["0.5000", "0.5000", "0.0000"])


def test_undefined_metrics_are_null(air_env_command, agent_file):
    options = ("--num-scenes", 4, "--num-samples", 1, "--counts", 0, "--json")
    _, out, _ = air_env_command("evaluate", agent_file, *options)
    assert json.loads(out)["box_iou"] is None


def test_an_agent_without_recipe_needs_a_scene(air_env_command, agent_file):
    save_agent(load_agent(agent_file), agent_file)
    status, _, err = air_env_command("evaluate", agent_file)
    assert status == 1
    assert "--scene" in err
    options = ("--scene", "digits", "--counts", 0, "--num-scenes", 4, "--num-samples", 1, "--json")
    # The digits of the default scene are larger than the images of this agent.
    status, _, err = air_env_command("evaluate", agent_file, *options)
    assert status == 1
    assert "object_size" in err


def test_evaluation_refuses_what_makes_no_sense(air_env_command, agent_file):
    for arguments, message in [
        (("nowhere",), "there is no agent at nowhere"),
        (("AGENT", "--scene", "nonsense"), "scene 'nonsense' is unknown; choose one of digits"),
        (("AGENT", "--num-scenes", "0"), "--num-scenes must be at least 1"),
        (("AGENT", "--seed", "-1"), "--seed must be at least 0, got -1"),
        (("AGENT", "--device", "nonsense"), "device 'nonsense' cannot be used"),
    ]:
        status, out, err = air_env_command("evaluate", *(agent_file if a == "AGENT" else a for a in arguments))
        assert status == 1
        assert err.startswith("error: ")
        assert message in err
        assert out == ""


# explain


def test_known_shape_lands_where_it_was(tmp_path):
    path = save_png(tmp_path / "square.png", square_picture(0, 255))
    picture = photographs.read_picture(path, 60)
    assert picture.size == (60, 60)
    assert not picture.inverted
    np.testing.assert_array_equal(picture.pixels[0], square_picture(0, 1))


def test_scaling_averages(tmp_path):
    path = save_png(tmp_path / "square.png", square_picture(0, 255))
    pixels = photographs.read_picture(path, SIDE).pixels[0]
    # Every pixel stands for 5x5: the square has 4x4 of them.
    assert pixels.shape == (SIDE, SIDE)
    assert pixels.sum() == pytest.approx(16, rel=0.03)
    assert pixels[2:4, 3:5].min() > 0.95


@pytest.mark.parametrize(("invert", "inverted"), [("auto", True), ("yes", True), ("no", False)])
def test_dark_on_light_is_inverted(tmp_path, invert, inverted):
    path = save_png(tmp_path / "ink.png", square_picture(255, 0))
    picture = photographs.read_picture(path, 60, invert)
    assert picture.inverted is inverted
    if inverted:
        np.testing.assert_array_equal(picture.pixels[0], square_picture(0, 1))


def test_grey_paper_becomes_black(tmp_path):
    path = save_png(tmp_path / "paper.png", square_picture(204, 0))
    np.testing.assert_allclose(photographs.read_picture(path, 60).pixels[0], square_picture(0, 1), atol=1e-6)


def test_the_grain_of_paper_becomes_black(tmp_path):
    noise = np.random.default_rng(0).normal(200, 5, (60, 60))
    noise[5:25, 10:30] = 0
    pixels = photographs.read_picture(save_png(tmp_path / "paper.png", noise.astype(np.uint8)), 60).pixels[0]
    background = pixels[square_picture(1, 0).astype(bool)]
    assert (background == 0).mean() > 0.99
    assert background.max() < 0.05
    np.testing.assert_allclose(pixels[5:25, 10:30], 1)


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_background_is_opposite_to_what_is_drawn(tmp_path, ink):
    rgba = np.stack([*[square_picture(255 - ink, ink)] * 3, square_picture(0, 255)], 2)
    # What a transparent pixel hides must not matter.
    rgba[40:50, :, :3] = 77
    picture = photographs.read_picture(save_png(tmp_path / "transparent.png", rgba), 60)
    np.testing.assert_array_equal(picture.pixels[0], square_picture(0, 1))


def test_every_mode_reads_the_same(tmp_path):
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]:
        if mode == "I;16":
            image = Image.fromarray(square_picture(0, 255).astype(np.uint16) * 257)
        else:
            image = Image.fromarray(square_picture(0, 255)).convert(mode)
        image.save(tmp_path / "picture.png")
        picture = photographs.read_picture(tmp_path / "picture.png", 60)
        np.testing.assert_allclose(picture.pixels[0], square_picture(0, 1), atol=1e-6)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("transparent", [False, True])
def test_colours_are_kept_whatever_the_background(tmp_path, background, transparent):
    green = (20, 200, 60)
    rgba = np.stack([square_picture(background, part) for part in green] + [square_picture(255, 255)], 2)
    if transparent:
        rgba[..., 3] = square_picture(0, 255)
    path = save_png(tmp_path / "green.png", rgba)
    pixels = photographs.read_picture(path, 60, "yes" if background else "no", channels=3).pixels
    assert pixels.shape == (3, 60, 60)
    wanted = np.array(green) / 255
    # Lightness is inverted, hue is not.
    wanted += 1 - wanted.max() - wanted.min() if background else 0
    np.testing.assert_allclose(pixels, wanted[:, None, None] * square_picture(0, 1), atol=1e-6)


def test_solid_objects_keep_their_shades_whatever_the_background(tmp_path):
    image = np.full((40, 40, 3), 200, np.uint8)
    image[10:20, 15:30] = (120, 60, 10)
    image[10:20, 25:30] = (210, 90, 20)
    path = tmp_path / "object.png"
    Image.fromarray(image).save(path)
    picture = photographs.read_picture(path, 40, channels=3, solid=True)
    wanted = np.where((image == 200).all(-1, keepdims=True), 0, image).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(picture.pixels, wanted, atol=1e-6)
    assert not picture.inverted


def test_an_agent_for_colours_gets_colours(air_env_command, tmp_path):
    scene = SceneConfig(image_size=SIDE, num_steps=2, renderer=SpriteConfig())
    config = AgentConfig(embedding=8, hidden=8, glimpse_size=5, encoder_hidden=8)
    agent = AIR(scene, config)
    torch.nn.init.constant_(agent.presence.bias, 10.0)
    save_agent(agent, tmp_path / "agent.safetensors")
    path = save_png(tmp_path / "red.png", np.stack([square_picture(0, value) for value in (240, 60, 50)], 2))
    status, _, _ = air_env_command("explain", tmp_path / "agent.safetensors", path, "--output-dir", tmp_path / "found")
    assert status == 0
    (result,) = json.loads((tmp_path / "found" / "explanations.json").read_text())
    z = agent.explain(photographs.read_picture(path, SIDE, channels=3).pixels[None])
    assert result["count"] == 2
    assert result["z_what"] == z.z_what[0].tolist()
    assert set(result["z_what"]) <= {0, 1, 2}


def test_what_runs_over_the_border_is_not_taken_for_grain():
    picture = np.full((40, 40, 3), 0.6)
    picture += np.random.default_rng(0).normal(0, 0.01, picture.shape)
    picture[15:25] = (0.3, 0.2, 0.1)  # a quarter of the border
    cut = photographs.cut_out(picture, np.ones((40, 40, 1)))
    np.testing.assert_allclose(cut[15:25], picture[15:25])
    assert (cut[:15] > 0).mean() < 0.1


def test_only_the_part_that_is_named_is_looked_at(tmp_path):
    path = save_png(tmp_path / "large.png", np.pad(square_picture(0, 255, (40, 40)), ((7, 3), (11, 9))))
    whole = photographs.read_picture(save_png(tmp_path / "part.png", square_picture(0, 255, (40, 40))), 20)
    part = photographs.read_picture(path, 20, crop=(11, 7, 51, 47))
    np.testing.assert_array_equal(part.pixels, whole.pixels)
    assert part.size == (60, 50)
    box = part.to_file([[0.0, 0, 20, 20]], 20)
    np.testing.assert_array_equal(box, [[11, 7, 51, 47]])
    with pytest.raises(ValueError, match=r"is 60 pixels wide and 50 high, .* \(11, 7, 51, 51\)"):
        photographs.read_picture(path, 20, crop=(11, 7, 51, 51))
    for crop in ((51, 7, 11, 47), (11, 47, 51, 7), (-1, 7, 39, 47), (0, 0, 10**6, 10**6)):
        with pytest.raises(ValueError, match="choose left < right and top < bottom within it"):
            photographs.read_picture(path, 20, crop=crop)


@pytest.mark.parametrize(("left", "top", "scale"), [(0, 0, 4), (37, 90, 4), (20, 5, 7)])
def test_a_table_is_found_in_its_picture(left, top, scale):
    scene = {"renderer": "raycast", "counts": (2,)}
    target = make_scene("tabletop3d", **scene).dataset("test", 1, 1).float_images()
    side = 32 * scale
    table = make_scene("tabletop3d", **scene, image_size=side).dataset("test", 1, 1).float_images()[0]
    picture = np.zeros((side + 100, side + 80, 3), np.float32)
    picture[top : top + side, left : left + side] = table.permute(1, 2, 0)

    class Knows:
        """An agent that draws what there is to see, whatever it is shown."""

        model = SimpleNamespace(image_shape=(3, 32, 32))

        def explain(self, images):
            none = torch.zeros(len(images), 1)
            images = target.expand_as(images)
            boxes = none[..., None].expand(-1, -1, 4)
            return DrawnExplanation(none, none[..., None], none.long(), none, images, boxes, boxes)

    x, y, found = photographs.window_of_table(Knows(), picture)
    assert abs(found - side) <= 0.05 * side
    assert abs(x + found / 2 - left - side / 2) <= 0.03 * side
    assert abs(y + found / 2 - top - side / 2) <= 0.03 * side


def test_an_empty_picture_is_looked_at_as_it_is():
    assert photographs.window_of_table(None, np.zeros((40, 60, 3), np.float32)) == (0, -10, 60)


def test_a_table_is_described_by_kinds_and_camera(air_env_command, tmp_path):
    renderer = TabletopConfig(renderer="raycast", samples=1)
    scene = SceneConfig(image_size=16, num_steps=2, renderer=renderer)
    agent = TabletopAgent(scene, TabletopAgentConfig(channels=4, camera_hidden=8, glimpse_size=4, hidden=8))
    torch.nn.init.constant_(agent.presence.bias, 30.0)
    save_agent(agent, tmp_path / "agent.safetensors")
    images = make_scene("tabletop3d", renderer="raycast", image_size=16).dataset("test", 1).images
    path = tmp_path / "table.png"
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(path)
    arguments = (tmp_path / "agent.safetensors", path, "--output-dir", tmp_path / "found")
    status, out, err = air_env_command("explain", *arguments)
    assert status == 0
    (result,) = json.loads((tmp_path / "found" / "explanations.json").read_text())
    assert result["kinds"] == [("plate", "bowl", "cup")[k] for k in result["z_what"]]
    assert len(result["kinds"]) == 2
    assert all(f"{kind}(" in out for kind in result["kinds"])
    assert len(result["z_scene"]) == 1
    # An untrained agent explains little.
    assert "less than 0.9" in err
    assert "--crop" in err
    status, _, err = air_env_command("explain", *arguments, "--invert", "no")
    assert status == 1
    assert "--invert is not for agents of three-dimensional objects" in err


def test_boxes_map_back_to_the_pixels_of_the_file(tmp_path):
    for shape in [(40, 100), (100, 40), (41, 100), (100, 41)]:
        path = save_png(tmp_path / "wide.png", square_picture(0, 255, shape))
        picture = photographs.read_picture(path, 50)
        assert picture.size == shape[::-1]
        rows, columns = (np.flatnonzero(picture.pixels[0].max(axis) > 0.5) for axis in (1, 0))
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
        found = picture.to_file(box, 50)
        np.testing.assert_allclose(found, [[10, 5, 30, 25]], atol=1)
        back = picture.to_file([[0.0, 0, 50, 50]], 50)[0]
        assert back[2] - back[0] == back[3] - back[1] == 100


def test_exif_orientation_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    lying = np.rot90(square_picture(0, 255, (40, 60)))
    Image.fromarray(lying).save(tmp_path / "photo.jpg", quality=100, exif=exif)
    picture = photographs.read_picture(tmp_path / "photo.jpg", 60)
    assert picture.size == (60, 40)
    expected = np.pad(square_picture(0, 1, (40, 60)), ((10, 10), (0, 0)))
    np.testing.assert_allclose(picture.pixels[0], expected, atol=0.05)


def write_black_png(path: Path, width: int, height: int) -> Path:
    """Writes a picture of one bit a pixel, which is small however many pixels it has."""
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(
    ("size", "remedy"),
    [
        ((1, 60_000), "is 1 x 60000 pixels large, and at most 6,000 a side are looked at; make it smaller, or name a"),
        ((6_001, 2), "is 6001 x 2 pixels large"),
        ((9_460, 9_460), "has more than 89,478,485 pixels; make it smaller"),  # of which Pillow only warns
        ((60_000, 60_000), "has more than 89,478,485 pixels; make it smaller"),
    ],
)
def test_small_files_of_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch, size, remedy):
    path = write_black_png(tmp_path / "bomb.png", *size)
    with monkeypatch.context() as patch:
        patch.setattr(picture_files.ImageOps, "exif_transpose", lambda file: pytest.fail("it was decoded"))
        with pytest.raises(ValueError, match=f"bomb.png {remedy}"):
            photographs.read_picture(path, 50)


def test_a_part_of_a_long_picture_is_looked_at(tmp_path):
    path = write_black_png(tmp_path / "long.png", 50, 20_000)
    assert photographs.read_picture(path, 50, crop=(0, 100, 50, 150)).size == (50, 20_000)
    with pytest.raises(ValueError, match="at most 6,000 a side are looked at"):
        photographs.read_picture(path, 50, crop=(0, 100, 50, 6_101))


def test_bad_files_are_named_and_the_others_are_explained(air_env_command, agent_file, tmp_path):
    good = save_png(tmp_path / "good.png", square_picture(0, 255))
    content = good.read_bytes()
    (tmp_path / "truncated.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "foreign.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    write_black_png(tmp_path / "bomb.png", 1, 60_000)
    names = ("missing", "truncated", "foreign", "folder", "bomb")
    bad = [tmp_path / f"{name}.png" for name in names]
    status, out, err = air_env_command("explain", agent_file, *bad, good, "--output-dir", tmp_path / "found")
    assert status == 1
    for path, words in zip(
        bad,
        ("does not exist", "save or copy it again", "save it as PNG", "cannot be", "name a part of it"),
        strict=True,
    ):
        (line,) = (line for line in err.splitlines() if str(path) in line)
        assert line.startswith("error: ")
        assert words in line
    results = json.loads((tmp_path / "found" / "explanations.json").read_text())
    assert [result["file"] for result in results] == [str(good)]
    assert str(good) in out


def test_explanations_are_the_agents(air_env_command, agent_file, tmp_path):
    wide = square_picture(0, 255, (30, 60))
    paths = [save_png(tmp_path / f"{i}.png", picture) for i, picture in enumerate((wide, square_picture(255, 0)))]
    status, out, _ = air_env_command("explain", agent_file, *paths, "--output-dir", tmp_path / "found")
    assert status == 0
    results = json.loads((tmp_path / "found" / "explanations.json").read_text())
    images = np.stack([photographs.read_picture(path, SIDE).pixels for path in paths])
    z = load_agent(agent_file).explain(images)
    for i, (result, scale, up) in enumerate(zip(results, (5, 5), (15, 0), strict=True)):
        assert result["count"] == z.count[i] == 2
        assert result["count_probability"] > 0.99
        np.testing.assert_allclose(result["z_where"], z.z_where[i], atol=1e-5)
        np.testing.assert_allclose(result["z_what"], z.z_what[i], atol=1e-5)
        np.testing.assert_allclose(result["boxes"], z.boxes(SIDE)[i].numpy() * scale - [0, up, 0, up], atol=0.01)
    assert [result["inverted"] for result in results] == [False, True]
    with Image.open(tmp_path / "found" / "explanations.png") as sheet:
        assert sheet.width > sheet.height
    assert all(str(path) in out for path in paths)


def test_the_explained_share_is_that_of_the_pictures_energy():
    images = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])[:, None, None]
    canvas = torch.tensor([[3.0, 4.0], [0.0, 4.0], [0.0, 0.0], [-9.0, 0.0], [0.0, 0.0]])[:, None, None]
    boxes = torch.zeros(5, 1, 4)
    z = DrawnExplanation(
        torch.zeros(5, 1), torch.zeros(5, 1, 3), torch.zeros(5, 1, 4), torch.zeros(5, 0), canvas, boxes, boxes
    )
    assert photographs.explained_shares(images, z).tolist() == pytest.approx([1, 1 - 9 / 25, 0, 0, 1])


def test_pictures_unlike_the_agents_scenes_are_warned_of(air_env_command, tmp_path):
    scenes = make_scene("digits", counts=(1,)).dataset("test", 1)
    like = save_png(tmp_path / "like.png", scenes.images[0, 0].numpy())
    hairline = np.zeros((60, 60), np.uint8)
    hairline[30, 5:55] = 255
    unlike = save_png(tmp_path / "unlike.png", hairline)
    status, out, err = air_env_command("explain", "digits", like, unlike, "--output-dir", tmp_path)
    assert status == 0
    results = json.loads((tmp_path / "explanations.json").read_text())
    assert results[0]["explained"] > 0.9 > 0.8 > results[1]["explained"]
    assert all(
        f"{result['explained']:.3f}" in line for result, line in zip(results, out.splitlines()[1:], strict=False)
    )
    assert "warning:" in err
    assert str(unlike) in err
    assert str(like) not in err
    assert all(remedy in err for remedy in ("crop", "resize", "thicken"))


def test_the_help_says_what_the_shipped_agent_knows(air_env_command):
    _, out, _ = air_env_command("explain", "--help")
    assert "0 to 2 digits" in " ".join(out.split())


def test_probabilities_of_counts_sum_to_one(agent_file):
    agent = load_agent(agent_file)
    probabilities = agent.count_posterior(torch.rand(3, 1, SIDE, SIDE), 4)
    assert probabilities.shape == (3, 5)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("num_steps", [2, 4])
def test_more_objects_are_found_than_in_training_where_they_are_asked_for(air_env_command, tmp_path, core, num_steps):
    agent, found = make_agent_file(tmp_path, core), tmp_path / "found"
    picture = save_png(tmp_path / "square.png", square_picture(0, 255))
    status, _, _ = air_env_command("explain", agent, picture, "--num-steps", num_steps, "--output-dir", found)
    assert status == 0
    (result,) = json.loads((found / "explanations.json").read_text())
    assert result["count"] == num_steps == len(result["boxes"])
    status, out, _ = air_env_command(
        "evaluate", agent, "--num-steps", num_steps, "--num-scenes", 4, "--num-samples", 1, "--json"
    )
    assert status == 0
    counted_as = {name.rpartition("_")[2] for name in json.loads(out) if name.startswith("confusion")}
    assert counted_as == {str(n) for n in range(num_steps + 1)}


def test_explaining_refuses_what_makes_no_sense(air_env_command, agent_file, tmp_path):
    status, _, err = air_env_command("explain", agent_file, tmp_path / "a.png", "--num-steps", 0)
    assert status == 1
    assert "--num-steps must be at least 1" in err
    status, _, err = air_env_command("explain", "nowhere", tmp_path / "a.png")
    assert status == 1
    assert "there is no agent at nowhere" in err
    status, _, _ = air_env_command("explain", agent_file)
    assert status


def test_an_output_folder_that_cannot_be_made_is_an_error(air_env_command, agent_file, tmp_path):
    good = save_png(tmp_path / "good.png", square_picture(0, 255))
    status, _, err = air_env_command("explain", agent_file, good, "--output-dir", good / "below a file")
    assert status == 1
    assert f"error: could not write {good / 'below a file'}" in err


# benchmark-speed


def test_benchmark_reports_speed_and_share_of_a_matrix_product(air_env_command, tmp_path, monkeypatch):
    monkeypatch.setattr("air_agents.jobs.timing._MATMUL_SIDE", 256)
    options = ("--threads", 1, "--only", "explain", "--seconds", 0.01, "--device", "cpu")
    status, out, _ = air_env_command("benchmark-speed", *options, "--json", "--output-dir", tmp_path / "speed")
    assert status == 0
    report = json.loads(out)
    rows = report["measurements"]
    assert [row["name"] for row in rows] == ["explain, 1 image", "explain, 256 images"]
    for row in rows:
        assert 0 < row["best"] <= row["median"]
        assert row["share"] == pytest.approx(row["rate"] / row["matmul_rate"])
    assert rows[1]["gflop_per_call"] == pytest.approx(256 * rows[0]["gflop_per_call"])
    assert json.loads((tmp_path / "speed" / "speed.json").read_text()) == report
    with (tmp_path / "speed" / "speed.csv").open() as file:
        assert [line["name"] for line in csv.DictReader(file)] == [row["name"] for row in rows]
    slow, fast = (rows[0] | {"name": name} for name in workloads.RATIOS[0][::-1])
    table = benchmark_speed.table(pd.DataFrame([*rows, slow, fast | {"median": 3 * slow["median"]}]))
    assert "explain, 256 images" in table
    assert "take 3.0 times as many steps as SyncVectorEnv" in table


def test_every_workload_runs_and_is_counted():
    decoder, place = 2 * (50 * 200 + 200 * 20 * 20), 2 * (50 * 20 * 20 + 50 * 20 * 50)
    setting = workloads.Setting("cpu", make_scene("digits").dataset("train", 256))
    all_workloads = [workload for function in workloads.BENCHMARKS for workload in function(setting)]
    names = [workload.name for workload in all_workloads]
    assert len(set(names)) == len(names)
    for wanted in ("batch 64", "batch 256", "1 image", "256 images", "64 environments", "1024 environments"):
        assert any(wanted in name for name in names)
    assert any(name.startswith("ray caster, eager") for name in names)
    for workload in all_workloads:
        if not workload.counted:
            continue
        with FlopCounterMode(display=False) as counter:
            workload.call()
        assert counter.get_total_flops() >= 3 * (decoder + place)
        if workload.unit == "steps/s" and "with gradients" not in workload.name:
            assert counter.get_total_flops() == workload.items * (decoder + place)


def test_benchmark_refuses_what_makes_no_sense(air_env_command):
    for option, value, message in [
        ("--only", "nonsense", "no benchmark's name contains 'nonsense'"),
        ("--seconds", 0, "--seconds must be positive"),
        ("--threads", 0, "--threads must be at least 1"),
        ("--device", "nonsense", "device 'nonsense' cannot be used"),
    ]:
        status, _, err = air_env_command("benchmark-speed", option, value)
        assert status == 1
        assert message in err


# summarise


METRICS = {"count_accuracy": 0.9, "count_accuracy_sampled": 0.8, "box_iou": 0.7, "box_iou_tight": 0.6, "elbo": 500.0,
           "iwae": 510.0, "confusion_0_0": 1.0, "iterations": 12, "minutes": 3.25}  # fmt: skip


@pytest.fixture
def make_run(tmp_path, agent_file):
    """Makes what a finished run leaves."""

    def make(name: str, metrics: dict[str, float | None], rows: int = 2) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "agent.safetensors").write_bytes(agent_file.read_bytes())
        (directory / "evaluation.json").write_text(json.dumps(metrics))
        config = {"scene": "digits", "estimator": "half_critic", "seed": 3, "batch_size": 8}
        (directory / "config.json").write_text(json.dumps(config))
        lines = ["iteration,minutes,elbo,count_accuracy,learning_rate"] + ["4,1.5,400,0.5,0.001"] * rows
        if rows:
            (directory / "metrics.csv").write_text("\n".join(lines))
        return directory

    return make


def test_a_page_holds_the_final_figures_of_every_run(air_env_command, make_run, tmp_path):
    undefined = METRICS | {"box_iou": None, "box_iou_tight": None, "count_accuracy": 0.1, "confusion_1_0": 0.5}
    runs = make_run("a", METRICS), make_run("b", undefined, rows=0)
    options = ("--output-dir", tmp_path / "new", "--name", "two.runs", "--note", "On a machine.")
    status, out, _ = air_env_command("summarise", *runs, *options)
    assert status == 0
    page = (tmp_path / "new" / "two.runs.md").read_text()
    assert page.startswith("# two.runs\n\nOn a machine.\n\nMachine of this summary: ")
    # Images and minutes are those of the end, not of the last row.
    for line in (
        "| digits, half_critic | 3 | 96 | 3.2 | 0.9000 | 0.8000 | 0.6000 | 0.7000 | 500.00 | 510.00 |",
        "| digits, half_critic | 3 | 96 | 3.2 | 0.1000 | 0.8000 | - | - | 500.00 | 510.00 |",
        "| **digits, half_critic** | **median** |  |  | 0.5000 | 0.8000 | 0.6000 | 0.7000 | 500.00 | 510.00 |",
        "| **digits, half_critic** | **worst** |  |  | 0.1000 | 0.8000 | 0.6000 | 0.7000 | 500.00 | 510.00 |",
    ):
        assert line in page
        assert line in out
    with (tmp_path / "new" / "two.runs.csv").open() as file:
        header, *lines = csv.reader(file)
    renamed = [name.replace("confusion_0_0", "count_accuracy_0") for name in METRICS]
    assert header == ["run", "seed", *renamed, "images", "confusion_1_0"]
    assert [dict(zip(header, line, strict=True))["box_iou"] for line in lines] == ["0.7", ""]
    with Image.open(tmp_path / "new" / "two.runs.png") as picture:
        assert picture.format == "PNG"
    assert str(tmp_path / "new" / "two.runs.md") in out


def test_a_page_without_runs_is_refused(air_env_command):
    status, _, err = air_env_command("summarise")
    assert (status, err) == (1, "error: no runs are named; name one or more run directories\n")


def test_what_is_not_the_result_of_a_run_is_refused(air_env_command, make_run, tmp_path):
    directory = make_run("a", METRICS)
    for content in ["{", "[1]", "3", '{"count_accuracy": 1.0}']:
        (directory / "evaluation.json").write_text(content)
        status, _, err = air_env_command("summarise", directory, "--output-dir", tmp_path / "new")
        assert status == 1
        assert err.startswith(f"error: the results in {directory} are damaged or not a run's (")
        assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_refused_with_the_remedy(air_env_command, make_run):
    directory = make_run("a", METRICS)
    (directory / "evaluation.json").unlink()
    status, _, err = air_env_command("summarise", directory)
    assert status == 1
    assert err.startswith(f"error: {directory} holds no finished run")
    assert "--resume" in err


def test_a_page_that_cannot_be_written_is_a_clear_error(air_env_command, make_run):
    directory = make_run("a", METRICS)
    status, _, err = air_env_command("summarise", directory, "--output-dir", directory / "metrics.csv")
    assert status == 1
    assert err.startswith("error: could not write ")


def test_returns_in_the_course_of_training_are_shown_under_their_former_name_too():
    config = {"scene": "digits", "algorithm": "ppo", "seed": 0}
    rows = [{"images": images, "count_accuracy": 0.5} for images in (1.0, 2.0)]
    courses = {"return_validation": [3.0, 4.0], "return_test": [5.0, 6.0]}
    runs = [
        Finished(config, {"images": 2.0, "return": 7.0}, [row | {name: y} for row, y in zip(rows, ys, strict=True)])
        for name, ys in courses.items()
    ]
    runs.append(Finished(config, {"images": 2.0, "return": 7.0}, rows))
    _, axes = curves(runs).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[3.0, 4.0], [5.0, 6.0], [7.0]]


def test_agents_of_reinforcement_learning_stand_beside_the_others(air_env_command, make_run, tmp_path):
    ours, theirs = make_run("a", METRICS), make_run("b", METRICS | {"images": 500, "return": 12.34, "elbo": None})
    (theirs / "config.json").write_text('{"scene": "digits", "algorithm": "ppo", "seed": 1}')
    (theirs / "metrics.csv").write_text("steps,images,minutes,return,count_accuracy\n9,7,0.1,-5,0.5\n")
    status, out, _ = air_env_command("summarise", ours, theirs, "--output-dir", tmp_path / "new")
    assert status == 0
    assert "| digits, half_critic | 3 | 96 | 3.2 | 0.9000 | 0.8000 | 0.6000 | 0.7000 | - | 500.00 | 510.00 |" in out
    assert "| digits, ppo | 1 | 500 | 3.2 | 0.9000 | 0.8000 | 0.6000 | 0.7000 | 12.3 | - | 510.00 |" in out
