"""Heads: what they see of an agent's inferences, and that they learn from little."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import NUM_STEPS, WHAT, WHERE, assert_equal, generator, make_agent, make_scenes
from torch import Tensor

from air_agents.comparisons import heads
from air_agents.comparisons.heads import HEADS, Fitting, fit_head, from_left_to_right, heads_of
from air_agents.comparisons.representations import REPRESENTATIONS, around, inferred_again, inferred_once, pixels
from air_env.geometry import place

QUICK = Fitting(few=100)


def pairs(num_scenes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two objects of one of four kinds each, in either order of steps, and the sum of their kinds."""
    kinds = torch.randint(4, (num_scenes, 2), generator=generator(seed))
    x = torch.rand(num_scenes, 2, generator=generator(seed + 1)) * 2 - 1
    what = torch.nn.functional.one_hot(kinds, 4).float()
    where = torch.stack([torch.zeros_like(x), x, torch.zeros_like(x)], 2)
    return torch.cat([torch.ones(num_scenes, 2, 1), where, what], 2)[:, None], kinds.sum(1)


def test_objects_are_what_the_agent_explains_when_it_looks_again():
    agent, scenes = make_agent().float(), make_scenes(20)
    torch.nn.init.constant_(agent.presence.bias, 2.0)
    features, z = inferred_again(agent, scenes), agent.explain(scenes.images)
    assert features.shape == (20, features.shape[1], NUM_STEPS, 1 + WHERE + WHAT)
    present = z.z_pres[:, 0] > 0
    assert present.any()
    first = agent.model.render(replace(z, z_pres=F.pad(z.z_pres[:, :1], (0, NUM_STEPS - 1))))
    windows = features[:, :, 0, 1 : 1 + WHERE]
    assert (windows - around(first)[:, None])[present].abs().max() < 0.4, "they differ by their jitter"
    assert (windows[:, 0] != windows[:, 1]).all()
    assert (features[..., 0].diff(dim=2) <= 0).all(), "a later object is never more probable"


def test_an_object_is_described_without_the_others():
    agent, scenes = make_agent().float(), make_scenes(20)
    torch.nn.init.constant_(agent.presence.bias, 100.0)
    features, images = inferred_again(agent, scenes), scenes.float_images()
    z = agent.follow_modes(images, NUM_STEPS).z
    others = sum(agent.model.renderer.add(0 * images, z.z_where[:, i], z.z_what[:, i]) for i in range(1, NUM_STEPS))
    window = features[:, 3, 0, 1 : 1 + WHERE]
    assert_equal(
        features[:, 3, 0, 1 + WHERE :], agent.describe(images - others, torch.zeros_like(images), window).mode, 1e-5
    )


def test_answers_are_averages_over_looks():
    features, targets = pairs(100, 0)
    head = fit_head("shared", features, targets, 7, 0, Fitting(few=3))
    both = torch.cat([features, features.roll(1, 0)], 1)
    assert_equal(head(both), (head(features) + head(features.roll(1, 0))) / 2, 1e-6)


def test_windows_lie_around_what_is_drawn():
    z_where = torch.tensor([[math.log(0.4), 0.3, -0.2], [math.log(0.6), -0.1, 0.0]])
    pixel = (torch.arange(41) + 0.5) * 2 / 41 - 1
    disc = (pixel[:, None].square() + pixel.square() <= 1).float()
    windows = around(place(disc.expand(2, 1, 41, 41), z_where, 100))
    assert_equal(windows[:, 1:], z_where[:, 1:], 1e-3)
    # A disc's light is 1 / sqrt(2) of its radius from the centre.
    assert_equal(windows[:, 0].exp(), 1.85 / math.sqrt(2) * z_where[:, 0].exp(), 1e-2)
    assert around(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_objects_are_read_from_left_to_right_and_absent_ones_last():
    features = torch.zeros(1, 4, 5)
    features[0, :, 0] = torch.tensor([0.9, 0.9, 0.1, 0.1])
    features[0, :, 2] = torch.tensor([0.5, -0.5, -0.9, -1.0])
    assert_equal(from_left_to_right(features)[0, :, 2], torch.tensor([-0.5, 0.5, -0.9, -1.0]))


def test_a_head_learns_a_function_of_two_objects_and_does_not_mind_their_order():
    features, targets = pairs(200, 0)
    head = fit_head("shared", features, targets, 7, 0, QUICK)
    others, answers = pairs(500, 10)
    assert (head(others).argmax(1) == answers).float().mean() > 0.95
    assert_equal(head(others.flip(2)), head(others), 1e-6)


def test_a_head_learns_from_vectors():
    vectors = torch.randn(300, 6, generator=generator())
    targets = (vectors[:, 0] > 0).long()
    head = fit_head("plain", vectors[:200], targets[:200], 2, 0, QUICK)
    assert (head(vectors[200:]).argmax(1) == targets[200:]).float().mean() > 0.85


def test_a_plain_head_reads_codes_of_objects_side_by_side():
    """Without sharing it has to see every pair of kinds, and the order of steps is one more thing to learn."""
    features, targets = pairs(200, 0)
    others, answers = pairs(500, 10)
    head = fit_head("plain", features, targets, 7, 0, QUICK)
    assert (head(others).argmax(1) == answers).float().mean() > 0.5
    assert not torch.allclose(head(others.flip(2)), head(others))
    side_by_side = fit_head("plain", features.flatten(1), targets, 7, 0, QUICK)
    assert_equal(side_by_side(others.flatten(1)), head(others))


@pytest.mark.parametrize(("shape", "known"), [((8, 2, 3, 5), ("plain", "shared")), ((8, 5), ("plain",))])
def test_every_representation_has_every_head_that_it_can_have(shape, known):
    features, targets = torch.rand(shape, generator=generator()), torch.arange(8) % 2
    assert heads_of(features) == known
    for name in HEADS:
        if name in known:
            answers = fit_head(name, features, targets, 2, 0, Fitting(few=2))(features)
            assert_equal(answers.sum(1), torch.ones(8), 1e-5)
        else:
            with pytest.raises(ValueError, match=rf"head '{name}' reads objects, got features \[8, 5\]; choose plain"):
                fit_head(name, features, targets, 2, 0)


def test_a_plain_head_has_the_same_capacity_whatever_it_reads():
    def beyond_the_inputs(features: Tensor) -> int:
        head = fit_head("plain", features, torch.zeros(2, dtype=torch.long), 19, 0, Fitting(few=1))
        return head.num_parameters - 256 * HEADS["plain"].arrange(features)[0, 0].numel()

    read = (torch.rand(2, 3, 4, 5), torch.rand(2, 7), pixels(None, make_scenes(2)))
    sizes = {beyond_the_inputs(features) for features in read}
    assert sizes == {256 + (256 * 256 + 256) + (256 * 19 + 19)}


def test_all_heads_choose_among_the_same_noises_and_scales(monkeypatch):
    tried = []
    fit = heads._fit

    def noted(kind, *arguments):
        tried.append(arguments[-2:])
        return fit(kind, *arguments)

    monkeypatch.setattr(heads, "_fit", noted)
    features, targets = pairs(20, 0)
    for name in HEADS:
        fit_head(name, features, targets, 7, 0, Fitting(few=2))
    half = len(tried) // 2
    assert (
        {scale for _, scale in tried[:half]}
        == {scale for _, scale in tried[half:]}
        == {"as_it_is", "overall", "of_each"}
    )
    assert {noise for noise, _ in tried[:half]} == {noise for noise, _ in tried[half:]} == {0.0, 0.2, 0.5}


def test_presence_weights_an_object_whatever_the_scale():
    features, _ = pairs(50, 0)
    mean, sd = heads._scale_of(HEADS["shared"].arrange(features), "of_each", HEADS["shared"].exact)
    assert (mean[0], sd[0]) == (0, 1)
    read = ((features - mean) / sd)[..., 1:]
    varied = features.flatten(0, 2)[:, 1:].std(0) > 0
    assert_equal(read.flatten(0, 2).mean(0)[varied], torch.zeros(int(varied.sum())), 1e-5)
    assert_equal(read.flatten(0, 2).std(0, correction=0)[varied], torch.ones(int(varied.sum())), 1e-5)


def test_features_that_hardly_vary_are_not_magnified():
    vectors = torch.randn(100, 3, generator=generator())
    vectors[:, 2] *= 1e-9
    _, sd = heads._scale_of(HEADS["plain"].arrange(vectors), "of_each", 0)
    assert sd[2] > 1e-3


def test_what_is_inferred_once_are_the_codes_of_the_explanation():
    agent, scenes = make_agent().float(), make_scenes(20)
    torch.nn.init.constant_(agent.presence.bias, 2.0)
    features, z = inferred_once(agent, scenes), agent.explain(scenes.images)
    assert features.shape == (20, 1, NUM_STEPS, 1 + WHERE + WHAT)
    present = z.z_pres > 0
    assert present.any()
    assert_equal(features[:, 0][present][:, 1:], torch.cat([z.z_where, z.z_what], 2)[present], 1e-5)
    assert_equal(features[..., 0], inferred_again(agent, scenes)[:, :1, :, 0])


def test_representations_name_what_computes_them():
    families = {name: representation.model for name, representation in REPRESENTATIONS.items()}
    assert families["AIR, inferred once"] == families["AIR, inferred again"] == "air"
    assert [name for name, family in families.items() if not family] == ["pixels"]


def test_a_head_follows_its_seed_alone():
    features, targets = pairs(40, 0)
    before = torch.random.get_rng_state()
    heads = [fit_head("shared", features, targets, 7, seed, Fitting(few=3)) for seed in (0, 0, 1)]
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
        fit_head("plain", torch.zeros(num_features, 2), torch.zeros(num_labels, dtype=torch.long), 2, 0)
