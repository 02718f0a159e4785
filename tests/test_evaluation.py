"""Evaluation: metrics of cases whose answer is known."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import AGENT, NUM_STEPS, SCENE, SIDE, WHAT, generator, make_agent, make_scenes
from torch import Tensor

from air_agents.evaluation.metrics import compare, count_accuracy, evaluate, match
from air_agents.inference.air import AIR
from air_env import geometry
from air_env.explanation import Explanation
from air_env.model import SceneConfig, SceneModel
from air_env.priors import CountPrior
from air_env.renderers import SpriteConfig
from air_env.scenes import SceneDataset


class Oracle(AIR):
    """An agent that answers with the truth, but for some scenes, where it counts one more."""

    def __init__(self, scenes: SceneDataset, wrong: int = 0) -> None:
        super().__init__(SCENE, AGENT)
        wanted = scenes.count + (torch.arange(len(scenes)) < wrong)
        boxes = torch.zeros(len(scenes), NUM_STEPS, 4)
        boxes[:, :, 2:] = 1
        boxes[:, : scenes.boxes.shape[1]] = torch.where(scenes.boxes.isnan(), boxes[:, : scenes.boxes.shape[1]],
                                                        scenes.boxes)  # fmt: skip
        z_pres = (torch.arange(NUM_STEPS) < wanted[:, None]).float()
        # Present objects first, in another order than the truth has them.
        order = torch.where(z_pres > 0, wanted[:, None] - 1 - torch.arange(NUM_STEPS), torch.arange(NUM_STEPS))
        z_where = geometry.from_boxes(boxes, SIDE).gather(1, order[..., None].long().expand(-1, -1, 3))
        z_what = torch.zeros(len(scenes), NUM_STEPS, WHAT)
        self.answer = self.model.drawn(Explanation.of_objects(z_pres, z_where, z_what))

    def explain(self, images: object, num_steps: int | None = None, *, starts: int | None = None) -> Explanation:
        del starts
        return self.answer


def iou_by_hand(first: Tensor, second: Tensor) -> float:
    width, height = (
        max(0.0, min(first[i + 2], second[i + 2]).item() - max(first[i], second[i]).item()) for i in (0, 1)
    )
    areas = [((box[2] - box[0]) * (box[3] - box[1])).item() for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def random_boxes(num: int, seed: int) -> Tensor:
    corner = 6 * torch.rand(num, 2, generator=generator(seed), dtype=torch.float64)
    size = 1 + 5 * torch.rand(num, 2, generator=generator(seed + 1), dtype=torch.float64)
    return torch.cat([corner, corner + size], 1)


@given(st.integers(1, 4), st.integers(0, 1000))
def test_boxes_are_matched_as_well_as_brute_force_can(count, seed):
    boxes, truth = random_boxes(count, seed), random_boxes(count, seed + 1000)
    best = max(
        sum(iou_by_hand(boxes[i], truth[j]) for i, j in enumerate(order)) / count
        for order in permutations(range(count))
    )
    absent = torch.full((1, 4), math.nan, dtype=torch.float64)
    padded = torch.cat([boxes, absent, absent])[None], torch.cat([truth, absent])[None]
    assert match(*padded)[0].item() == pytest.approx(best, abs=1e-6)


def test_known_boxes_have_their_known_iou():
    boxes = torch.tensor([[[0.0, 0, 2, 2], [4, 4, 6, 6]], [[0, 0, 2, 2], [math.nan] * 4]])
    truth = torch.tensor([[[4.0, 4, 6, 6], [0, 0, 2, 4]], [[1, 0, 3, 2], [math.nan] * 4]])
    assert match(boxes, truth)[0].tolist() == pytest.approx([(1 + 0.5) / 2, 1 / 3])


def test_the_metrics_of_a_perfect_agent_are_perfect():
    scenes = make_scenes(40)
    metrics = evaluate(Oracle(scenes), scenes, num_samples=2, generator=generator())
    assert metrics["count_accuracy"] == 1
    assert {name for name in metrics if name.startswith("count_accuracy") and metrics[name] == 1} >= {
        *("count_accuracy", "count_accuracy_nonempty", "count_accuracy_0", "count_accuracy_1", "count_accuracy_2")
    }
    confusion = {i: [metrics[f"confusion_{i}_{j}"] for j in range(NUM_STEPS + 1) if i != j] for i in range(3)}
    assert confusion == {0: [0, 0, 0], 1: [0, 0, 0], 2: [0, 0, 0]}
    assert metrics["box_iou"] == pytest.approx(1, abs=1e-5)
    # Its patches are bright all over, and are cut at the image's border.
    squares = geometry.boxes(geometry.from_boxes(scenes.boxes, SIDE), SIDE).clamp(0, SIDE)
    tight = [
        sum(iou_by_hand(squares[b, i], scenes.boxes[b, i]) for i in range(n)) / n
        for b, n in enumerate(scenes.count.tolist())
        if n
    ]
    # Windows are square, digits are not; and each is far from the other.
    assert metrics["box_iou_tight"] == pytest.approx(sum(tight) / len(tight), abs=1e-5)
    assert metrics["box_iou_tight_median"] == pytest.approx(sorted(tight)[(len(tight) - 1) // 2], abs=1e-5)
    assert metrics["box_iou_tight"] < 0.95


def test_a_wrong_count_lowers_accuracy_and_leaves_the_iou_alone():
    scenes = make_scenes(40)
    metrics = evaluate(Oracle(scenes, wrong=10), scenes, num_samples=2, generator=generator())
    assert metrics["count_accuracy"] == 0.75
    assert count_accuracy(Oracle(scenes, wrong=10), scenes) == 0.75
    nonempty = (scenes.count > 0) & (torch.arange(40) >= 10)
    assert metrics["count_accuracy_nonempty"] == pytest.approx((nonempty.sum() / (scenes.count > 0).sum()).item())
    assert metrics["box_iou"] == pytest.approx(1, abs=1e-5)
    for i in range(3):
        wrong = (scenes.count[:10] == i).sum() / (scenes.count == i).sum()
        assert metrics[f"count_accuracy_{i}"] == pytest.approx(1 - wrong.item())
        assert metrics[f"confusion_{i}_{i + 1}"] == pytest.approx(wrong.item())


@pytest.fixture(scope="module")
def metrics():
    return evaluate(make_agent().float(), make_scenes(60), num_samples=5, generator=generator())


def test_metrics_are_flat_numbers_with_the_count_accuracy_first(metrics):
    assert next(iter(metrics)) == "count_accuracy"
    assert all(isinstance(value, float) for value in metrics.values())
    for name in ("count_accuracy_sampled", "box_iou", "box_iou_tight", "elbo", "iwae"):
        assert name in metrics


def test_the_parts_of_the_elbo_add_up(metrics):
    parts = metrics["log_likelihood"] - metrics["kl_where"] - metrics["kl_what"] - metrics["kl_count"]
    assert metrics["elbo"] == pytest.approx(parts, abs=1e-4)
    assert min(metrics[name] for name in ("kl_where", "kl_what", "kl_count")) > 0


def test_the_confusion_agrees_with_the_accuracy(metrics):
    counts = make_scenes(60).count
    for i in range(3):
        wrong = sum(metrics[f"confusion_{i}_{j}"] for j in range(NUM_STEPS + 1) if i != j)
        assert metrics[f"count_accuracy_{i}"] + wrong == pytest.approx(1)
    right = sum(metrics[f"count_accuracy_{i}"] * (counts == i).double().mean().item() for i in range(3))
    assert metrics["count_accuracy"] == pytest.approx(right)


def test_evaluation_follows_the_generator_alone(metrics):
    torch.manual_seed(5)
    again = evaluate(make_agent().float(), make_scenes(60), num_samples=5, generator=generator())
    assert again == pytest.approx(metrics, abs=0, nan_ok=True)


def test_evaluation_in_parts_is_that_of_the_whole(metrics, monkeypatch):
    monkeypatch.setattr("air_agents.evaluation.metrics._BATCH", 25)
    parts = evaluate(make_agent().float(), make_scenes(60), num_samples=5, generator=generator())
    exact = [name for name in metrics if name.startswith(("count_accuracy", "confusion", "box"))]
    exact.remove("count_accuracy_sampled")
    assert {name: parts[name] for name in exact} == pytest.approx({name: metrics[name] for name in exact}, nan_ok=True)


class Elsewhere(SceneDataset):
    """Scenes on another device: none of their numbers is within reach until they are moved."""

    def to(self, device: torch.device | str) -> SceneDataset:
        assert str(device) == "cpu"
        return make_scenes(60)


def test_scenes_may_lie_on_any_device(metrics):
    parts = {"images": make_scenes(60).images} | make_scenes(60).truth
    scenes = Elsewhere(**{name: value.to("meta") for name, value in parts.items()})
    measured = evaluate(make_agent().float(), scenes, num_samples=5, generator=generator())
    assert measured == pytest.approx(metrics, abs=0, nan_ok=True)


def test_nothing_to_measure_is_refused():
    agent, scenes = make_agent().float(), make_scenes(2)
    with pytest.raises(ValueError, match="scenes must be at least one, got none"):
        evaluate(agent, scenes[:0])
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        evaluate(agent, scenes, num_samples=0)


def test_more_samples_tighten_the_bound():
    agent, scenes = make_agent().float(), make_scenes(60)
    bounds = [evaluate(agent, scenes, num_samples=k, generator=generator())["iwae"] for k in (1, 5, 30)]
    elbo = evaluate(agent, scenes, num_samples=1, generator=generator())["elbo"]
    assert elbo < bounds[0] < bounds[1] < bounds[2]


def marginal_likelihood(agent: AIR, images: Tensor) -> Tensor:
    """``log p(x)`` of a model with one object, one known place and one number for what it looks like: an integral."""
    model = agent.model
    z = torch.linspace(-7, 7, 701, dtype=torch.float64)[:, None]
    where = model.prior_where.mean.double().expand(len(z), 3)
    canvases = model.renderer.add(torch.zeros(len(z), 1, SIDE, SIDE).double(), where, z)
    log_p_z = -0.5 * z[:, 0].square() - 0.5 * math.log(2 * math.pi) + math.log(14 / 700)
    canvases = canvases.expand(len(images), *canvases.shape)
    one = (model.likelihood.log_prob(images[:, None], canvases) + log_p_z).logsumexp(1)
    none = model.likelihood.log_prob(images, torch.zeros_like(images))
    return torch.stack([none + model.log_p_count[0], one + model.log_p_count[1]]).logsumexp(0)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_importance_weighted_bound_tends_to_the_marginal_likelihood(likelihood):
    agent = make_agent(
        num_steps=1,
        renderer=replace(SCENE.renderer, what_dim=1),
        where_sd=(1e-6,) * 3,
        likelihood=likelihood,
        likelihood_scale=0.7,
        count_prior=CountPrior("uniform"),
    )
    with torch.no_grad():
        # A posterior a little wider than the prior, and beside it: importance weights have light tails.
        for head in (agent.where.linear, agent.what.linear):
            head.weight.mul_(0.1)
            mean, sd = head.bias.chunk(2)
            mean.fill_(0.3)
            sd.fill_(math.log(math.expm1(1.2)))
    scenes = make_scenes(10)
    expected = marginal_likelihood(agent, scenes.images.double() / 255).mean().item()
    metrics = evaluate(agent, scenes, num_samples=150, generator=generator())
    assert metrics["elbo"] < expected - 0.1
    assert metrics["iwae"] == pytest.approx(expected, abs=0.03)


def test_the_iou_is_undefined_where_no_count_is_right():
    scenes = make_scenes(10)
    metrics = evaluate(Oracle(scenes, wrong=10), scenes, num_samples=2, generator=generator())
    assert metrics["count_accuracy"] == 0
    assert math.isnan(metrics["box_iou"])


def test_identities_are_those_of_the_matched_objects():
    boxes = torch.tensor([[[0, 0, 4, 4], [6, 6, 10, 10.0]]]).repeat(3, 1, 1)
    scenes = SceneDataset(torch.zeros(3, 3, 12, 12), torch.tensor([2, 2, 1]), torch.tensor([[0, 1]] * 3), boxes)
    z_where = geometry.from_boxes(boxes.flip(1), 12)
    z = Explanation.of_objects(torch.ones(3, 2), z_where, torch.tensor([[1, 0], [0, 0], [0, 1]]))
    z = SceneModel(SceneConfig(image_size=12, renderer=SpriteConfig())).drawn(z)
    metrics = compare(z, scenes)
    assert metrics["count_accuracy"].tolist() == [True, True, False]
    # The second scene calls one of two objects by the wrong name; the third is counted wrongly and left out.
    assert metrics["identity_accuracy"].float().mean() == 0.75
    assert metrics["box_iou"].tolist() == [1.0, 1.0]
