"""People's own pictures: read alike whatever their kind, split by file, without truth; and what is found in them."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import FEW, RECIPE, SIDE, assert_equal, make_agent

from air_agents import load_agent
from air_agents.commands.trained import treatment_of_trained
from air_agents.evaluation.metrics import accuracies, compare, count_accuracy, evaluate
from air_agents.evaluation.photographs import read_picture
from air_agents.training.checkpoints import scene_of
from air_agents.training.run import TrainingRun
from air_env.explanation import DrawnExplanation
from air_env.findings import View
from air_env.scenes import ImageScene, SceneDataset, Treatment, make_scene
from air_env.scenes.picture_files import colour_and_alpha, find_pictures, to_array
from air_env.scenes.treatment import fit_background
from air_env.testing import check_scene

LEVELS = {"background": "keep", "invert": False, "levels": (0.0, 1.0)}
"""Pictures as they are."""


def disks(num: int, seed: int = 0, side: int = 48, radius: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Bright disks that lie apart, on a noisy slope, and how many there are."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:side, :side] + 0.5
    images = 40 + 30 * x / side + rng.normal(0, 3, (num, side, side))
    counts = rng.integers(0, 4, num)
    for image, count in zip(images, counts, strict=True):
        for cell in rng.permutation(9)[:count]:
            centre = np.array(divmod(cell, 3)) * side / 3 + side / 6 + rng.uniform(-1, 1, 2)
            image += 120 * np.clip(radius + 0.5 - np.hypot(y - centre[0], x - centre[1]), 0, 1)
    return images.clip(0, 255).round().astype(np.uint8), counts


def write(folder: Path, pictures) -> Path:
    folder.mkdir(exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(np.asarray(picture)).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("pictures"), disks(30)[0])


# reading


def test_pictures_of_every_kind_are_read_alike(tmp_path):
    grey = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
    rgb, opaque = np.stack([grey] * 3, -1), np.full_like(grey, 255)
    rgba, la = np.dstack([rgb, opaque]), np.dstack([grey, opaque])
    kinds = {
        "grey.png": Image.fromarray(grey),
        "grey.tif": Image.fromarray(grey),
        "rgb.png": Image.fromarray(rgb),
        "rgb.tiff": Image.fromarray(rgb),
        "rgba.png": Image.fromarray(rgba),
        "la.png": Image.merge("LA", [Image.fromarray(grey)] * 2),
        "16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "16.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "float.tif": Image.fromarray(grey.astype(np.float32) / 255),
        "palette.png": Image.fromarray(grey).convert("P"),
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / name)
    pictures = [tmp_path / name for name in kinds if name != "la.png"]
    pictures += [kinds["rgb.png"], grey, rgb, torch.from_numpy(rgb).movedim(-1, 0), grey / 255, (rgb, 7), la]
    for picture in pictures:
        colour, alpha = colour_and_alpha(to_array(picture), 1)
        np.testing.assert_allclose(colour[..., 0], grey / 255, atol=1e-6, err_msg=str(picture)[:80])
        assert (alpha == 1).all()
        assert colour_and_alpha(to_array(picture), 3)[0].shape == (6, 8, 3)
    assert (colour_and_alpha(to_array(tmp_path / "la.png"), 1)[1][..., 0] * 255 == grey).all()


def test_colours_of_16_bits_are_read_from_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="scikit-image, which brings tifffile, is not installed")
    rgb = np.random.default_rng(0).integers(0, 65535, (5, 7, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    np.testing.assert_array_equal(to_array(tmp_path / "rgb.tif"), rgb)


def test_stacks_and_datasets_are_pictures(tmp_path):
    images, _ = disks(5)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images=images, count=np.zeros(5))
    torch_dataset = torch.utils.data.TensorDataset(torch.from_numpy(images)[:, None], torch.zeros(5))
    for source in (tmp_path / "a.npy", tmp_path / "b.npz", images, torch.from_numpy(images), torch_dataset):
        pictures = find_pictures(source)
        assert len(pictures) == 5
        np.testing.assert_array_equal(to_array(pictures[3]).squeeze(), images[3])


def test_a_column_of_hugging_face_is_pictures():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    images, _ = disks(4)
    data = datasets.Dataset.from_dict({"image": [Image.fromarray(i) for i in images]}).cast_column(
        "image", datasets.Image()
    )
    np.testing.assert_array_equal(to_array(find_pictures(data["image"])[2]), images[2])


def test_the_background_is_that_without_the_objects():
    y, x = np.mgrid[-1:1:90j, -1:1:70j]
    smooth = (0.3 + 0.1 * x - 0.05 * y + 0.04 * x * x - 0.03 * x * y)[..., None]
    light = smooth.copy()
    light[10:40, 10:40] += 0.5  # a seventh of the picture
    assert np.abs(fit_background(light)[0] - smooth).max() < 1e-6
    noisy = light + np.random.default_rng(0).normal(0, 0.02, light.shape)
    found, noise = fit_background(noisy)
    assert np.abs(found - smooth).max() < 0.02
    assert noise == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("dark", [False, True])
def test_objects_become_bright_on_black(dark):
    images, _ = disks(20)
    treatment = Treatment(image_size=48).fitted(list(255 - images if dark else images))
    assert treatment.invert is dark
    y, x = np.mgrid[:48, :48] + 0.5
    picture = 60 + 1.5 * x + 90 * (np.hypot(y - 24, x - 20) < 6)
    picture = (255 - picture if dark else picture).round().astype(np.uint8)
    seen = treatment(picture)[..., 0]
    disk = np.hypot(y - 24, x - 20) < 6
    assert seen[disk].min() > 0.6
    assert seen[~disk].max() < 0.02


# scenes


def test_images_are_a_scene(folder):
    scene = make_scene("images", data_dir=folder)
    check_scene(scene, num_scenes=20)
    check_scene(make_scene("images", data_dir=folder, crop=24, channels=3), num_scenes=20)
    assert scene.treatment.levels is not None
    scenes = scene.dataset("train", 8)
    assert (scenes.count == -1).all()
    assert scenes.picture().ndim == 3


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_environments_take_images(folder, version):
    env = gymnasium.make(f"AIRScene-{version}", scene="images", data_dir=folder, num_scenes=8, image_size=50)
    observation, info = env.reset(seed=0)
    assert observation["image"].shape == (1, 50, 50)
    assert info["count"] == -1
    assert "boxes" not in info
    assert np.isfinite(env.step(env.action_space.sample())[1])


def numbered(num: int, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    """Pictures that say by their brightness which they are."""
    return np.broadcast_to(np.arange(1, num + 1, dtype=np.uint8)[:, None, None] * 5, (num, *size))


def test_no_file_is_in_two_splits_and_all_are_in_one(tmp_path):
    pictures = np.concatenate([numbered(20), numbered(3)])  # three of them twice
    scene = ImageScene(pictures, Treatment(image_size=8, crop=8, **LEVELS))
    seen = {split: set(scene.dataset(split, 100).images.unique().tolist()) for split in ("train", "validation", "test")}
    assert [len(seen[split]) for split in ("train", "validation", "test")] == [16, 2, 2]
    assert set.union(*seen.values()) == set(range(5, 105, 5))
    # Names and order do not matter.
    again = ImageScene(write(tmp_path / "files", pictures[::-1]), scene.treatment)
    assert sum(map(len, again.parts("test")[:1])) == 2


def test_no_pixel_of_one_picture_is_in_two_splits():
    wide = np.broadcast_to(np.arange(100, dtype=np.uint8), (20, 100))
    scene = ImageScene(wide[None], Treatment(image_size=10, crop=10, **LEVELS))
    for split, low, high in (("train", 0, 59), ("validation", 60, 79), ("test", 80, 99)):
        images = scene.dataset(split, 200).images
        assert (images.min().item(), images.max().item()) == (low, high)
    whole = ImageScene(wide[None], Treatment(image_size=10, crop=10, **LEVELS), held_out=False)
    assert whole.dataset("test", 500).images.min() == 0


def test_bad_pictures_are_clear_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    good, _ = disks(4)
    spoiled = write(tmp_path / "spoiled", good)
    (spoiled / "000.png").write_bytes((spoiled / "000.png").read_bytes()[:100])
    Image.fromarray(good[0]).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(good[1])])
    cases = [
        (None, "needs a folder of pictures"),
        (tmp_path / "nowhere", "is no folder"),
        (tmp_path / "empty", r"holds no pictures \(1 other files\)"),
        (spoiled, "000.png cannot be read"),
        (write(tmp_path / "one", good[:1]), "need three different pictures, got 1 pictures"),
        (write(tmp_path / "same", [good[0]] * 5), "got 5 pictures, of which 1 differ"),
        (write(tmp_path / "black", [np.zeros((9, 9 + i), np.uint8) for i in range(4)]), "nothing to see"),
    ]
    for source, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            make_scene("images", data_dir=source).dataset("train", 8)
    for source, message in [
        ([], "no pictures"),
        (np.zeros((3, 4)), r"\[picture, height, width\]"),
        ([{"image": good[0], "label": 1}] * 3, r"name one: data\['image'\]"),
        ([tmp_path / "pages.tif"] * 3, "it has 2 pages"),
        (np.full((4, 8, 8), np.nan), "NaN"),
        ([["a", "b"]] * 3, "must be numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            ImageScene(source, Treatment(crop=4)).dataset("train", 4)
    for options, message in [
        ({"levels": (1.0, 0.0)}, "black below white"),
        ({"channels": 2}, "1 .grey. or 3"),
        ({"background": "blur"}, "subtract or keep"),
        ({"crop": 2}, "crop must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            Treatment(**options)
    with pytest.raises(ValueError, match="less than the crop of 30"):
        ImageScene(good[:1], Treatment(crop=30)).dataset("test", 4)


def test_sizes_and_kinds_may_be_mixed(tmp_path):
    files = write(tmp_path / "mixed", [disks(1, i, side)[0][0] for i, side in enumerate((48, 40, 60, 30))])
    Image.fromarray(np.dstack([disks(1, 9, 50)[0][0]] * 3)).save(files / "colour.jpg")
    whole, crops = (make_scene("images", data_dir=files, crop=crop).dataset("train", 6) for crop in (None, 36))
    assert whole.images.shape == crops.images.shape == (6, 1, 50, 50)


# without truth


def test_without_truth_metrics_say_what_is_explained():
    agent, known = make_agent().float(), make_scene("digits", image_size=SIDE, object_size=(4, 6)).dataset("test", 12)
    unknown = SceneDataset.unlabelled(known.images)
    found = evaluate(agent, unknown, num_samples=2, generator=torch.Generator().manual_seed(0))
    truth = evaluate(agent, known, num_samples=2, generator=torch.Generator().manual_seed(0))
    assert not [name for name in found if "accuracy" in name or "iou" in name or "confusion" in name]
    for name in ("elbo", "iwae", "return", "kl_count"):
        assert found[name] == truth[name]
    z = agent.explain(known.images)
    missed, there = (
        part.square().sum((1, 2, 3)) for part in (known.float_images() - z.reconstruction, known.float_images())
    )
    wanted = (1 - missed / there).clamp_min(0)[there > 0].numpy()
    assert found["mean_count"] == z.count.float().mean().item()
    assert accuracies(agent, unknown).keys() == {"explained", "mean_count"}
    np.testing.assert_allclose(compare(z, unknown)["explained"][there > 0], wanted, atol=1e-5)
    with pytest.raises(ValueError, match="no truth about these images, so there is no count accuracy"):
        count_accuracy(agent, unknown)


def test_of_scenes_partly_known_only_these_are_judged():
    agent, known = make_agent().float(), make_scene("digits", image_size=SIDE, object_size=(4, 6)).dataset("test", 40)
    half = torch.arange(40) < 20
    partly = replace(known, count=torch.where(half, known.count, -1))
    assert count_accuracy(agent, partly) == count_accuracy(agent, known[half])
    z = agent.explain(known.images)
    assert compare(z, partly)["count_accuracy"].float().mean() == count_accuracy(agent, known[half])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    """A run on pictures, of two iterations."""
    options = {"image_size": SIDE, "crop": 24}
    recipe = replace(RECIPE, scene="images", scene_options=options, max_steps=2, evaluate_every=1, iwae_samples=2)
    run = TrainingRun.start(tmp_path_factory.mktemp("runs") / "run", recipe, data_dir=folder)
    run.train()
    run.finish()
    return run.directory


def test_a_run_keeps_how_its_pictures_are_read(folder, run):
    scene = make_scene("images", data_dir=folder, image_size=SIDE, crop=24)
    name, options, _ = scene_of(run, load_agent(run))
    assert (name, options) == ("images", scene.options)
    assert options["levels"] == scene.treatment.levels is not None
    assert treatment_of_trained(str(run), load_agent(run)) == scene.treatment
    columns = pd.read_csv(run / "metrics.csv").columns
    assert {"explained", "mean_count"} <= set(columns)
    assert "count_accuracy" not in columns
    assert (run / "pictures" / "explained.png").is_file()
    resumed = TrainingRun.resume(run, data_dir=folder)
    assert_equal(resumed.validation.images, scene.dataset("validation", FEW["num_validation"]).images)


def test_new_files_are_read_as_in_training(run, tmp_path):
    treatment = treatment_of_trained(str(run), load_agent(run))
    path = tmp_path / "new.png"
    Image.fromarray(disks(1, 5, 24)[0][0]).save(path)
    picture = read_picture(path, SIDE, treatment=treatment)
    as_training = ImageScene([path], treatment, held_out=False).dataset("train", 1).float_images()[0]
    np.testing.assert_allclose(picture.pixels, as_training, atol=0.5 / 255 + 1e-6)
    assert picture.window == (0, 0, 24)
    Image.fromarray(disks(1, 5, 60)[0][0]).save(path)
    with pytest.raises(ValueError, match=r"new.png: it is 60 x 60 pixels large, .* squares of 24 pixels; .* --crop"):
        read_picture(path, SIDE, treatment=treatment)
    assert read_picture(path, SIDE, crop=(10, 20, 34, 44), treatment=treatment).window == (10, 20, 24)


def test_commands_say_that_there_is_no_truth(air_env_command, folder, run):
    arguments = (run, "--data-dir", folder, "--num-scenes", 6, "--num-samples", 2)
    status, out, err = air_env_command("evaluate", *arguments)
    assert status == 0, err
    assert "no truth about them" in out
    assert "explained share" in out
    status, _, err = air_env_command("evaluate", *arguments, "--by", "size")
    assert status == 1
    assert "no truth about these images, so there is no count accuracy to break down" in err
    status, _, err = air_env_command("summarise", run)
    assert status == 1
    assert "its images have no truth" in err


# inspection


def test_inspection_finds_size_and_number():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    from air_agents.evaluation.inspection import inspect_pictures

    images, counts = disks(60, radius=6.0)
    inspection = inspect_pictures(images)
    order = [int(found.name.split()[1]) for found in inspection.found]
    assert (inspection.counts == counts[order]).mean() > 0.95
    assert inspection.object_size == pytest.approx((12, 12, 12), abs=1.5)
    noise, gradient = (
        np.median([getattr(found, name) for found in inspection.found]) for name in ("noise", "gradient")
    )
    assert noise == pytest.approx(3 / 255, rel=0.2)
    assert gradient == pytest.approx(30 / 255, rel=0.2)
    assert inspection.objections() == []


def test_inspection_objects_to_what_will_not_work(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    from air_agents.evaluation.inspection import inspect_pictures

    small, _ = disks(20, radius=1.2)
    rng = np.random.default_rng(0)
    stripes = np.kron(rng.integers(0, 2, (4, 40, 10)), np.ones((1, 1, 4))) * 200 + rng.integers(0, 5, (4, 40, 40))
    mixed = [*(some := disks(4)[0]), *disks(2, 1, 60)[0], some[0]]
    cases = ((small, "too small"), (mixed, "2 sizes"), (mixed, "6 of 7 pictures differ"), (disks(1)[0], "bands"))
    for pictures, message in cases:
        objections = inspect_pictures(list(pictures)).objections()
        assert any(message in text for text in objections), (message, objections)
    try:
        texture = inspect_pictures(stripes.astype(np.uint8)).objections()
    except ValueError as error:
        texture = [str(error)]
    assert any("texture" in text for text in texture)
    folder = write(tmp_path / "files", small[:3])
    (folder / "bad.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"bad\.png is not a picture"):
        inspect_pictures(folder)


def test_settings_follow_from_the_inspection():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    from air_agents.evaluation.inspection import inspect_pictures
    from air_agents.training.own_images import recipe_for
    from air_agents.training.recipes import RECIPES

    recipe = recipe_for(RECIPES["images"], inspect_pictures(disks(60, radius=6.0)[0]))
    side = recipe.scene_options["image_size"]
    assert recipe.scene_options["crop"] is None
    assert recipe.model.image_size == side
    assert 12 / 48 < np.exp(recipe.model.where_mean[0]) < 1.7 * 12 / 48
    assert recipe.model.num_steps == 4
    field = np.block([[disks(1, 6 * i + j)[0][0] for j in range(6)] for i in range(6)])
    cut = recipe_for(RECIPES["images"], inspect_pictures([field, field[::-1], field.T]), max_objects=7)
    assert 24 <= cut.scene_options["crop"] <= 8 * 12
    assert cut.model.num_steps == 7


def test_the_commands_go_from_a_folder_to_an_agent(air_env_command, folder, tmp_path):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    status, out, err = air_env_command("inspect", folder, "--output-dir", tmp_path, "--max-objects", 3)
    assert status == 0, err
    assert f"air-env train images --data-dir {folder} --max-objects 3" in out
    assert (tmp_path / "contact_sheet.png").is_file()
    few = [f"--{name.replace('_', '-')}={value}" for name, value in FEW.items()]
    small = ["--model.renderer.hidden=8", "--agent.hidden=16", "--agent.embedding=16", "--agent.encoder-hidden=12"]
    options = [*few, *small, "--max-steps=2", "--evaluate-every=1", "--iwae-samples=2", "--model.num-steps=2"]
    status, out, err = air_env_command(
        "train", "images", "--data-dir", folder, "--object-size", 9, 12, *options, "--output-dir", tmp_path / "run"
    )
    assert status == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["num_steps"] == 2
    assert config["model"]["where_mean"][0] == pytest.approx(np.log(1.3 * np.sqrt(9 * 12) / 48), abs=1e-3)
    assert "mean_count" in out
    status, _, err = air_env_command("train", "digits", "--max-objects", 3)
    assert status == 1
    assert "--max-objects is for recipe images" in err


# results


def found_in(views: int = 3) -> tuple[DrawnExplanation, list[View]]:
    """Two objects in the first image, none in the second, one in the third, of a 10-pixel image."""
    present = torch.tensor([[1.0, 1], [0, 0], [1, 0]])
    outlines = torch.tensor([[[-1.0, -1, 0, 0], [0, 0.2, 0.6, 1]], [[0, 0, 0, 0]] * 2, [[-0.5, -0.5, 0.5, 0.5]] * 2])
    outlines = torch.where(present[..., None] > 0, outlines, torch.nan)
    latents = torch.zeros(3, 2, 3)
    z = DrawnExplanation(present, latents, latents, torch.zeros(3, 0), torch.zeros(3, 1, 10, 10), outlines, outlines)
    squares = [((40, 30), (0, -5, 40)), ((10, 10), (0, 0, 10)), ((100, 100), (50, 50, 50))]
    return z, [View(Path(f"{i}.png"), size, window) for i, (size, window) in enumerate(squares[:views])]


def test_a_frame_has_a_row_for_each_object(tmp_path):
    z, views = found_in()
    frame = z.to_frame()
    assert frame[["image", "count", "object"]].to_numpy().tolist() == [[0, 2, 1], [0, 2, 2], [2, 1, 1]]
    np.testing.assert_allclose(
        frame[["x0", "y0", "x1", "y1"]], [[0, 0, 5, 5], [5, 6, 8, 10], [2.5, 2.5, 7.5, 7.5]], atol=1e-5
    )
    in_files = z.to_frame(views, {"explained": [0.9, 1.0, 0.5]})
    wanted = [[0, -5, 20, 15], [20, 19, 32, 35], [62.5, 62.5, 87.5, 87.5]]
    np.testing.assert_allclose(in_files[["x0", "y0", "x1", "y1"]], wanted, atol=1e-4)
    assert in_files.explained.tolist() == [0.9, 0.9, 0.5]
    in_files.to_csv(tmp_path / "objects.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "objects.csv"), in_files, check_dtype=False)
    with pytest.raises(ValueError, match="views must be one for each of the 3 images, got 2"):
        z.to_frame(views[:2])


def test_coco_is_read_back(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    z, views = found_in()
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(z.to_coco(views, ("coin",))))
    read = coco.COCO(path)
    assert [read.imgs[i]["file_name"] for i in read.getImgIds()] == ["0.png", "1.png", "2.png"]
    assert [len(read.getAnnIds(imgIds=[i])) for i in read.getImgIds()] == [2, 0, 1]
    # Cut where the file ends: x, y, width, height.
    boxes = [annotation["bbox"] for annotation in read.loadAnns(read.getAnnIds())]
    np.testing.assert_allclose(boxes, [[0, 0, 20, 15], [20, 19, 12, 11], [62.5, 62.5, 25, 25]], atol=1e-3)
    assert read.loadCats([1])[0]["name"] == "coin"
    assert len(read.loadRes(read.dataset["annotations"]).anns) == 3


def test_detections_are_supervisions_or_an_error(monkeypatch):
    z, _ = found_in()
    if find_spec("supervision") is not None:
        detections = z.to_detections()
        assert [len(one) for one in detections] == [2, 0, 1]
        np.testing.assert_allclose(detections[0].xyxy[1], [5, 6, 8, 10], atol=1e-5)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        z.to_detections()


def test_explain_writes_all_forms(air_env_command, run, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, picture in zip(paths, disks(3, 7, 24)[0], strict=True):
        Image.fromarray(picture).save(path)
    status, _, err = air_env_command("explain", run, *paths, "--output-dir", tmp_path / "found")
    assert status == 0, err
    found = tmp_path / "found"
    results = json.loads((found / "explanations.json").read_text())
    counts, objects = pd.read_csv(found / "counts.csv"), pd.read_csv(found / "objects.csv")
    assert counts["count"].tolist() == [result["count"] for result in results]
    assert len(objects) == sum(result["count"] for result in results)
    boxes = [box for result in results for box in result["boxes"]]
    found_boxes = objects[["x0", "y0", "x1", "y1"]].to_numpy(float)
    np.testing.assert_allclose(found_boxes, np.reshape(boxes, (-1, 4)), atol=0.01)
    coco = json.loads((found / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == list(map(str, paths))
    assert len(coco["annotations"]) == len(objects)
    with Image.open(found / "annotated" / "0.png") as annotated:
        assert annotated.size == (24, 24)
