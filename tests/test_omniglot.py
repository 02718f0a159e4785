"""Omniglot: what is ink, what counts twice, whose characters are held out, and files that are not right."""

import shutil
from collections import Counter, defaultdict
from io import BytesIO
from pathlib import Path
from typing import get_args
from zipfile import ZipFile

import numpy as np
import pytest
from data_files import data_dir_of
from PIL import Image

from air_env.scenes import Split, make_scene
from air_env.scenes.omniglot import ALPHABETS, load_omniglot


@pytest.fixture
def folder() -> Path:
    """Where the files of Omniglot are; the test is skipped if they are not there."""
    found = data_dir_of("omniglot")
    assert found is not None
    return found


def test_no_alphabet_is_in_two_splits_and_no_drawing_comes_twice(folder):
    splits = {split: load_omniglot(split, folder) for split in get_args(Split)}
    assert {split: len(glyphs.labels) for split, glyphs in splits.items()} == {
        "train": 3_220,
        "validation": 440,
        "test": 1_180,
    }
    every = [set(glyphs.facts["alphabet"]) for glyphs in splits.values()]
    assert sorted(number for one in every for number in one) == list(range(8))
    assert [ALPHABETS[number] for number in sorted(every[2])] == ["Sanskrit", "Tagalog"]
    pictures = [picture.tobytes() for glyphs in splits.values() for picture in glyphs.images]
    assert len(set(pictures)) == len(pictures) == 4_840


def test_every_character_is_of_one_alphabet_and_was_drawn_once_by_each_of_twenty_writers(folder):
    labels = Counter()
    for split in get_args(Split):
        glyphs = load_omniglot(split, folder)
        alphabet, writer = glyphs.facts["alphabet"], glyphs.facts["writer"]
        labels.update(glyphs.labels.tolist())
        of = defaultdict(set)
        for label, own in zip(glyphs.labels, alphabet, strict=True):
            of[label].add(own)
        assert all(len(alphabets) == 1 for alphabets in of.values())
        assert len(set(zip(glyphs.labels, writer, strict=True))) == len(writer)
    assert labels == {label: 20 for label in range(242)}


def test_ink_is_bright_and_where_it_is_in_the_file(folder):
    # The first character by name: a bit is set where there is paper.
    with ZipFile(folder / "omniglot/images_background_small1.zip") as archive:
        drawing = archive.read("images_background_small1/Balinese/character01/0108_01.png")
    ink = ~np.asarray(Image.open(BytesIO(drawing)))
    glyphs = load_omniglot("train", folder)
    (first,) = np.flatnonzero((glyphs.labels == 0) & (glyphs.facts["writer"] == 0))
    assert glyphs.images.shape[1:] == (53, 53)
    assert glyphs.images[first].mean() / 255 == pytest.approx(ink.mean(), abs=2e-3)
    assert ink.mean() < 0.2
    places = np.argwhere(ink)[:, ::-1]
    borders = np.concatenate([places.min(0), places.max(0) + 1]) * 53 / 105
    assert glyphs.tight_boxes()[first].tolist() == pytest.approx(borders.tolist(), abs=1.0)


def flood(ink: np.ndarray) -> int:
    """The number of pieces, whose pixels touch at sides or corners, by filling one after the other."""
    left, pieces = {tuple(place) for place in np.argwhere(ink)}, 0
    while left:
        pieces, edge = pieces + 1, [left.pop()]
        while edge:
            y, x = edge.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
    return pieces


def test_pieces_are_what_one_fills_without_lifting_the_pen(folder):
    with ZipFile(folder / "omniglot/images_background_small2.zip") as archive:
        names = [name for name in archive.namelist() if "/Tagalog/" in name and name.endswith(".png")]
        counted = [flood(~np.asarray(Image.open(BytesIO(archive.read(name))))) for name in sorted(names)]
    glyphs = load_omniglot("test", folder)
    found = glyphs.facts["pieces"][glyphs.facts["alphabet"] == ALPHABETS.index("Tagalog")]
    assert found.tolist() == counted
    every = np.concatenate([load_omniglot(split, folder).facts["pieces"] for split in get_args(Split)])
    assert (every == 1).mean() == pytest.approx(0.8525, abs=1e-3)


def test_scenes_of_characters_say_whose_they_are(folder):
    scenes = make_scene("omniglot", data_dir=folder).dataset("test", 200)
    assert set(scenes.facts) == {"alphabet", "writer", "pieces"}
    assert set(scenes.count.tolist()) == {1}
    glyphs = load_omniglot("test", folder)
    known = set(zip(glyphs.labels, *glyphs.facts.values(), strict=True))
    assert set(zip(*(part[:, 0].tolist() for part in (scenes.labels, *scenes.facts.values())), strict=True)) <= known
    several = make_scene("omniglot", data_dir=folder, counts=(0, 3), image_size=100).dataset("train", 20)
    assert ((several.facts["writer"] >= 0) == (several.labels >= 0)).all()


@pytest.mark.usefixtures("no_data_dir")
def test_a_folder_without_the_files_is_an_error_with_the_remedy(tmp_path):
    scene = make_scene("omniglot", data_dir=tmp_path)
    path = tmp_path / "omniglot/images_background_small1.zip"
    with pytest.raises(FileNotFoundError, match=rf"{path} does not exist; .*--data-dir or AIR_DATA_DIR"):
        scene.dataset("train", 2)
    with pytest.raises(OSError, match=r"could not download images_background_small1.zip .*--data-dir"):
        make_scene("omniglot").dataset("train", 2)


def test_a_damaged_or_exchanged_file_is_refused_with_the_remedy(folder, tmp_path):
    (tmp_path / "omniglot").mkdir()
    files = [f"omniglot/images_background_small{number}.zip" for number in (1, 2)]
    for name in files:
        shutil.copyfile(folder / name, tmp_path / name)
    (tmp_path / files[1]).write_bytes((folder / files[1]).read_bytes()[:-100])
    message = rf"{tmp_path / files[1]} has the wrong content: .*; delete it and get it again"
    with pytest.raises(ValueError, match=message):
        load_omniglot("test", tmp_path)
    shutil.copyfile(folder / files[0], tmp_path / files[1])
    with pytest.raises(ValueError, match=message):
        load_omniglot("test", tmp_path)
