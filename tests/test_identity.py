"""Readers of single objects, and how often they name what is drawn."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import SIDE, WHAT, make_model, make_scenes, normal, tiny_scene
from torch import Tensor

from air_agents.evaluation.identity import Reader, ReaderConfig, train_reader
from air_agents.evaluation.metrics import agreement
from air_agents.training import readers
from air_agents.training.readers import find_reader
from air_env import geometry
from air_env.explanation import DrawnExplanation, Explanation
from air_env.model import SceneModel
from air_env.scenes import SceneDataset, make_scene

SMALL = ReaderConfig(placings=3, num_test=400)
LITTLE = ReaderConfig(placings=1, epochs=1, num_test=20)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return train_reader(make_scene("digits"), SMALL)


def told(scenes: SceneDataset) -> DrawnExplanation:
    """The true windows, in the other order."""
    boxes = scenes.boxes.flip(1)
    present, side = (~boxes[..., 0].isnan()).float(), scenes.images.shape[-1]
    z_where = geometry.from_boxes(boxes, side)
    outlines = 2 * boxes / side - 1
    nothing = torch.zeros(*present.shape, WHAT)
    empty = present.new_zeros(len(boxes), 0)
    return DrawnExplanation(present, z_where, nothing, empty, scenes.float_images(), outlines, outlines)


def drawing(images: Tensor) -> SceneModel:
    """A model whose reconstructions, each of one object, are these images."""
    renderer = SimpleNamespace(render=lambda canvas, z: images)
    return SimpleNamespace(renderer=renderer, image_shape=images.shape[1:])  # type: ignore[return-value]


def test_digits_are_read(reader):
    assert reader.accuracy > 0.95


def test_originals_agree_as_often_as_the_reader_is_right(reader):
    scenes = make_scene("digits", counts=(1,)).dataset("test", 400)
    found = agreement(told(scenes), scenes, drawing(scenes.float_images()), reader)
    assert found.float().mean() == reader.accuracy


def test_shuffled_reconstructions_agree_by_chance(reader):
    scenes = make_scene("digits", counts=(1,)).dataset("test", 400)
    squares = reader.squares(scenes.boxes[:, 0], 50)
    others = geometry.attend(scenes.float_images(), squares, 28).roll(1, 0)
    found = agreement(told(scenes), scenes, drawing(geometry.place(others, squares, 50)), reader)
    # As many as have another digit of the same class, and few that are misread.
    same = scenes.labels[:, 0] == scenes.labels[:, 0].roll(1)
    assert same.float().mean() < 0.15
    assert (found == same).float().mean() > 0.93


def test_objects_are_drawn_alone_and_matched_with_their_classes():
    boxes = torch.tensor([[[0, 0, 4, 4], [6, 6, 10, 10.0]]]).repeat(3, 1, 1)
    scenes = SceneDataset(torch.zeros(3, 1, SIDE, SIDE), torch.tensor([2, 2, 1]), torch.tensor([[0, 1]] * 3), boxes)
    model, z_where = make_model().float(), geometry.from_boxes(boxes.flip(1), SIDE)
    z = model.drawn(Explanation.of_objects(torch.ones(3, 2), z_where, normal(3, 2, WHAT).float()))
    seen = []

    def read(images: Tensor, where: Tensor) -> Tensor:
        seen.append((images, where))
        return torch.tensor([1, 0, 1, 1])

    found = agreement(z, scenes, model, SimpleNamespace(read=read))  # type: ignore[arg-type]
    ((images, where),) = seen
    # Steps 0 and 1 of the first two scenes, whose counts are right, are objects 1 and 0.
    assert found.tolist() == [True, True, True, False]
    assert where.tolist() == boxes[:2].flip(1).flatten(0, 1).tolist()
    alone = geometry.place(model.renderer.patch(z.z_what[:2].flatten(0, 1)), z_where[:2].flatten(0, 1), SIDE)
    torch.testing.assert_close(images, alone)


def test_training_follows_the_settings_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again = (train_reader(tiny_scene(), LITTLE) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    other = train_reader(tiny_scene(), replace(LITTLE, seed=1))
    for name, part in first.state_dict().items():
        assert torch.equal(part, again.state_dict()[name])
    assert not torch.equal(first.layers[-1].weight, other.layers[-1].weight)


@pytest.fixture
def trained(monkeypatch, tmp_path) -> list[object]:
    """The scenes that readers are trained on; what is kept goes to a new folder."""
    scenes = []
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(readers, "train_reader", lambda *given: (scenes.append(given), train_reader(*given))[1])
    return scenes


def test_a_reader_is_trained_once_and_again_where_scenes_differ(trained, caplog):
    model, scene = make_model(), tiny_scene()
    with caplog.at_level(logging.INFO):
        first = find_reader(model, scene, LITTLE)
    assert "training a classifier" in caplog.text
    # Counts do not matter to single objects.
    kept = find_reader(model, tiny_scene(counts=(0, 3)), LITTLE)
    assert len(trained) == 1
    images, boxes = make_scenes(20).float_images()[:, :1], torch.tensor([[1.0, 1, 6, 6]]).expand(20, 4)
    assert torch.equal(first.read(images, boxes), kept.read(images, boxes))
    assert first.accuracy == kept.accuracy
    for other in (tiny_scene(object_size=(4, 7)), tiny_scene(image_size=14)):
        find_reader(model, other, LITTLE)
    find_reader(model, scene, replace(LITTLE, seed=1))
    assert len(trained) == 4


def test_a_damaged_reader_is_trained_again(trained, tmp_path):
    first = find_reader(make_model(), tiny_scene(), LITTLE)
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    for content in (whole[:-7], b"", whole.replace(b"reader", b"writer", 1)):
        path.write_bytes(content)
        again = find_reader(make_model(), tiny_scene(), LITTLE)
        assert torch.equal(again.layers[-1].weight, first.layers[-1].weight)
    find_reader(make_model(), tiny_scene(), LITTLE)
    assert len(trained) == 4


def test_a_reader_that_cannot_be_kept_is_used(trained, tmp_path, caplog):
    (tmp_path / "air-env").write_text("no folder")
    assert find_reader(make_model(), tiny_scene(), LITTLE).accuracy >= 0
    assert "could not write" in caplog.text


def test_categories_and_scenes_without_glyphs_have_no_reader(trained):
    sprites = make_scene("sprites")
    assert find_reader(SceneModel(sprites.model), sprites) is None
    objects = make_scene("objects3d", renderer="raycast")
    assert find_reader(SceneModel(objects.model), objects) is None
    assert find_reader(make_model(), SimpleNamespace(image_size=SIDE)) is None  # type: ignore[arg-type]
    assert not trained


@pytest.mark.slow
def test_mnist_is_read(data_dir):
    assert train_reader(make_scene("multi_mnist", data_dir=data_dir)).accuracy >= 0.985
