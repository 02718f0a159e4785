"""Heads: what they see of an agent's inferences, and that they learn from little."""

import pytest
import torch
from tiny import NUM_STEPS, WHAT, WHERE, assert_equal, generator, make_agent, make_scenes
from torch import Tensor

from agents.comparisons.heads import Fitting, fit_head, from_left_to_right, objects

QUICK = Fitting(few=100)


def pairs(num_scenes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two objects of one of four kinds each, in either order of steps, and the sum of their kinds."""
    kinds = torch.randint(4, (num_scenes, 2), generator=generator(seed))
    x = torch.rand(num_scenes, 2, generator=generator(seed + 1)) * 2 - 1
    what = torch.nn.functional.one_hot(kinds, 4).float()
    where = torch.stack([torch.zeros_like(x), x, torch.zeros_like(x)], 2)
    return torch.cat([torch.ones(num_scenes, 2, 1), where, what], 2), kinds.sum(1)


def test_objects_are_what_the_agent_explains():
    agent, scenes = make_agent().float(), make_scenes(20)
    torch.nn.init.constant_(agent.presence.bias, 2.0)
    features, z = objects(agent, scenes), agent.explain(scenes.images)
    assert features.shape == (20, NUM_STEPS, 1 + WHERE + WHAT)
    present = z.z_pres > 0
    assert present.any()
    assert_equal(features[..., 1:][present], torch.cat([z.z_where, z.z_what], 2)[present], 1e-5)
    assert (features[..., 0].diff(dim=1) <= 0).all(), "a later object is never more probable"


def test_objects_are_read_from_left_to_right_and_absent_ones_last():
    features = torch.zeros(1, 4, 5)
    features[0, :, 0] = torch.tensor([0.9, 0.9, 0.1, 0.1])
    features[0, :, 2] = torch.tensor([0.5, -0.5, -0.9, -1.0])
    assert_equal(from_left_to_right(features)[0, :, 2], torch.tensor([-0.5, 0.5, -0.9, -1.0]))


def test_a_head_learns_a_function_of_two_objects_and_does_not_mind_their_order():
    features, targets = pairs(200, 0)
    head = fit_head(features, targets, 7, 0, QUICK)
    others, answers = pairs(500, 10)
    assert (head(others).argmax(1) == answers).float().mean() > 0.95
    assert_equal(head(others.flip(1)), head(others), 1e-6)


def test_a_head_learns_from_vectors():
    vectors = torch.randn(300, 6, generator=generator())
    targets = (vectors[:, 0] > 0).long()
    head = fit_head(vectors[:200], targets[:200], 2, 0, QUICK)
    assert (head(vectors[200:]).argmax(1) == targets[200:]).float().mean() > 0.85


def test_a_head_follows_its_seed_alone():
    features, targets = pairs(40, 0)
    before = torch.random.get_rng_state()
    heads = [fit_head(features, targets, 7, seed, Fitting(few=3)) for seed in (0, 0, 1)]
    assert_equal(torch.random.get_rng_state(), before)
    logits = [head(features) for head in heads]
    assert_equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_more_labels_take_more_iterations_up_to_a_bound():
    fitting = Fitting(few=10, per_label=0.1, most=100)
    assert [fitting.iterations(n) for n in (5, 1_000, 1_500, 60_000)] == [10, 10, 60, 100]


@pytest.mark.parametrize(("num_features", "num_labels"), [(3, 2), (0, 0)])
def test_features_without_labels_are_refused(num_features, num_labels):
    with pytest.raises(ValueError, match=f"needs a label, got {num_features} and {num_labels}"):
        fit_head(torch.zeros(num_features, 2), torch.zeros(num_labels, dtype=torch.long), 2, 0)
