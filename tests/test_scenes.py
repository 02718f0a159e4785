"""Scenes: ground truth that is exact, splits that share nothing, data files that are checked."""

import gzip
import hashlib
import math
import tracemalloc
from dataclasses import replace
from itertools import combinations
from typing import get_args

import gymnasium
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from tiny import SIDE, assert_equal, in_turn, tiny_scene, z_score
from torch import Tensor

from air_env.scenes import BACKGROUNDS, DIFFICULTIES, SCENES, ComposedScene, Glyphs, SceneDataset, Split, make_scene
from air_env.scenes.digits import load_digits
from air_env.scenes.files import read_file, read_gzip
from air_env.scenes.mnist import load_mnist
from air_env.testing import check_scene

BRIGHTNESS = (60, 150, 240)
FORM = ("images", "count", "labels", "boxes")


def solid(split: str = "train") -> Glyphs:
    """Solid rectangles with wide margins; the label is told by the brightness."""
    images = np.zeros((3, 24, 24), np.uint8)
    for label, (x0, y0, x1, y1) in enumerate([(6, 6, 18, 18), (8, 5, 14, 19), (4, 10, 20, 16)]):
        images[label, y0:y1, x0:x1] = BRIGHTNESS[label]
    return Glyphs(images, np.arange(3))


def solid_scene(**options) -> ComposedScene:
    return ComposedScene(solid, **{"object_size": (10, 16), "image_size": 40} | options)


def objects(scenes: SceneDataset):
    """Image, label and box of all objects."""
    for image, count, labels, boxes in zip(
        scenes.images[:, 0], scenes.count.tolist(), scenes.labels, scenes.boxes, strict=True
    ):
        for label, box in zip(labels[:count].tolist(), boxes[:count].tolist(), strict=True):
            yield image, label, box


def assert_same_scenes(first: SceneDataset, second: SceneDataset) -> None:
    for name in FORM:
        assert_equal(getattr(first, name), getattr(second, name))


def test_the_same_arguments_give_the_same_scenes_whatever_the_global_generators():
    np.random.seed(0)  # noqa: NPY002
    first = tiny_scene().dataset("train", 50, seed=3)
    np.random.seed(1)  # noqa: NPY002
    assert_same_scenes(tiny_scene().dataset("train", 50, seed=3), first)


@pytest.mark.parametrize(("split", "seed"), [("train", 4), ("validation", 3), ("test", 3)])
def test_another_seed_or_split_gives_other_scenes(split, seed):
    first, second = tiny_scene().dataset("train", 50, seed=3), tiny_scene().dataset(split, 50, seed=seed)
    assert not torch.equal(first.count, second.count)
    assert not torch.equal(first.boxes.nan_to_num(), second.boxes.nan_to_num())


SPLITS = get_args(Split)


def assert_nothing_is_shared(*splits: np.ndarray | Tensor) -> None:
    """No two splits have a picture in common."""
    pictures = [{picture.tobytes() for picture in np.asarray(images)} for images in splits]
    assert not any(one & other for one, other in combinations(pictures, 2))


def test_digits_are_cut_where_a_writer_begins_a_form():
    splits = {split: load_digits(split) for split in SPLITS}
    assert sum(len(glyphs.labels) for glyphs in splits.values()) == 1797
    assert_nothing_is_shared(*(glyphs.images for glyphs in splits.values()))
    # All forms have their digits in the same order: 0, 1, ..., 9 three times, and then these, which come nowhere else.
    after = np.array([0, 9, 5, 5])
    for split, forms in {"train": 10, "validation": 1, "test": 3}.items():
        labels = splits[split].labels
        assert (labels[:30] == np.arange(30) % 10).all(), split
        assert (sliding_window_view(labels, 4) == after).all(1).sum() == forms, split


def test_the_splits_of_mnist_share_no_glyph(data_dir):
    splits = {split: load_mnist(split, data_dir) for split in SPLITS}
    assert [len(glyphs.images) for glyphs in splits.values()] == [55_000, 5_000, 10_000]
    assert_nothing_is_shared(*(glyphs.images for glyphs in splits.values()))
    # The file of test digits begins with a 7, that of training digits with a 5 and ends with an 8.
    ends = [int(splits[split].labels[i]) for split, i in (("train", 0), ("validation", -1), ("test", 0))]
    assert ends == [5, 8, 7]


def test_splits_of_fixed_shapes_are_other_arrangements_whatever_the_seeds():
    seeds = (0, 1, 2, 3, 2**30, 2**30 + 1, 2**31, 2**32 - 1)
    for name, options in {
        "sprites": {},
        "objects3d": {"renderer": "raycast"},
        "tabletop3d": {"renderer": "raycast"},
    }.items():
        scene, found = make_scene(name, **options, counts=(1,), image_size=24), []
        for split in SPLITS:
            scenes = [scene.dataset(split, 3, seed) for seed in seeds]
            found.append(torch.cat([one.boxes for one in scenes]))
        assert_nothing_is_shared(*found)


def test_a_seed_that_would_repeat_another_split_is_refused():
    with pytest.raises(ValueError, match="the seed of scenes must be at most 4294967295, got 4294967296"):
        tiny_scene().dataset("train", 1, seed=2**32)


def test_scenes_are_made_of_the_glyphs_of_their_split():
    asked = []
    scene = ComposedScene(lambda split: asked.append(split) or solid(), (10, 16), image_size=40)
    for split in SPLITS:
        scene.dataset(split, 1)
    assert asked == ["train", "validation", "test"]


@pytest.mark.parametrize("scene", [tiny_scene(), solid_scene(), solid_scene(counts=(0, 4), object_size=(4, 8))])
def test_scenes_have_the_promised_form(scene):
    scenes = scene.dataset("test", 60)
    most = max(scene.counts)
    assert len(scenes) == 60
    assert (scenes.images.shape, scenes.images.dtype) == ((60, 1, scene.image_size, scene.image_size), torch.uint8)
    assert (scenes.labels.shape, scenes.boxes.shape) == ((60, most), (60, most, 4))
    present = torch.arange(most) < scenes.count[:, None]
    assert_equal(scenes.labels >= 0, present)
    assert (scenes.labels[~present] == -1).all()
    assert_equal(~scenes.boxes.isnan().any(2), present)
    assert_equal(scenes.boxes.isnan().all(2), ~present)
    assert_equal(scenes.float_images(), scenes.images.float() / 255)
    some = scenes[10:20]
    assert_same_scenes(some, replace(scenes, **{name: getattr(scenes, name)[10:20] for name in FORM}))
    assert_equal(some.truth, {name: part[10:20] for name, part in scenes.truth.items()})


def test_boxes_are_exact_to_the_pixel():
    # The edge of a rectangle, interpolated, has half its brightness where the box ends.
    for image, label, (x0, y0, x1, y1) in objects(solid_scene(counts=(1,)).dataset("train", 200)):
        column, row = int((x0 + x1) / 2), int((y0 + y1) / 2)
        centres = torch.arange(40) + 0.5
        half = BRIGHTNESS[label] / 2
        for profile, lower, upper in [(image[row], x0, x1), (image[:, column], y0, y1)]:
            inside = (centres > lower + 0.01) & (centres < upper - 0.01)
            outside = (centres < lower - 0.01) | (centres > upper + 0.01)
            assert (profile[inside] >= half - 0.5).all()
            assert (profile[outside] <= half + 0.5).all()


def test_labels_belong_to_the_objects_in_their_boxes():
    found = set()
    for image, label, (x0, y0, x1, y1) in objects(solid_scene(counts=(0, 1, 2)).dataset("train", 100)):
        assert image[int((y0 + y1) / 2), int((x0 + x1) / 2)] == BRIGHTNESS[label]
        found.add(label)
    assert found == {0, 1, 2}


def ink_extends_beyond(image: Tensor, boxes: list[list[float]], reach: float) -> bool:
    """Whether there is ink in a pixel whose centre is further than this from all boxes."""
    centre = torch.arange(image.shape[-1]) + 0.5
    covered = torch.zeros(image.shape, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        columns = (centre >= x0 - reach) & (centre <= x1 + reach)
        rows = (centre >= y0 - reach) & (centre <= y1 + reach)
        covered |= rows[:, None] & columns
    return bool(image[~covered].any())


def test_boxes_of_digits_hold_all_ink_and_touch_it():
    scenes = make_scene("digits").dataset("test", 300)
    sides = load_digits("test").tight_boxes()
    shortest = (sides[:, 2:] - sides[:, :2]).max(1).min()
    for image, count, boxes in zip(scenes.images[:, 0], scenes.count.tolist(), scenes.boxes.tolist(), strict=True):
        # Interpolation spreads ink by half a pixel of the glyph.
        zoom = max((max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes[:count]), default=0) / shortest
        assert not ink_extends_beyond(image, boxes[:count], zoom / 2 + 0.01)
        for x0, y0, x1, y1 in boxes[:count]:
            own = image[max(0, round(y0)) : round(y1), max(0, round(x0)) : round(x1)]
            rows, columns = own.any(1).nonzero()[:, 0], own.any(0).nonzero()[:, 0]
            for used, length in [(rows, own.shape[0]), (columns, own.shape[1])]:
                assert used[0] <= zoom / 2 + 1
                assert used[-1] >= length - zoom / 2 - 2


def test_boxes_have_the_wanted_size_and_lie_inside_the_image():
    scenes = make_scene("digits", object_size=(14, 22)).dataset("train", 300)
    boxes = torch.stack([torch.tensor(box) for _, _, box in objects(scenes)])
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert 14 - 1e-3 <= longer.min() < 14.5
    assert 21.5 < longer.max() <= 22 + 1e-3
    assert boxes.min() >= -1e-4
    assert boxes.max() <= 50 + 1e-4
    # Everywhere in the image.
    assert boxes[:, :2].amin(0).max() < 1
    assert boxes[:, 2:].amax(0).min() > 49


@pytest.mark.parametrize("scene", ["digits", "solid"])
def test_objects_do_not_overlap_unless_asked(scene):
    options = {"counts": (3,), "object_size": (8, 12)}

    def closest(**more) -> list[float]:
        made = make_scene("digits", **options, **more) if scene == "digits" else solid_scene(**options, **more)
        scenes = made.dataset("train", 100)
        return [
            max(max(a[i] - b[i + 2], b[i] - a[i + 2]) for i in (0, 1))
            for boxes in scenes.boxes.tolist()
            for a, b in combinations(boxes, 2)
        ]

    assert 1 - 1e-4 <= min(closest()) < 1.5
    assert min(closest(gap=3.0)) >= 3 - 1e-4
    assert min(closest(overlap="any")) < 0


def nearest(scenes: SceneDataset) -> list[float]:
    """The distance of the nearest centres of each scene."""
    centres = ((scenes.boxes[..., :2] + scenes.boxes[..., 2:]) / 2).tolist()
    pairs = (combinations(own[:n], 2) for own, n in zip(centres, scenes.count.tolist(), strict=True))
    return [min(math.dist(a, b) for a, b in own) for own in pairs]


def test_frames_are_divided_by_a_gaussian_and_lie_on_whole_pixels():
    # One glyph that fills its picture but for a margin of 2 pixels: its box says where its frame is.
    picture = np.zeros((1, 28, 28), np.uint8)
    picture[0, 2:-2, 2:-2] = 255
    options = {"inverse_scale": (1.3, 0.1), "counts": (1,), "overlap": "any"}
    scenes = ComposedScene(lambda split: Glyphs(picture, np.zeros(1, np.int64)), **options).dataset("train", 4000)
    x0, y0, x1, _ = scenes.boxes[:, 0].double().unbind(1)
    frame = (x1 - x0) * 28 / 24
    left, top = x0 - frame * 2 / 28, y0 - frame * 2 / 28
    for whole in (frame, left, top):
        assert (whole - whole.round()).abs().max() < 1e-4
    frame, left, top = (whole.round() for whole in (frame, left, top))
    assert min(left.min(), top.min()) == 0
    assert max((left + frame).max(), (top + frame).max()) == 50
    scale = np.random.default_rng(0).normal(1.3, 0.1, 100_000)
    for side in range(18, 28):
        wanted = (np.floor(28 / scale) == side).mean()
        assert abs((frame == side).double().mean() - wanted) < 4 * (wanted / 4000) ** 0.5 + 1e-3
    # Uniform over the positions there are.
    assert abs(z_score((left / (50 - frame)), 0.5)) < 4


def test_extreme_scales_give_frames_of_one_pixel_to_the_image():
    options = {"inverse_scale": (1.0, 0.9), "counts": (1,), "overlap": "any", "image_size": 30}
    boxes = ComposedScene(solid, **options).dataset("train", 500).boxes[:, 0]
    assert boxes.min() >= 0
    assert boxes.max() <= 30
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def squares(value: int | tuple[int, ...]):
    """Glyphs of one colour that fill their 12 pixels; divided by 1 they are drawn pixel for pixel."""
    image = np.full((1, 12, 12, *np.shape(value)), value, np.uint8)
    return lambda split: Glyphs(image, np.zeros(1, np.int64))


def squares_of(value: int | tuple[int, ...], num_scenes: int = 300, **options) -> SceneDataset:
    options = {"counts": (3,), "image_size": 40} | options
    return ComposedScene(squares(value), inverse_scale=(1, 0), **options).dataset("train", num_scenes)


@in_turn("value values", [(130, {0, 130}), (100, {0, 100, 200}), (80, {0, 80, 160, 240})])
def test_light_overlap_gives_no_pixel_more_than_white(value, values):
    assert set(squares_of(value, overlap="light").images.unique().tolist()) == values
    assert 255 in squares_of(value, overlap="any").images or value == 80


def test_opaque_objects_that_overlap_lightly_hide_nothing():
    dark = 100, 100, 100, 255
    visible = (squares_of(dark, overlap="light").images[:, 0] > 0).sum((1, 2))
    assert set(visible.tolist()) == {3 * 144}
    assert (squares_of(dark, overlap="any").images[:, 0] > 0).sum((1, 2)).min() < 3 * 144


def test_the_truth_says_what_is_hidden_and_which_is_in_front():
    scenes = squares_of((100, 100, 100, 255), counts=(0, 2, 4), image_size=24, overlap="any")
    for count, boxes, visible, depth in zip(scenes.count.tolist(), scenes.boxes, *scenes.facts.values(), strict=True):
        assert list(scenes.facts) == ["visible", "depth"]
        # The painter's algorithm, from the back to the front.
        seen = np.full((24, 24), -1)
        for i in depth[:count].argsort(descending=True).tolist():
            x0, y0, x1, y1 = boxes[i].round().int().tolist()
            seen[y0:y1, x0:x1] = i
        assert visible[:count].tolist() == pytest.approx([(seen == i).sum() / 144 for i in range(count)], abs=1e-4)
        assert sorted(depth.tolist()) == [-1] * (4 - count) + list(range(count))
        assert visible[count:].isnan().all()


def gaps(scenes: SceneDataset) -> list[float]:
    """The distances of all pairs of boxes, along the axis that they are further apart on."""
    return [
        max(max(a[i] - b[i + 2], b[i] - a[i + 2]) for i in (0, 1))
        for count, own in zip(scenes.count.tolist(), scenes.boxes.tolist(), strict=True)
        for a, b in combinations(own[:count], 2)
    ]


def test_objects_that_may_touch_come_closer_than_the_gap():
    assert min(gaps(squares_of(130, overlap="light"))) == pytest.approx(0, abs=1e-4)


@in_turn("most side", [(8, 100), (16, 140)])
def test_many_digits_find_room_all_over_the_image(most, side):
    options = {"object_size": (12, 26), "image_size": side, "counts": (0, most)}
    scenes = make_scene("digits", **options).dataset("test", 60)
    assert set(scenes.count.tolist()) == {0, most}
    assert 1 - 1e-4 <= min(gaps(scenes)) < 1.5
    boxes = scenes.boxes[scenes.count > 0]
    longer = (boxes[..., 2:] - boxes[..., :2]).amax(-1)
    assert 12 - 1e-3 <= longer.min() < longer.max() <= 26 + 1e-3
    assert abs(z_score(longer.flatten(), 19)) < 5
    centres = (boxes[..., 2:] + boxes[..., :2]).flatten(0, 1) / 2 / side
    assert abs(z_score(centres[:, 0], 0.5)) < 4
    assert abs(z_score(centres[:, 1], 0.5)) < 4


def test_many_objects_may_touch_where_no_pixel_gets_more_than_white():
    scenes = squares_of(130, 50, counts=(7,), image_size=60, overlap="light")
    assert set(scenes.images.unique().tolist()) == {0, 130}
    assert min(gaps(scenes)) == pytest.approx(0, abs=1e-4)
    assert ((scenes.images > 0).sum((1, 2, 3)) == 7 * 144).all()


def test_many_objects_that_get_in_each_others_way_begin_anew():
    # Eight squares of 12 pixels in an image of 48: a few badly placed ones leave no room for the others.
    scenes = squares_of(130, 20, counts=(8,), image_size=48, overlap="none", gap=0)
    assert min(gaps(scenes)) >= -1e-4


@pytest.mark.parametrize("scene", ["digits", "sprites"])
def test_noise_lowers_the_contrast_and_is_clipped(scene):
    plain, noisy = (make_scene(scene, background=name).dataset("test", 40) for name in (None, "noise"))
    assert_equal(noisy.truth, plain.truth)
    noise = noisy.images / 255 - 0.8 * plain.images / 255 - 0.1
    # Where nothing is clipped but one sample in twenty thousand.
    middle = ((plain.images > 110) & (plain.images < 145)).nonzero(as_tuple=True)
    assert abs(z_score(noise[middle])) < 4
    assert abs(z_score(noise[middle].square(), 0.04 + (1 / 255) ** 2 / 12)) < 4
    # A standard normal is below -1/2, so that black stays black, with this probability.
    black = (noisy.images[plain.images == 0] == 0).double()
    assert abs(z_score(black, 0.5 * (1 + math.erf((0.5 / 255 - 0.1) / 0.2 / math.sqrt(2))))) < 4


def test_lines_cross_every_five_pixels_at_offsets_of_their_own():
    plain, crossed = (make_scene("digits", background=name).dataset("test", 60) for name in (None, "grid"))
    assert_equal(crossed.truth, plain.truth)
    found = set()
    for before, after in zip(plain.images[:, 0], crossed.images[:, 0], strict=True):
        lines = after - before
        down, across = (int((lines == 102).sum(axis).argmax()) % 5 for axis in (1, 0))
        wanted = before.clone()
        wanted[down::5] = wanted[down::5].clamp_min(102)
        wanted[:, across::5] = wanted[:, across::5].clamp_min(102)
        assert_equal(after, wanted)
        found.add((down, across))
    assert len(found) > 15


def test_backgrounds_are_those_of_the_seed():
    for name in BACKGROUNDS:
        scene = make_scene("digits", background=name)
        assert_same_scenes(scene.dataset("test", 20, 3), scene.dataset("test", 20, 3))


@pytest.mark.parametrize("overlap", ["none", "light", "any"])
def test_the_nearest_centres_are_as_far_apart_as_asked(overlap):
    options = {"counts": (2, 3), "object_size": (8, 12), "overlap": overlap}
    near = nearest(make_scene("digits", centre_distance=(11, 14), **options).dataset("test", 200))
    assert 11 <= min(near) < 11.3
    assert 13.7 < max(near) <= 14
    # Scenes without two objects have no distance.
    assert make_scene("digits", counts=(0, 1), centre_distance=(11, 14)).dataset("test", 20).count.sum() > 0


def test_old_names_of_overlap_are_read():
    for old, new in ((True, "any"), (False, "none")):
        options = {"counts": (3,), "object_size": (8, 12)}
        first, second = (solid_scene(overlap=overlap, **options).dataset("train", 50) for overlap in (old, new))
        assert_same_scenes(first, second)


@pytest.mark.parametrize("name", DIFFICULTIES)
@pytest.mark.parametrize("scene", ["digits", "sprites"])
def test_every_difficulty_keeps_the_promises_of_scenes(scene, name):
    scene = make_scene(scene, difficulty=name, counts=(0, 1, 2, 3))
    check_scene(scene)
    assert_same_scenes(scene.dataset("test", 50, 3), scene.dataset("test", 50, 3))


def test_a_difficulty_is_its_options_and_what_is_given_comes_before():
    def scenes(**options) -> SceneDataset:
        return make_scene("digits", counts=(2,), **options).dataset("test", 50)

    assert_same_scenes(scenes(), scenes(difficulty="published"))
    close = {"inverse_scale": (1.3, 0.1), "overlap": "light", "centre_distance": (10, 19)}
    assert_same_scenes(scenes(difficulty="close"), scenes(**close))
    assert_same_scenes(scenes(difficulty="close", overlap="any"), scenes(**close | {"overlap": "any"}))
    # Of the two options of sizes the one that is given counts.
    sized = {"object_size": (10, 12), "overlap": "light"}
    assert_same_scenes(scenes(difficulty="touching", object_size=(10, 12)), scenes(**sized))
    small = {"inverse_scale": (1.5, 0.1)}
    assert_same_scenes(scenes(difficulty="small", **small), scenes(**small))


def test_environments_take_difficulties():
    env = gymnasium.make("AIRScene-v1", num_scenes=50, counts=(2,), difficulty="close")
    _, info = env.reset(seed=0)
    (x0, y0, x1, y1), (x2, y2, x3, y3) = info["boxes"][:2]
    assert 10 <= math.dist(((x0 + x1) / 2, (y0 + y1) / 2), ((x2 + x3) / 2, (y2 + y3) / 2)) <= 19


def test_difficulties_of_ones_own_are_checked(monkeypatch):
    monkeypatch.setitem(DIFFICULTIES, "mine", {"overlap": "any"})
    monkeypatch.setitem(DIFFICULTIES, "wrong", {"overlaps": "any"})
    assert_same_scenes(*(tiny_scene(**{name: value}).dataset("test", 20) for name, value in
                         (("difficulty", "mine"), ("overlap", "any"))))  # fmt: skip
    with pytest.raises(ValueError, match=r"difficulty 'wrong' must be a dict of some of object_size, .*overlaps"):
        tiny_scene(difficulty="wrong")


def test_the_model_of_sprites_expects_the_sizes_of_its_difficulty():
    usual, small, touching = (make_scene("sprites", difficulty=n).model for n in ("published", "small", "touching"))
    assert usual.where_mean[0] == pytest.approx(math.log(math.sqrt(10 * 16) / 40))
    assert small.where_mean[0] == pytest.approx(math.log(math.sqrt(8 * 12) / 40))
    assert math.log(11 / 40) < touching.where_mean[0] < math.log(13 / 40)


def test_touching_digits_have_the_sizes_of_other_generators(data_dir):
    boxes = make_scene("multi_mnist", data_dir=data_dir, difficulty="touching", counts=(2,)).dataset("test", 300).boxes
    longer = (boxes[..., 2:] - boxes[..., :2]).amax(-1).flatten()
    assert ((longer > 12.5) & (longer < 17.5)).double().mean() > 0.9


def test_pixels_of_overlapping_objects_add_up_and_saturate():
    scenes = solid_scene(counts=(4,), object_size=(20, 20), overlap="any").dataset("train", 20)
    assert scenes.images.max() == 255
    assert ((scenes.images > 60) & (scenes.images < 240)).any()


@in_turn("counts", [((0, 1, 2),), ((1,),), ((2, 5),), ([0, 3],), (np.array([1, 2]),)])
def test_counts_are_equally_probable(counts):
    count = solid_scene(counts=counts, object_size=(2, 4)).dataset("train", 3000).count
    assert set(count.tolist()) == set(counts)
    for n in counts:
        if len(counts) > 1:
            assert abs(z_score((count == n).double(), 1 / len(counts))) < 4


def test_an_impossible_arrangement_is_refused_with_the_remedy():
    scene = tiny_scene(counts=(5,), object_size=(8, 8))
    with pytest.raises(ValueError, match=r'5 objects of \(8, 8\) pixels.* do not fit .*use smaller .*overlap="any"'):
        scene.dataset("train", 2)


@in_turn(
    "options message",
    [
        ({"object_size": (0, 5)}, r"object_size must be 0 < smallest <= largest <= image side, got \(0, 5\)"),
        ({"object_size": (6, 5)}, "object_size must be"),
        ({"object_size": (5, SIDE + 1)}, "object_size must be .*images of 12 pixels"),
        ({"object_size": (5, math.nan)}, "object_size must be"),
        ({"object_size": 5}, "object_size must be"),
        ({"counts": ()}, "counts must be one or more"),
        ({"counts": (-1, 2)}, r"counts must be one or more numbers of objects, .* got \(-1, 2\)"),
        ({"counts": 2}, "counts must be one or more"),
        ({"counts": (0.5,)}, "counts must be one or more"),
        ({"counts": ("one",)}, r"counts must be one or more numbers of objects, such as \(0, 1, 2\), got \('one',\)"),
        ({"counts": np.array([[1, 2]])}, "counts must be one or more"),
        ({"object_size": ("a", "b")}, "object_size must be"),
        ({"image_size": 12.5}, "image_size must be a whole number from 1 to 4,096, got 12.5"),
        ({"gap": -1.0}, "gap must be"),
        ({"overlap": "some"}, "overlap must be one of none, light, any, got 'some'"),
        ({"inverse_scale": (1.3, 0.1)}, "object_size and inverse_scale both say how large objects are; give one"),
        ({"object_size": None, "inverse_scale": (0.1, 1.3)}, r"inverse_scale must be a mean and .* got \(0.1, 1.3\)"),
        ({"object_size": None, "inverse_scale": "13"}, "inverse_scale must be a mean and"),
        ({"centre_distance": (19, 10)}, r"centre_distance must be 0 <= smallest <= largest, in pixels, got \(19, 10\)"),
        ({"centre_distance": 10}, "centre_distance must be"),
        ({"difficulty": "hard"}, "difficulty 'hard' is unknown; choose one of published, small, touching, close, over"),
        ({"background": "stripes"}, "background 'stripes' is unknown; choose one of noise, grid"),
        ({"objct_size": (4, 6)}, "option.* 'objct_size' .*unknown; choose .*object_size"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_scene(**options)


def test_an_unknown_scene_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=f"scene 'digitz' is unknown; choose one of {', '.join(SCENES)}"):
        make_scene("digitz")


@in_turn("split", [("valid",), ("Train",), (None,)])
def test_an_unknown_split_is_refused(split):
    with pytest.raises(ValueError, match=f"split {split!r} is unknown; choose one of train, validation, test"):
        tiny_scene().dataset(split, 2)


@in_turn("num_scenes", [(0,), (-1,)])
def test_no_scenes_are_no_dataset(num_scenes):
    with pytest.raises(ValueError, match=f"num_scenes must be a whole number of at least 1, got {num_scenes}"):
        tiny_scene().dataset("train", num_scenes)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed of scenes must be a whole number of at least 0, got -1"):
        tiny_scene().dataset("train", 2, seed=-1)


def test_multi_mnist_shows_mnist(data_dir):
    scenes = make_scene("multi_mnist", data_dir=data_dir, counts=(1,), object_size=(20, 20)).dataset("test", 30)
    assert scenes.images.shape == (30, 1, 50, 50)
    # At 20 pixels, a digit has the size it has in the original files.
    digits = load_mnist("test", data_dir)
    ink = {label: digits.images[digits.labels == label].sum((1, 2)) for label in range(10)}
    for image, label, _ in objects(scenes):
        assert np.abs(ink[label] / image.sum().item() - 1).min() < 0.02


def test_the_data_folder_can_be_named_by_the_environment(data_dir, monkeypatch, tmp_path):
    load_mnist.cache_clear()
    monkeypatch.setenv("AIR_DATA_DIR", str(data_dir))
    first = make_scene("multi_mnist").dataset("test", 2)
    # A folder named by the call comes first.
    monkeypatch.setenv("AIR_DATA_DIR", str(tmp_path))
    assert_same_scenes(make_scene("multi_mnist", data_dir=data_dir).dataset("test", 2), first)
    load_mnist.cache_clear()


@pytest.mark.usefixtures("no_data_dir")
def test_an_empty_variable_names_no_folder(monkeypatch):
    load_mnist.cache_clear()
    monkeypatch.setenv("AIR_DATA_DIR", "")
    with pytest.raises(OSError, match="could not download"):
        make_scene("multi_mnist").dataset("test", 2)


@pytest.mark.usefixtures("no_data_dir")
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_missing_data_file_is_named_with_the_remedy(way, tmp_path, monkeypatch):
    load_mnist.cache_clear()
    if way == "environment":
        monkeypatch.setenv("AIR_DATA_DIR", str(tmp_path))
    options = {"data_dir": tmp_path} if way == "argument" else {}
    message = rf"{tmp_path}/mnist/t10k-images-idx3-ubyte.gz does not exist; .*--data-dir or AIR_DATA_DIR"
    with pytest.raises(FileNotFoundError, match=message):
        make_scene("multi_mnist", **options).dataset("test", 2)


CONTENT = bytes(range(256)) * 50
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def read(path):
    return read_gzip(path.name, SHA256, len(CONTENT), "https://nowhere.invalid/", path.parent)


def test_a_whole_file_is_read(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(CONTENT))
    assert read(path) == CONTENT


@in_turn(
    "damaged message",
    [
        (gzip.compress(CONTENT)[:-20], "is truncated or not gzip"),
        (gzip.compress(CONTENT)[:5], "is truncated or not gzip"),
        (b"", "is truncated or not gzip|has the wrong content"),
        (CONTENT, "is truncated or not gzip"),
        (b"<html>404</html>", "is truncated or not gzip"),
        (gzip.compress(CONTENT)[:30] + b"\x00" * 10 + gzip.compress(CONTENT)[40:], "is truncated or not gzip"),
        (gzip.compress(CONTENT) + b"more", "is truncated or not gzip"),
        (gzip.compress(CONTENT[:-1]), "has the wrong content: sha256 .* wanted"),
        (gzip.compress(b""), "has the wrong content: sha256 .* wanted"),
    ],
)
def test_a_damaged_data_file_is_refused_with_the_remedy(tmp_path, damaged, message):
    path = tmp_path / "file.gz"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"{path} ({message}).*; delete it and get it again"):
        read(path)


@in_turn("damaged", [(CONTENT[:-1],), (CONTENT + b"more",), (b"",), (b"<html>404</html>",)])
def test_a_damaged_file_that_is_not_packed_is_refused_with_the_remedy(tmp_path, damaged):
    path = tmp_path / "file.zip"

    def read_back() -> bytes:
        return read_file(path.name, SHA256, len(CONTENT), "https://nowhere.invalid/", tmp_path)

    path.write_bytes(CONTENT)
    assert read_back() == CONTENT
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"{path} has the wrong content: sha256 .* wanted .*; delete it and get it"):
        read_back()


def test_a_file_that_holds_more_than_it_should_is_not_unpacked(tmp_path):
    (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(20_000_000)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="has the wrong content"):
        read(tmp_path / "file.gz")
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.usefixtures("no_data_dir")
def test_a_failed_download_is_a_clear_error():
    load_mnist.cache_clear()
    message = "could not download t10k-images-idx3-ubyte.gz .*do not download.*--data-dir or AIR_DATA_DIR"
    with pytest.raises(OSError, match=message):
        make_scene("multi_mnist").dataset("test", 2)


@pytest.mark.usefixtures("no_data_dir")
def test_a_download_is_cached_and_checked(tmp_path, monkeypatch):
    asked = []

    def retrieve(url, known_hash, name, folder, **options):
        asked.append((url, name))
        (tmp_path / name).write_bytes(gzip.compress(CONTENT[1:]))
        return str(tmp_path / name)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(ValueError, match="has the wrong content"):
        read_gzip("folder/file.gz", SHA256, len(CONTENT), "https://example.invalid/data/")
    assert asked == [("https://example.invalid/data/file.gz", "file.gz")]
