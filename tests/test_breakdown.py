"""Count accuracy by distance, size, overlap and number: scenes made by hand, and an agent whose counts are known."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import AGENT, NUM_STEPS, SCENE, in_turn, make_agent
from torch import Tensor

from air_agents.inference.air import AIR
from air_agents.pages.breakdown import PROPERTIES, breakdown, panels, tables
from air_agents.training.checkpoints import save_agent
from air_env.explanation import DrawnExplanation, Explanation
from air_env.scenes import SceneDataset

NONE = [math.nan] * 4
SCENES = {
    "empty": [],
    "one of 9 pixels": [[0, 0, 4, 9]],
    "a corner in common": [[0, 0, 10, 10], [8, 5, 28, 25]],
    "five pixels apart": [[0, 0, 8, 8], [3, 4, 11, 12]],
    "three, the last two near": [[0, 0, 6, 6], [30, 30, 50, 40], [30, 38, 50, 50]],
    "one inside another": [[10, 10, 30, 30], [15, 15, 20, 20]],
}
BY_HAND = {
    "distance": [math.nan, math.nan, math.hypot(13, 10), 5, 9, math.hypot(2.5, 2.5)],
    "size": [math.nan, 9, 10, 8, 6, 5],
    "overlap": [math.nan, math.nan, 2 * 5 / 100, 5 * 4 / 64, 20 * 2 / 200, 1],
    "number": [0, 1, 2, 2, 3, 2],
}


def scenes_of(boxes: list[list[list[float]]]) -> SceneDataset:
    most = max(1, *map(len, boxes))
    padded = torch.tensor([own + [NONE] * (most - len(own)) for own in boxes], dtype=torch.float32)
    count = torch.tensor([len(own) for own in boxes])
    labels = torch.where(padded[..., 0].isnan(), -1, 0)
    return SceneDataset(torch.zeros(len(boxes), 1, 50, 50, dtype=torch.uint8), count, labels, padded)


class Counting(AIR):
    """An agent that answers with given counts."""

    def __init__(self, counts: Tensor) -> None:
        super().__init__(SCENE, AGENT)
        self.counts = counts

    def explain(self, images: object, num_steps: int | None = None) -> DrawnExplanation:
        z_pres = (torch.arange(NUM_STEPS) < self.counts[:, None]).float()
        z_where = torch.zeros(len(self.counts), NUM_STEPS, 3)
        return self.model.drawn(Explanation.of_objects(z_pres, z_where, torch.zeros(len(self.counts), NUM_STEPS, 4)))


@in_turn("name", [(name,) for name in BY_HAND])
def test_properties_of_scenes_are_those_computed_by_hand(name):
    measured = PROPERTIES.find(name).measure(scenes_of(list(SCENES.values())).boxes.numpy().astype(float))
    assert measured == pytest.approx(BY_HAND[name], nan_ok=True)


@in_turn("boxes", [([[], []],), ([[], [[0, 0, 2, 2]]],)])
def test_scenes_without_two_objects_have_neither_distance_nor_overlap(boxes):
    for name in ("distance", "overlap"):
        assert np.isnan(PROPERTIES.find(name).measure(scenes_of(boxes).boxes.numpy())).all()
        rows = breakdown(Counting(torch.tensor(list(map(len, boxes)))), scenes_of(boxes), [name])
        assert len(rows) == 0
        assert not any(axes.axison for axes in panels(rows).axes)
        assert tables(rows) == ""


def test_an_edge_belongs_to_the_bin_below():
    index, names = PROPERTIES["size"].bins(np.array([7.9, 8.0, 8.1, 22.0, 22.1]))
    assert [names[i] for i in index] == ["up to 8", "up to 8", "8 to 10", "20 to 22", "over 22"]
    index, names = PROPERTIES["overlap"].bins(np.array([0.0, 0.01, 0.9]))
    assert [names[i] for i in index] == ["0", "0 to 0.05", "over 0.5"]


def pairs(distance: float, number: int) -> list[list[list[float]]]:
    return number * [[[0, 0, 8, 8], [distance, 0, distance + 8, 8]]]


def test_known_counts_give_known_accuracies_and_exact_intervals():
    # Of 10 near pairs 9 are taken for one object, of 20 far ones none, of 5 single objects one for two.
    scenes = scenes_of([*pairs(8, 10), *pairs(25, 20), *(5 * [[[0, 0, 11, 5]]])])
    counted = torch.tensor(9 * [1] + [2] + 20 * [2] + 4 * [1] + [2])
    rows = breakdown(Counting(counted), scenes, ["distance", "number", "size", "overlap"])
    found = {(row.by, row.bin): (row.right, row.scenes) for row in rows.itertuples()}
    assert found == {
        ("distance", "7 to 10"): (1, 10),
        ("distance", "22 to 26"): (20, 20),
        ("number", "1"): (4, 5),
        ("number", "2"): (21, 30),
        ("size", "up to 8"): (21, 30),
        ("size", "10 to 12"): (4, 5),
        ("overlap", "0"): (21, 30),
    }
    assert rows.accuracy.tolist() == (rows.right / rows.scenes).tolist()
    limits = rows.set_index(["by", "bin"])[["low", "high"]]
    # Clopper and Pearson's limits are where a tail of the binomial has 2.5 %: in closed form at the ends.
    assert tuple(limits.loc[("distance", "22 to 26")]) == pytest.approx((0.025 ** (1 / 20), 1))
    low, high = limits.loc[("distance", "7 to 10")]
    assert 1 - (1 - low) ** 10 == pytest.approx(0.025)
    assert (1 - high) ** 10 + 10 * high * (1 - high) ** 9 == pytest.approx(0.025)


def test_an_unknown_property_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'colour' is unknown; choose one of distance, size, overlap, number"):
        breakdown(Counting(torch.zeros(1)), scenes_of([[]]), ["colour"])


def test_table_and_picture_show_every_bin():
    scenes = scenes_of([*pairs(8, 10), *pairs(25, 20)])
    rows = breakdown(Counting(torch.tensor(10 * [1] + 20 * [2])), scenes, ["distance", "number", "size"])
    text = tables(rows)
    assert "| 7 to 10 | 10 | 0.000 | 0.000 to 0.308 |" in text
    assert "| 22 to 26 | 20 | 1.000 | 0.832 to 1.000 |" in text
    shown = [axes for axes in panels(rows).axes if axes.axison]
    assert [axes.get_xlabel() for axes in shown] == [PROPERTIES[n].title for n in ("distance", "number", "size")]
    assert [tick.get_text() for tick in shown[0].get_xticklabels()] == ["7 to 10", "22 to 26"]
    assert shown[0].lines[0].get_ydata().tolist() == [0, 1]


def test_the_command_breaks_down_and_writes(tmp_path, air_env_command):
    save_agent(make_agent().float(), tmp_path / "agent.safetensors")
    small = {"object_size": [3, 4]}
    arguments = [
        "evaluate",
        tmp_path / "agent.safetensors",
        "--scene",
        "digits",
        "--num-scenes",
        30,
        "--num-samples",
        1,
    ]
    own = tmp_path / "mine.py"
    own.write_text(f"TINY = {small | {'overlap': 'any'}!r}\n")
    options = ["--difficulty", f"tiny={own}:TINY", "--by", "number", "overlap", "--output-dir", tmp_path / "out"]
    status, out, err = air_env_command(*arguments, *options)
    assert status == 0, err
    assert "| number of objects |" in out
    assert "largest overlap" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"evaluation_digits_tiny.json", *(f"breakdown_digits_tiny.{end}" for end in ("md", "csv", "png"))}
    rows = pd.read_csv(tmp_path / "out" / "breakdown_digits_tiny.csv")
    assert rows[rows.by == "number"].scenes.sum() == 30
    written = json.loads((tmp_path / "out" / "evaluation_digits_tiny.json").read_text())
    assert written["breakdown"][0]["by"] == "number"
    assert written["difficulty"].startswith("tiny=")
    for wrong, message in (
        (("--by", "colour"), "'colour' is unknown"),
        (("--difficulty", "hard"), "'hard' is unknown"),
    ):
        status, _, err = air_env_command(*arguments, *wrong)
        assert status == 1
        assert message in err
