"""The agent in use: `explain` against brute force, the images it takes and refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import (
    NUM_STEPS,
    SCENE,
    SIDE,
    WHAT,
    WHERE,
    assert_equal,
    count_probabilities,
    in_turn,
    make_agent,
    make_images,
    make_scenes,
    normal,
    roll_out,
)
from torch import Tensor, nn

from air_agents import AIR, load_agent
from air_agents.evaluation.metrics import accuracies, count_accuracy, evaluate
from air_agents.inference import agent as agent_module
from air_agents.inference import weighing
from air_agents.inference.agent import mode_of
from air_agents.inference.air import AgentConfig, AgentState
from air_agents.inference.cores import CORES, ErrorEmbedding
from air_agents.inference.exploration import Exploration
from air_agents.inference.objects3d import InverseGraphics, InverseGraphicsConfig
from air_agents.inference.weighing import Proposal, weigh
from air_env.explanation import Explanation
from air_env.model import SceneModel
from air_env.scenes import make_scene
from air_env.scenes.objects3d import objects3d
from air_env.scenes.sprites import sprites

PARTS = ("z_pres", "z_where", "z_what", "reconstruction")


NUM_IMAGES = 60


class Capricious(nn.Module):
    """Presence logits that differ from image to image and from step to step, between -4 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, hidden: Tensor) -> Tensor:
        return 4 * torch.sin(300 * hidden.sum(1, keepdim=True)) + self.bias


@pytest.fixture(params=CORES)
def agent(request) -> AIR:
    """An agent that finds every number of objects in some image."""
    return make_capricious(request.param)


def make_capricious(core: str = "air") -> AIR:
    agent = make_agent(core=core)
    agent.presence = Capricious()
    return agent


@pytest.fixture
def images() -> Tensor:
    return make_images(NUM_IMAGES)


def posterior_means(agent: AIR, images: Tensor):
    """The rollout that follows the posterior means."""
    with torch.no_grad():
        return roll_out(agent, images, torch.zeros(len(images), NUM_STEPS, WHERE + WHAT, dtype=torch.float64))


def test_explain_takes_the_most_probable_count_along_the_posterior_means(agent, images):
    rollout, explanation = posterior_means(agent, images), agent.explain(images)
    q = count_probabilities(rollout.logits)
    count = q.argmax(1)
    assert set(count.tolist()) == set(range(NUM_STEPS + 1))
    assert_equal(explanation.count, count)
    present = torch.arange(NUM_STEPS) < count[:, None]
    assert_equal(explanation.z_pres, present.double())
    for name in ("z_where", "z_what"):
        expected = torch.where(present[..., None], getattr(rollout.z, name), 0.0)
        assert_equal(getattr(explanation, name), expected, 1e-9)


def test_the_reconstruction_is_what_the_explanation_draws(agent, images):
    explanation = agent.explain(images)
    canvas = torch.zeros_like(images)
    for i in range(NUM_STEPS):
        drawn = agent.model.renderer.add(canvas, explanation.z_where[:, i], explanation.z_what[:, i])
        canvas = torch.where(explanation.z_pres[:, i, None, None, None] > 0, drawn, canvas)
    assert_equal(explanation.reconstruction, canvas.detach(), 1e-9)


def test_the_composition_of_a_batch_does_not_matter(agent, images, monkeypatch):
    whole = agent.explain(images)
    one_by_one = [agent.explain(image[None]) for image in images[:20]]
    backwards = agent.explain(images.flip(0))
    monkeypatch.setattr(agent_module, "_EXPLAIN_BATCH", 70)
    in_chunks = agent.explain(images)
    for name in PARTS:
        expected = getattr(whole, name)
        assert_equal(torch.cat([getattr(one, name) for one in one_by_one]), expected[:20], 1e-9)
        assert_equal(getattr(backwards, name).flip(0), expected, 1e-9)
        assert_equal(getattr(in_chunks, name), expected, 1e-9)


def test_explain_computes_no_object_that_cannot_be_in_the_answer(agent, images, monkeypatch):
    q = count_probabilities(posterior_means(agent, images).logits)
    # Object i is needed as long as no smaller count is more probable than all larger ones together.
    needed = [int((q[:, i:].sum(1) > q[:, :i].amax(1)).sum()) for i in range(1, NUM_STEPS + 1)]
    described = []
    describe = agent.describe

    def count_rows(images, *others):
        described.append(len(images))
        return describe(images, *others)

    monkeypatch.setattr(agent, "describe", count_rows)
    agent.explain(images)
    assert described == needed
    assert NUM_IMAGES > needed[0] > needed[1] > needed[2] > 0


@pytest.mark.parametrize(("bias", "count"), [(-50.0, 0), (50.0, NUM_STEPS)])
def test_an_agent_without_doubt_stops_at_once_or_never(agent, images, monkeypatch, bias, count):
    with torch.no_grad():
        agent.presence.bias.fill_(bias)
    if count == 0:
        monkeypatch.setattr(agent, "describe", None)
    explanation = agent.explain(images)
    assert (explanation.count == count).all()
    assert (explanation.reconstruction.sum((1, 2, 3)) > 0).all() == (count > 0)


def test_explain_can_look_for_more_objects_than_it_was_trained_for(agent, images):
    with torch.no_grad():
        agent.presence.bias.fill_(50)
    explanation = agent.explain(images, num_steps=5)
    assert explanation.z_where.shape == (NUM_IMAGES, 5, WHERE)
    assert (explanation.count == 5).all()
    assert_equal(explanation.z_where[:, :NUM_STEPS], agent.explain(images).z_where, 1e-9)


def test_an_agent_of_more_steps_is_the_same_network(agent, images):
    longer = agent.with_num_steps(NUM_STEPS + 2)
    assert longer.model.config.num_steps == NUM_STEPS + 2
    for part in PARTS:
        assert_equal(getattr(longer.explain(images), part), getattr(agent.explain(images, NUM_STEPS + 2), part))
    assert_equal(longer.with_num_steps(NUM_STEPS).state_dict(), agent.state_dict())
    metrics = evaluate(longer.float(), make_scenes(8), num_samples=1)
    assert f"confusion_0_{NUM_STEPS + 2}" in metrics
    with pytest.raises(ValueError, match="num_steps must be a whole number from 1 to 1,000, got 0"):
        agent.with_num_steps(0)


@in_turn("num_steps", [(0,), (-1,), ("3",), (1.5,), (10**7,)])
def test_explain_refuses_a_number_of_steps_without_meaning(agent, images, num_steps):
    with pytest.raises(ValueError, match=f"num_steps must be a whole number from 1 to 1,000, got {num_steps!r}"):
        agent.explain(images, num_steps=num_steps)


def test_explain_leaves_no_graph_and_draws_no_random_numbers(agent, images):
    before = torch.get_rng_state()
    explanation = agent.explain(images.requires_grad_())
    assert not any(getattr(explanation, name).requires_grad for name in PARTS)
    assert_equal(torch.get_rng_state(), before)


def test_no_images_have_an_empty_explanation(agent):
    explanation = agent.explain(torch.zeros(0, SIDE, SIDE))
    assert explanation.count.shape == (0,)
    assert explanation.boxes(SIDE).shape == (0, NUM_STEPS, 4)


def test_boxes_are_windows_in_pixels_and_nan_for_absent_objects():
    z_where = torch.tensor([[[math.log(0.5), -0.5, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    z = Explanation.of_objects(torch.tensor([[1.0, 0.0, 0.0]]), z_where, torch.zeros(1, 3, WHAT))
    explanation = SceneModel(SCENE).drawn(z)
    assert explanation.count.tolist() == [1]
    boxes = explanation.boxes(SIDE)
    assert_equal(boxes[0, 0], torch.tensor([0.0, 6.0, 6.0, 12.0]), 1e-5)
    assert boxes[0, 1:].isnan().all()


def forms(pixels: np.ndarray) -> dict[str, object]:
    """The same images, uint8 ``[B, S, S]``, in every form that people have them."""
    read_only = pixels.copy()
    read_only.flags.writeable = False
    tensor = torch.from_numpy(pixels)
    return {
        "numpy": pixels,
        "numpy with channel": pixels[:, None],
        "read-only": read_only,
        "mirrored twice": pixels[:, ::-1].copy()[:, ::-1],
        "fortran": np.asfortranarray(pixels),
        "numpy float64": pixels / 255,
        "numpy float32": (pixels / 255).astype(np.float32),
        "big-endian": (pixels / 255).astype(">f8"),
        "list": (pixels / 255).tolist(),
        "torch": tensor,
        "torch with channel": tensor[:, None],
        "torch float32": tensor.float() / 255,
        "torch float64": tensor.double() / 255,
        "torch with gradient": (tensor.double() / 255).requires_grad_(),
    }


@in_turn("form", [(each,) for each in forms(np.zeros((1, 2, 2), np.uint8))])
def test_images_are_taken_in_every_form(form):
    agent = make_capricious()
    pixels = make_scenes(10).images[:, 0].numpy()
    kept = pixels.copy()
    expected = agent.explain(torch.from_numpy(pixels).double()[:, None] / 255)
    explanation = agent.explain(forms(pixels)[form])
    for name in PARTS:
        assert_equal(getattr(explanation, name), getattr(expected, name), 1e-5)
    assert (pixels == kept).all()


GOOD = np.full((2, SIDE, SIDE), 0.5)


@in_turn(
    "images message",
    [
        (GOOD[0], r"\(12, 12\), wanted \(batch, 1, 12, 12\)"),
        (GOOD[:, :-1], r"\(2, 11, 12\), wanted \(batch, 1, 12, 12\) .*resize or crop"),
        (np.zeros((2, 50, 50)), r"\(2, 50, 50\), wanted .*resize or crop"),
        (np.zeros((2, SIDE, SIDE, 3)), r"\(2, 12, 12, 3\), wanted .*grey"),
        (np.zeros((2, 3, SIDE, SIDE)), r"\(2, 3, 12, 12\), wanted .*grey"),
        (GOOD * math.nan, "NaN, wanted pixels in"),
        (np.where(np.arange(SIDE) == 3, np.inf, GOOD), "inf.*wanted"),
        (GOOD * 255, r"127.5, wanted \[0, 1\]; pass uint8 .*or divide"),
        (GOOD - 1, r"from -0.5 .*wanted \[0, 1\]"),
        (np.full((2, SIDE, SIDE), 255), r"255, wanted \[0, 1\]; pass uint8"),
        (GOOD.astype(complex), "real numbers"),
        (torch.zeros(2, SIDE, SIDE, dtype=torch.complex64), "real"),
        ("photo.png", "array of real numbers"),
        (None, "array of real numbers"),
        ([GOOD[0], GOOD[0, :5]], "array of numbers"),
    ],
)
def test_images_of_another_kind_are_refused_with_the_remedy(images, message):
    with pytest.raises(ValueError, match=message):
        make_agent().explain(images)


def state_with_canvas(agent: AIR, images: Tensor, canvas: Tensor) -> AgentState:
    """The state in the middle of an explanation that draws a canvas."""
    state = agent.initial(images)
    parts = state.hidden, state.cell, state.z_previous
    hidden, cell, z = (normal(*part.shape, seed=seed) for seed, part in enumerate(parts))
    return replace(state, canvas=canvas, hidden=hidden, cell=cell, z_previous=z)


def test_dair_sees_the_error_canvas_and_its_own_state_only(images):
    agent = make_agent(core="dair")
    canvas, common = 0.5 * images.flip(0), images.roll(1, 0)
    before = state_with_canvas(agent, images, canvas)
    same_error = replace(before, images=images + common, canvas=canvas + common)
    other_latents = replace(before, z_previous=before.z_previous + 1)
    _, logit, where = agent.decide(before)
    for state in (same_error, other_latents):
        _, other_logit, other_where = agent.decide(state)
        assert_equal((other_logit, other_where.mean), (logit, where.mean), 1e-12)
    for change in ({"canvas": canvas + 0.1}, {"hidden": before.hidden + 1}):
        assert not torch.allclose(agent.decide(replace(before, **change))[1], logit)


def test_to_dair_a_scene_that_is_explained_looks_empty(images):
    agent = make_agent(core="dair")
    explained, empty = (state_with_canvas(agent, *pair) for pair in ((images, images), (0 * images, 0 * images)))
    assert_equal(agent.decide(explained)[1], agent.decide(empty)[1])


@pytest.mark.parametrize("start", [0.0, 1e-9, 0.3, 0.5, 0.999])
def test_a_window_starts_where_the_error_of_a_square_is_largest_or_considerable(start):
    embed = ErrorEmbedding((2, SIDE, SIDE), 8).double()
    error = normal(3, 2, SIDE, SIDE)
    found = embed.place(error, torch.full((3,), start, dtype=torch.float64))
    radius = round(embed.blur * SIDE / 2)
    for image, place in zip(error.abs().mean(1), found, strict=True):
        padded = F.pad(image, (radius,) * 4)
        squares = [padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1] for y in range(SIDE) for x in range(SIDE)]
        errors = [float(square.mean()) for square in squares]
        considerable = [pixel for pixel, mean in enumerate(errors) if mean >= 0.5 * max(errors)]
        assert 1 < len(considerable) < SIDE**2
        wanted = considerable[math.ceil(start * len(considerable)) - 1] if start else errors.index(max(errors))
        centre = [(wanted % SIDE + 0.5) * 2 / SIDE - 1, (wanted // SIDE + 0.5) * 2 / SIDE - 1]
        assert_equal(place, torch.tensor(centre, dtype=torch.float64), 1e-12)


def test_steps_that_do_not_begin_at_the_peak_go_on_in_other_places(images):
    agent = make_agent(core="dair")
    states = [agent.begin(images, torch.full((NUM_IMAGES,), start, dtype=torch.float64)) for start in (0.0, 0.7)]
    golden = (math.sqrt(5) - 1) / 2
    for wanted in ((0.0, 0.7), (0.0, (0.7 + golden) % 1), (0.0, (0.7 + 2 * golden) % 1)):
        assert [float(state.start[0]) for state in states] == pytest.approx(wanted)
        states = [agent.decide(state)[0] for state in states]


def test_the_second_of_two_objects_is_encoded_in_the_light_of_the_first(images):
    window = torch.zeros(NUM_IMAGES, WHERE, dtype=torch.float64)
    for sees_unexplained in (False, True):
        agent = make_agent(core="dair", sees_unexplained=sees_unexplained)
        alone, beside = (agent.describe(images, canvas, window).mode for canvas in (0 * images, 0.5 * images))
        assert torch.allclose(alone, beside) != sees_unexplained
    with pytest.raises(ValueError, match=r"sees_unexplained .*'air' does not; take one of dair, air_canvas"):
        AgentConfig(sees_unexplained=True)


def test_the_core_of_air_never_sees_the_canvas(images):
    agent = make_agent()
    state = state_with_canvas(agent, images, 0 * images)
    assert_equal(agent.decide(state)[1], agent.decide(replace(state, canvas=images))[1])


@pytest.fixture
def wandering() -> AIR:
    """An agent whose explanations can begin in different places, and that finds an object in some images."""
    return make_agent(1, core="dair")


def test_of_several_explanations_the_one_of_the_largest_importance_weight_is_taken(wandering, images):
    starts, best = 5, torch.full((NUM_IMAGES,), -math.inf, dtype=torch.float64)
    expected = torch.zeros(NUM_IMAGES, dtype=torch.long)
    for k in range(starts):
        start = torch.full((NUM_IMAGES,), k * (math.sqrt(5) - 1) / 2 % 1, dtype=torch.float64)
        state, z_where, z_what, log_q = wandering.begin(images, start), [], [], torch.zeros(NUM_IMAGES).double()
        for n in range(NUM_STEPS + 1):
            if n > 0:
                state, _, first = wandering.decide(state)
                z = wandering.describe_object(state, first, mode_of, mode_of)
                state = wandering.remember(state, z.z_where, z.z_what)
                z_where, z_what, log_q = [*z_where, z.z_where], [*z_what, z.z_what], log_q + z.log_q
            none = images.new_zeros(NUM_IMAGES, 0)
            where, what = (
                torch.cat([none, *parts], 1).unflatten(1, (n, size))
                for parts, size in [(z_where, WHERE), (z_what, WHAT)]
            )
            z_n = Explanation.of_objects(torch.ones(NUM_IMAGES, n), where, what)
            weight = (wandering.model.log_joint(images, z_n) - log_q).detach()
            expected, best = torch.where(weight > best, n, expected), torch.maximum(best, weight)
    explanation = wandering.explain(images, starts=starts)
    assert_equal(explanation.count, expected)
    assert len(expected.unique()) > 1
    log_weights, explanations = weigh(wandering, images, starts)
    assert_equal(log_weights.amax(1), best, 1e-9)
    assert [z.count.unique().tolist() for z in explanations] == [[count] for count in range(NUM_STEPS + 1)]
    wandering.starts = starts
    assert_equal(wandering.explain(images).count, expected)
    assert_equal(wandering.count_posterior(images, NUM_STEPS).argmax(1), expected)


def test_explanations_begin_in_different_places_and_do_not_depend_on_other_images(wandering, images):
    starts = [torch.full((NUM_IMAGES,), start, dtype=torch.float64) for start in (0.0, 0.2, 0.5, 0.8)]
    paths = [wandering.follow_modes(images, NUM_STEPS, start) for start in starts]
    places = torch.stack([path.z.z_where[:, 0, 1:] for path in paths])
    assert (places.std(0) > 1e-3).any(1).float().mean() > 0.5
    whole = wandering.explain(images, starts=4)
    alone = [wandering.explain(image[None], starts=4) for image in images[:10]]
    for part in PARTS:
        assert_equal(getattr(whole, part)[:10], torch.cat([getattr(e, part) for e in alone]), 1e-9)


def test_refinement_moves_windows_and_leaves_categories():
    torch.manual_seed(0)
    agent = AIR(sprites().model, AgentConfig(core="air_canvas"))
    images = agent.model.sample(20, torch.Generator().manual_seed(0))[0]
    for z, refined in zip(weigh(agent, images)[1], weigh(agent, images, refinements=3)[1], strict=True):
        assert_equal(refined.z_what, z.z_what)
        assert torch.equal(refined.z_where, z.z_where) == (z.count == 0).all()


def test_renderers_without_gradient_are_not_refined():
    with pytest.raises(ValueError, match="refinements must be 0 for this agent"):
        InverseGraphics(objects3d(renderer="raycast").model, InverseGraphicsConfig()).explain(
            torch.zeros(1, 3, 32, 32), refinements=2
        )


@pytest.mark.parametrize("refinements", [1, 5])
def test_refinement_climbs_the_log_joint_of_every_count(wandering, images, refinements):
    wandering.splits = False
    log_weights, proposed = weigh(wandering, images, 2)
    refined_weights, refined = weigh(wandering, images, 2, refinements)
    for count, (before, after) in enumerate(zip(proposed, refined, strict=True)):
        gain = (wandering.model.log_joint(images, after) - wandering.model.log_joint(images, before)).detach()
        assert_equal(refined_weights[:, count] - log_weights[:, count], gain, 1e-9)
        assert (gain >= 0).all()
        assert count == 0 or (gain > 0).double().mean() > 0.5
        assert_equal(after.count, before.count)
    explanation = wandering.explain(images, starts=2, refinements=refinements)
    assert_equal(explanation.count, refined_weights.argmax(1))
    chosen = [wandering.explain(image[None], starts=2, refinements=refinements) for image in images[:5]]
    assert_equal(torch.cat([one.z_where for one in chosen]), explanation.z_where[:5], 1e-9)
    assert all(weight.grad is None for weight in wandering.parameters())


def test_an_object_taken_for_two_is_weighed_as_if_q_had_proposed_both(wandering, images):
    """The weight of one object and its halves, from the posteriors of their windows alone."""
    where, size = normal(NUM_IMAGES, WHERE), 0.75
    sds = 0.1 + normal(NUM_IMAGES, NUM_STEPS, WHERE, seed=1).abs(), 0.1 + normal(NUM_IMAGES, NUM_STEPS, WHAT).abs()
    z = wandering.model.nothing(images, NUM_STEPS)
    z = replace(z, z_pres=z.z_pres.clone(), z_where=z.z_where.clone())
    z.z_pres[:, 0], z.z_where[:, 0] = 1, where
    peak = [torch.distributions.Normal(0, sd[:, 0]).log_prob(torch.zeros_like(sd[:, 0])).sum(1) for sd in sds]
    split = weighing._halved(wandering, images, 0 * images, Proposal(z, sum(peak), sds), 0, 1, math.pi / 2)
    halves = [torch.cat([where[:, :1] + math.log(size), where[:, 1:] + shift], 1) for shift in shifts(where)]
    assert_equal(split.z.z_where[:, :2], torch.stack(halves, 1), 1e-12)
    assert_equal(split.z.count, torch.full_like(split.z.count, 2))
    expected = 0.0
    for half, z_what in zip(halves, split.z.z_what.unbind(1), strict=False):
        what = wandering.describe(images, 0 * images, half)
        assert_equal(z_what, what.mean, 1e-12)
        expected = expected + what.log_prob(what.mean) + peak[0]
    assert_equal(split.log_q, expected, 1e-9)


def shifts(where: Tensor) -> list[Tensor]:
    """Where the halves of objects lie, one above the other."""
    up = torch.stack([0 * where[:, 0], 0.35 * where[:, 0].exp()], 1)
    return [up, -up]


def test_two_objects_that_were_taken_for_one_are_found(wandering, images):
    """Whatever the network proposes of two objects, the halves of the best single one may be better."""
    with_halves, without = (weigh_halves(wandering, images, splits) for splits in (True, False))
    assert_equal(with_halves[:, :2], without[:, :2], 1e-9)
    assert (with_halves >= without - 1e-9).all()
    assert (with_halves[:, 2] > without[:, 2] + 1).double().mean() > 0.1


def weigh_halves(agent: AIR, images: Tensor, splits: bool) -> Tensor:
    agent.splits = splits
    return weigh(agent, images, 1, 2)[0][:, :3]


def test_more_objects_than_in_training_are_weighed_as_by_the_agent_with_so_many_steps(wandering, images):
    many = wandering.explain(images, NUM_STEPS + 1, starts=3)
    assert_equal(many.count, wandering.with_num_steps(NUM_STEPS + 1).explain(images, starts=3).count)


def test_a_core_that_does_not_look_for_a_place_is_not_begun_elsewhere(images):
    with pytest.raises(ValueError, match="starts must be 1 for this agent"):
        make_agent().explain(images, starts=2)
    with pytest.raises(ValueError, match=r"starts must be 1 with core 'air'.*take one of dair"):
        AgentConfig(starts=2)
    with pytest.raises(ValueError, match="starts must be"):
        AgentConfig(core="dair", starts=0)
    with pytest.raises(ValueError, match="refinements must be"):
        AgentConfig(refinements=-1)


@pytest.mark.parametrize("core", CORES)
def test_the_error_canvas_carries_no_gradient_to_what_was_drawn(core):
    """DAIR with the gradient through the error canvas is unstable."""
    agent = make_agent(core=core)
    decoder = list(agent.model.renderer.parameters())
    assert torch.autograd.grad(roll_out(agent, make_images(4)).logits.sum(), decoder, allow_unused=True) == (
        (None,) * len(decoder)
    )


def test_an_unknown_core_is_refused_with_the_names_of_the_others():
    with pytest.raises(ValueError, match="core 'lstm' is unknown; choose one of air, dair, air_canvas"):
        AgentConfig(core="lstm")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@in_turn("weight", [(1.0,), (0.5,), (1e-9,), (0.0,)])
def test_exploration_mixes_a_fixed_probability_into_that_of_the_network(dtype, weight):
    logits = torch.tensor([-200.0, -20.0, -1.0, 0.0, 3.0, 20.0, 200.0], dtype=dtype, requires_grad=True)
    mixed = Exploration(weight, 0.75).mix_presence(logits)
    expected = (1 - weight) * logits.double().sigmoid() + 0.75 * weight
    assert_equal(mixed.double().sigmoid(), expected, 1e-6)
    stop = (1 - weight) * (-logits.double()).sigmoid() + 0.25 * weight
    assert_equal((-mixed.double()).sigmoid(), stop, 1e-6)
    assert mixed.isfinite().all()
    (gradient,) = torch.autograd.grad(mixed.sum(), logits)
    assert gradient.isfinite().all()
    assert (gradient[2:5] != 0).all() == (weight < 1)


def test_an_agent_explores_in_every_decision(agent, images):
    noise = normal(NUM_IMAGES, NUM_STEPS, WHERE + WHAT)
    plain = roll_out(agent, images, noise).logits
    agent.exploration = Exploration(0.5, 0.75)
    assert_equal(roll_out(agent, images, noise).logits, Exploration(0.5, 0.75).mix_presence(plain), 1e-9)
    agent.exploration = Exploration(1.0, 0.75)
    assert (agent.explain(images).count == NUM_STEPS).all()


def test_the_shipped_agent_counts_held_out_digits():
    agent = load_agent("digits")
    scenes = make_scene("digits").dataset("test", 500, seed=7)
    assert (agent.explain(scenes.images).count == scenes.count).double().mean() >= 0.97


def test_a_shipped_agent_is_named_where_there_is_none_of_the_name_given():
    with pytest.raises(FileNotFoundError, match=r"no agent at digitz; .*shipped agent: digits"):
        load_agent("digitz")


def test_count_accuracy_is_that_of_explain_and_progress_looks_once():
    scenes, agent = make_scenes(NUM_IMAGES), make_capricious("dair").float()
    once = (agent.explain(scenes.images, starts=1).count == scenes.count).float().mean().item()
    agent.starts = 5
    several = (agent.explain(scenes.images).count == scenes.count).float().mean().item()
    assert count_accuracy(agent, scenes) == several != once
    assert accuracies(agent, scenes)["count_accuracy"] == once
