"""The network that is told what is on a table, and what Figure 7 makes of explanations."""

from dataclasses import replace

import pytest
import torch
from tiny import assert_equal

from air_agents.comparisons import COMPARISONS, TableRegressor, TableRegressorConfig
from air_agents.comparisons.tables import canonical
from air_agents.comparisons.training import ComparisonTrainer
from air_agents.reproduction.crockery import REACH, kind_shares, place_maps
from air_agents.reproduction.scales import SCALES
from air_env.explanation import Explanation
from air_env.scenes import make_scene

SMALL = TableRegressorConfig(channels=(8, 8), hidden=16)


@pytest.fixture(scope="module")
def scenes():
    return make_scene("tabletop3d", renderer="raycast").dataset("train", 200)


def test_the_canonical_order_is_by_kind_and_from_left_to_right(scenes):
    ordered = canonical(scenes)
    for i in range(len(scenes)):
        n = scenes.count[i]
        items = zip(scenes.labels[i, :n].tolist(), scenes.poses[i, :n].tolist(), strict=True)
        wanted = sorted((k, *pose) for k, pose in items)
        found = zip(ordered.labels[i, :n].tolist(), ordered.poses[i, :n].tolist(), strict=True)
        assert [(k, *pose) for k, pose in found] == wanted
        assert (ordered.labels[i, n:] == -1).all()
        assert ordered.poses[i, n:].isnan().all()


def test_only_an_arbitrary_order_matters(scenes):
    turned = replace(scenes, labels=scenes.labels.clone(), poses=scenes.poses.clone(), boxes=scenes.boxes.clone())
    full = scenes.count == 3
    for part in ("labels", "poses", "boxes"):
        getattr(turned, part)[full] = getattr(scenes, part)[full].flip(1)
    torch.manual_seed(0)
    model = TableRegressor(SMALL)
    assert_equal(model.score(turned), model.score(scenes), 1e-5)
    model.config = replace(SMALL, order="arbitrary")
    assert (model.score(turned) - model.score(scenes))[full].abs().min() > 1e-3
    assert_equal(model.score(turned)[~full], model.score(scenes)[~full], 1e-5)


def test_it_learns_what_it_is_told(scenes):
    recipe = replace(
        COMPARISONS.find("supervised_table"), model=SMALL, num_train=200, learning_rate=3e-3, max_steps=150
    )
    trainer = ComparisonTrainer(recipe, scenes)
    before = trainer.model.measure(scenes)
    scores = torch.stack([trainer.step() for _ in range(150)])
    assert scores[-10:].mean() > scores[:10].mean() + 5
    after = trainer.model.measure(scenes)
    assert after["camera_error"] < 0.5 * before["camera_error"]
    z = trainer.model.explain(scenes.float_images())
    assert z.reconstruction.shape == scenes.images.shape
    assert_equal(z.count, z.z_pres.sum(1).long())


def test_an_unknown_order_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="order 'any' is unknown; choose one of arbitrary, canonical"):
        TableRegressorConfig("any")


def test_maps_and_shares_are_of_the_items_of_a_step():
    z = Explanation(
        torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        torch.tensor([[[-REACH, REACH - 0.01], [0.05, 0.05]], [[9.0, -9.0], [0.0, 0.0]]]),
        torch.tensor([[0, 2], [2, 0]]),
        torch.zeros(2, 1),
    )
    maps = place_maps(z)
    assert maps.shape == (2, 16, 16)
    # Far left, and, held at the border, near right; rows begin at the far end.
    assert maps[0, 0, 0] == maps[0, -1, -1] == 0.5
    assert maps[1, 7, 8] == 1
    assert_equal(kind_shares(z), torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64))


def test_runs_of_the_figure_have_their_scenario():
    recipe = SCALES.find("cpu").recipe("tabletop3d_distinct_sleep", 3)
    assert recipe.seed == 3
    assert recipe.sleep_steps > 0
    assert recipe.scene_options["repetitions"] is False
    assert SCALES.find("cpu").recipe("tabletop3d_repeated_arbitrary", 0).model.order == "arbitrary"
