"""The conformance checks: everything registered passes, and every broken promise is found."""

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_files import data_dir_of
from tiny import in_turn
from torch import nn

from air_env import PatchConfig, SceneConfig, SceneModel, SpriteConfig, make_scene, make_world, vector_env
from air_env.actions import DictActions, FlatPosterior
from air_env.env import AIRSceneEnv
from air_env.priors import GaussianPrior
from air_env.renderers import RENDERERS, PatchRenderer, WindowRenderer
from air_env.scenes import BACKGROUNDS, SCENES, ComposedScene, Glyphs, SceneDataset
from air_env.spaces import to_numpy
from air_env.testing import check_environment, check_renderer, check_scene
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import load_renderer

PATCH, SPRITES = PatchConfig(what_dim=3, patch_size=5, hidden=8), SpriteConfig()
SIDE = 24


@pytest.mark.parametrize("name", SCENES)
def test_registered_scenes_pass(name):
    check_scene(make_scene(name, data_dir=data_dir_of(name)))


@pytest.mark.parametrize("name", ["digits", "sprites"])
def test_crowded_scenes_pass(name):
    check_scene(make_scene(name, counts=(1, 2, 3), object_size=(6, 10), overlap="any"))


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("name", ["digits", "multi_mnist", "sprites"])
def test_scenes_with_backgrounds_pass(name, background):
    check_scene(make_scene(name, data_dir=data_dir_of(name), background=background))


@in_turn("config", [(PATCH,), (SPRITES,), (SpriteConfig(kinds=("yellow diamond",), size=5),)])
def test_renderers_pass(config):
    check_renderer(config.make(), SIDE)


def test_the_shipped_renderer_passes():
    model = SceneModel(SceneConfig())
    load_renderer(model)
    check_renderer(model.renderer, 50)


@in_turn("options", [({},), ({"scene": "sprites"},), ({"likelihood": "laplace", "num_steps": 1},)])
def test_registered_worlds_pass(options):
    check_environment(make_world(num_scenes=20, **options))


class BrokenScene:
    """A good scene, spoiled by a function of its scenes and of what was asked for."""

    image_size = 40

    def __init__(self, spoil):
        self.spoil = spoil

    def dataset(self, split, num_scenes, seed=0):
        scenes = make_scene("sprites").dataset(split, num_scenes, seed)
        return self.spoil(scenes, split, num_scenes, seed)


def spoiled(**changes):
    """A `SceneDataset` with parts that functions of it make."""
    return lambda scenes, *_: replace(scenes, **{name: change(scenes) for name, change in changes.items()})


def with_noise(scenes, *_):
    noise = np.random.default_rng().integers(0, 9, scenes.images.shape).astype(np.uint8)
    return replace(scenes, images=scenes.images.clamp_min(9) - 9 + torch.from_numpy(noise) * (scenes.images > 9))


def with_global_generator(scenes, *_):
    torch.rand(1)
    return scenes


def with_one_seed(scenes, split, num_scenes, seed):
    return make_scene("sprites").dataset(split, num_scenes, 0)


def with_one_split(scenes, split, num_scenes, seed):
    return make_scene("sprites").dataset("train", num_scenes, seed)


def with_two_objects_at_most(scenes: SceneDataset, *_):
    """The first object of every scene is in the image, but not in the truth."""
    labels, boxes = scenes.labels.clone(), scenes.boxes.clone()
    labels[:, 0], boxes[:, 0] = -1, torch.nan
    return replace(scenes, count=(labels >= 0).sum(1), labels=labels, boxes=boxes, facts={})


@in_turn(
    "spoil message",
    [
        (spoiled(images=lambda s: s.images.float() / 255), "images must be uint8 of shape"),
        (spoiled(images=lambda s: s.images[:, 0]), "images must be uint8 of shape"),
        (spoiled(images=lambda s: s.images[:, :2]), r"1 \(grey\) or 3 \(RGB\) channels, got 2"),
        (spoiled(images=lambda s: s.images[:-1]), "images must be uint8 of shape"),
        (spoiled(images=lambda s: s.images // 255), "pixels run from 0 to 255|nothing is in box"),
        (spoiled(images=lambda s: s.images // 4), "pixels run from 0 to 255, the largest is 63"),
        (spoiled(images=lambda s: s.images.clamp_min(3)), "count is 0, but the image is not black"),
        (spoiled(count=lambda s: s.count.int()), "count must be int64"),
        (spoiled(count=lambda s: s.count + 1), r"count is \d, but \d objects have labels and boxes"),
        (spoiled(labels=lambda s: s.labels[:, :1]), "boxes must be float32 of shape"),
        (spoiled(labels=lambda s: s.labels.clamp_min(0)), "must mean the same objects are absent"),
        (spoiled(boxes=lambda s: s.boxes.nan_to_num(0)), "must mean the same objects are absent"),
        (spoiled(boxes=lambda s: s.boxes.double()), "boxes must be float32"),
        (spoiled(facts=lambda s: {"depth": s.facts["depth"].clamp_min(0)}), "depth must be at least 0 for every"),
        (spoiled(facts=lambda s: {"visible": s.facts["visible"][:, :1]}), "visible must be at least 0 for every"),
        (spoiled(boxes=lambda s: s.boxes + 20), "boxes must be x0 < x1, y0 < y1 within the image"),
        (spoiled(boxes=lambda s: s.boxes[..., [2, 1, 0, 3]]), "boxes must be x0 < x1"),
        (spoiled(boxes=lambda s: s.boxes[..., [1, 0, 3, 2]]), "nothing is in box|bright pixels are in no box"),
        (spoiled(boxes=lambda s: s.boxes / 40), "nothing is in box|bright pixels are in no box"),
        (with_two_objects_at_most, "not black everywhere|bright pixels are in no box"),
        (with_noise, "the same arguments gave other images"),
        (with_global_generator, "global random generators were used"),
        (with_one_seed, "two seeds gave the same images"),
        (with_one_split, "test images are training images"),
    ],
)
def test_a_scene_that_breaks_a_promise_fails(spoil, message):
    check_scene(BrokenScene(lambda scenes, *_: scenes))
    with pytest.raises(AssertionError, match=message):
        check_scene(BrokenScene(spoil))


class BrokenRenderer(PatchRenderer):
    """A good renderer, spoiled by a function of its `add` and of the arguments."""

    def __init__(self, spoil):
        super().__init__(PATCH)
        self.spoil = spoil

    def add(self, canvas, z_where, z_what):
        return self.spoil(super().add, canvas, z_where, z_what)

    def draw_all(self, canvas, z):
        return WindowRenderer.draw_all(self, canvas, z)


def half_gradient(value):
    """The value, with half of its gradient."""
    return value / 2 + value.detach() / 2


def with_channels(channels):
    renderer = SPRITES.make()
    renderer.channels = channels
    return renderer


def with_prior(prior):
    renderer = PATCH.make()
    renderer.prior_what = prior
    return renderer


def with_other_draw_all():
    renderer = PATCH.make()
    renderer.draw_all = lambda canvas, z: PatchRenderer.draw_all(renderer, canvas + 0.1, z)
    return renderer


class ShapelessPrior(GaussianPrior):
    def sample(self, *shape, generator=None):
        return super().sample(*shape, generator=generator)[..., 0]


class VaguePrior(GaussianPrior):
    def log_prob(self, value):
        return super().log_prob(value) - torch.inf


def brighter_in_place(draw, canvas, where, what):
    return draw(canvas.add_(0.1), where, what)


def nan_far_away(draw, canvas, where, what):
    near = (where.abs() < 40).all(1)[:, None, None, None]
    return torch.where(near, draw(canvas, where, what), torch.nan)


@in_turn(
    "spoil message",
    [
        (brighter_in_place, "canvas in place"),
        (lambda draw, c, where, what: draw(c, where.zero_(), what), "z_where in place"),
        (lambda draw, c, where, what: draw(c, where, what.zero_()), "z_what in place"),
        (lambda draw, c, where, what: draw(c, where, what)[:, 0], "draw must give|drawing in torch.float32 failed"),
        (lambda draw, c, where, what: draw(c, where, what).double(), "draw must give torch.float32 of shape"),
        (lambda draw, c, where, what: draw(c, where, what).float(), "draw must give|drawing in torch.float64 failed"),
        (lambda draw, c, where, what: draw(c, where @ torch.eye(3), what), "drawing in torch.float64 failed"),
        (lambda draw, c, where, what: draw(c, where, what + 0.01 * torch.randn(3)), "two results for the same"),
        (lambda draw, c, where, what: draw(c, where, what.mean(0).expand_as(what)), "rows must not mix"),
        (lambda draw, c, where, what: c, "objects that are probable a priori change nothing"),
        (lambda draw, c, where, what: draw(c, where, what) + 0.01, "outside the image changed the canvas"),
        (lambda draw, c, where, what: c - draw(c * 0, where, what), "may add at most 1 .* got -"),
        (lambda draw, c, where, what: c + 9 * draw(c * 0, where, what), "may add at most 1 to a pixel"),
        (nan_far_away, "may add at most 1 .* got nan to nan"),
        (lambda draw, c, where, what: draw(c, where.detach(), what), "no gradient with respect to z_where"),
        (lambda draw, c, where, what: draw(c, where, what.detach()), "no gradient with respect to z_what"),
        (lambda draw, c, where, what: draw(c, half_gradient(where), what), "to z_where is not the derivative"),
        (lambda draw, c, where, what: draw(c, where, half_gradient(what)), "to z_what is not the derivative"),
    ],
)
def test_a_renderer_that_breaks_a_promise_of_draw_fails(spoil, message):
    with pytest.raises(AssertionError, match=message):
        check_renderer(BrokenRenderer(spoil), SIDE)


def test_a_renderer_that_is_spoiled_by_nothing_passes():
    check_renderer(BrokenRenderer(lambda draw, *arguments: draw(*arguments)), SIDE)


def test_a_renderer_may_have_no_gradients_if_it_says_so():
    renderer = BrokenRenderer(lambda draw, *arguments: draw(*arguments).detach())
    renderer.differentiable = False
    check_renderer(renderer, SIDE)


def test_a_renderer_that_does_not_say_whether_it_has_gradients_fails():
    renderer = BrokenRenderer(lambda draw, *arguments: draw(*arguments))
    renderer.differentiable = None
    with pytest.raises(AssertionError, match="differentiable must be True or False, got None"):
        check_renderer(renderer, SIDE)


@in_turn(
    "renderer message",
    [
        (object(), "wanted a torch.nn.Module, got a object"),
        (with_channels(2), r"channels must be 1 \(grey\) or 3 \(RGB\), got 2"),
        (with_channels(1), "draw must give torch.float32 of shape|drawing in torch.float32 failed"),
        (with_prior(nn.Identity()), "prior_what must be a Prior, such as a GaussianPrior; got Identity"),
        (with_prior(ShapelessPrior((0.0,) * 3, (1.0,) * 3)), "prior_what.sample must give"),
        (with_prior(VaguePrior((0.0,) * 3, (1.0,) * 3)), "prior_what.log_prob must be finite"),
        (with_prior(GaussianPrior((0.0,) * 2, (1.0,) * 2)), "drawing in torch.float32 failed"),
        (with_other_draw_all(), "draw_all is not what as many calls of draw give"),
    ],
)
def test_a_renderer_that_breaks_another_promise_fails(renderer, message):
    with pytest.raises(AssertionError, match=message):
        check_renderer(renderer, SIDE)


@pytest.mark.parametrize("kind", RENDERERS)
def test_every_renderer_of_ours_passes(kind):
    settings = RENDERERS[kind]
    check_renderer(SceneConfig(num_steps=1, renderer=settings(**SMALL.get(kind, {}))).make_renderer(), SIDE)


SMALL = {
    "patch": {"what_dim": 3, "patch_size": 6},
    "objects3d": {"renderer": "raycast"},
    "tabletop3d": {"renderer": "raycast"},
}


@in_turn("member", [("prior_what",), ("differentiable",), ("boxes",)])
def test_a_renderer_that_lacks_a_member_is_told_which(member):
    class Lacking(nn.Module):
        def __init__(self):
            super().__init__()
            for name in {"channels", "differentiable", "kinds", "max_steps", "prior_where", "prior_what", "prior_scene",
                         "draw", "draw_all", "render", "boxes"} - {member}:  # fmt: skip
                setattr(self, name, 1)

    with pytest.raises(AssertionError, match=f"^{member} is missing; a renderer has channels, .*WindowRenderer"):
        check_renderer(Lacking(), SIDE)


@in_turn(
    "rows faults",
    [
        ({}, ""),
        ({"train": slice(8)}, "3 of 3 validation glyphs are training glyphs"),
        ({"train": slice(9)}, "3 of 3 validation glyphs are training glyphs, 1 of 4 test glyphs are training glyphs"),
        ({"validation": slice(7, 9)}, "1 of 4 test glyphs are validation glyphs"),
        ({"test": slice(4)}, "4 of 4 test glyphs are training glyphs"),
        ({"validation": slice(12)}, "4 of 12 validation glyphs are training glyphs, 4 of 4 test glyphs"),
    ],
)
def test_a_scene_with_the_same_glyphs_in_two_splits_fails(rows, faults):
    glyphs = Glyphs(np.random.default_rng(0).integers(99, 255, (12, 5, 5), np.uint8), np.arange(12))
    rows = {"train": slice(4), "validation": slice(5, 8), "test": slice(8, 12)} | rows

    def of(split):
        return Glyphs(glyphs.images[rows[split]], glyphs.labels[rows[split]])

    # A model that draws codes does not make a fixed set of the glyphs.
    for model in (None, SceneConfig(image_size=20, renderer=PATCH)):
        scene = ComposedScene(of, (6, 9), image_size=20, model=model)
        if not faults:
            check_scene(scene)
            continue
        with pytest.raises(AssertionError, match=f"^{faults}.*; the splits must share no object"):
            check_scene(scene)


def test_a_scene_that_lacks_a_split_is_told_which():
    glyphs = {"train": Glyphs(np.full((1, 5, 5), 255, np.uint8), np.arange(1))}
    scene = ComposedScene(glyphs.__getitem__, (6, 9), image_size=20)
    with pytest.raises(
        AssertionError, match=r"^dataset\('validation', 100, 0\) failed: KeyError.*; a scene has the splits"
    ):
        check_scene(scene)


@in_turn("labels", [(np.arange(7),), (np.full(8, -1),), (np.zeros((8, 1), np.int64),)])
def test_glyphs_without_labels_are_refused(labels):
    with pytest.raises(ValueError, match="glyphs need one label of at least 0 each: got 8 images"):
        Glyphs(np.zeros((8, 5, 5), np.uint8), labels)


def test_checks_leave_what_they_check_as_it_was():
    renderer, world = PATCH.make(), tiny_world()
    before = copy.deepcopy((renderer.state_dict(), world.model.state_dict()))
    check_renderer(renderer, SIDE)
    check_environment(world)
    for old, new in zip(before, (renderer.state_dict(), world.model.state_dict()), strict=True):
        assert all(torch.equal(old[name], new[name]) and old[name].dtype == new[name].dtype for name in old)


def tiny_world(kind=SceneModel):
    """A world of few pixels, whose model is of a given kind."""
    model = kind(SceneConfig(image_size=SIDE, num_steps=2, renderer=SPRITES))
    return make_world("sprites", num_scenes=5, scene_options={"image_size": SIDE, "object_size": (6, 9)}, model=model)


class ForgetsThePrior(SceneModel):
    def step(self, state, action):
        after, terms = super().step(state, action)
        return after, replace(terms, log_p_z_where=terms.log_p_z_where * 0)


class PaysTheFinished(SceneModel):
    def step(self, state, action):
        after, terms = super().step(state, action)
        return after, replace(terms, likelihood_gain=terms.likelihood_gain - (~state.active).double())


class NeverEnds(SceneModel):
    def step(self, state, action):
        after, terms = super().step(replace(state, active=state.active | True), action)
        return replace(after, active=after.active | True, step=after.step.clamp_max(self.config.num_steps - 1)), terms


class LooksAtTheBatch(SceneModel):
    def step(self, state, action):
        after, terms = super().step(state, action)
        return after, replace(terms, likelihood_gain=terms.likelihood_gain.mean().expand_as(after.log_p_x))


class CannotBeCopied(SceneModel):
    def __init__(self, config):
        super().__init__(config)
        self.lock = threading.Lock()


class Device:
    """Something that its process can share, and others cannot have."""

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("it belongs to its process")


class CannotBePickled(SceneModel):
    def __init__(self, config):
        super().__init__(config)
        self.device_handle = Device()


@in_turn(
    "kind message",
    [
        (ForgetsThePrior, r"add up to .* but log p\(x, z, n\) is"),
        (PaysTheFinished, "a finished episode changed or was paid"),
        (NeverEnds, "a finished episode|goes on after 2 objects"),
        (LooksAtTheBatch, "differs between the single and the vector|add up to|was paid"),
        (CannotBeCopied, "cannot be copied"),
        (CannotBePickled, "cannot be pickled for parallel workers: it belongs to its process"),
    ],
)
def test_a_model_that_breaks_a_promise_fails(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_environment(tiny_world(kind))


def wrap(monkeypatch, owner, name, spoil):
    """Replaces a method by a function of it and its arguments."""
    method = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, *args, **kwargs: spoil(method, self, *args, **kwargs))


def accept_nan(read, self, values, *args, **kwargs):
    def mend(value):
        return torch.as_tensor(value).nan_to_num()

    mended = {name: mend(value) for name, value in values.items()} if isinstance(values, dict) else mend(values)
    return read(self, mended, *args, **kwargs)


def advance_when_refusing(step, self, action):
    self.np_random.random()
    return step(self, action)


def truncate(take, self, *args):
    observation, rewards, terminations, _, info = take(self, *args)
    return observation, rewards, terminations, terminations, info


def drop_a_term(take, self, *args):
    result = take(self, *args)
    result[4]["reward_terms"].pop("log_p_z_pres")
    return result


def as_numbers(step, self, action):
    observation, reward, *rest = step(self, action)
    return observation, np.float64(reward), *rest


def show_too_much(step, self, action):
    result = step(self, action)
    result[0]["canvas"] += 9
    return result


def go_on_for_ever(step, self, action):
    if not self.state.active.item():
        return {}, 0.0, True, False, {}
    return step(self, action)


def ignore_the_seed(reset, self, *, seed=None, options=None):
    return reset(self, seed=None, options=options)


def draw_twice(reset, self, *, seed=None, options=None):
    result = reset(self, seed=seed, options=options)
    self.np_random.random()
    return result


def without_generator(getstate, self):
    return getstate(self) | {"_np_random": None}


def close_once(close, self):
    if self.__dict__.setdefault("closed", 0):
        raise RuntimeError("it is closed")
    self.closed = 1
    close(self)


@in_turn(
    "owner name spoil message",
    [
        (AIRSceneVectorEnv, "take", truncate, "an episode was truncated"),
        (AIRSceneVectorEnv, "take", drop_a_term, "rewards are not the sum"),
        (AIRSceneEnv, "step", as_numbers, "must be plain"),
        (AIRSceneEnv, "step", show_too_much, "the observation is not of the space"),
        (AIRSceneEnv, "step", go_on_for_ever, "a finished episode could be stepped"),
        (AIRSceneEnv, "reset", ignore_the_seed, "two resets with the same seed differ"),
        (AIRSceneEnv, "reset", draw_twice, "posterior: episode . differs between the single and the vector"),
        (AIRSceneEnv, "step", advance_when_refusing, "a refused action changed the episode|differs between"),
        (AIRSceneEnv, "__getstate__", without_generator, "does not go on as the original does"),
        (AIRSceneEnv, "close", close_once, "cannot be closed twice"),
        (DictActions, "read", accept_nan, "an action that holds NaN was accepted"),
        (FlatPosterior, "read", accept_nan, "posterior: an action that holds NaN was accepted"),
    ],
)
def test_an_environment_that_breaks_a_promise_fails(monkeypatch, owner, name, spoil, message):
    with monkeypatch.context() as patch:
        wrap(patch, owner, name, spoil)
        with pytest.raises(AssertionError, match=message):
            check_environment(tiny_world())


def test_an_environment_that_shares_memory_fails(monkeypatch):
    buffers = {}
    monkeypatch.setattr(
        vector_env, "to_numpy", lambda part: reused(part, buffers) if is_image(part) else to_numpy(part)
    )
    with pytest.raises(AssertionError, match="share memory"):
        check_environment(tiny_world())


def is_image(part):
    return isinstance(part, torch.Tensor) and part.dim() == 4


def reused(image, buffers):
    """The pixels, in the array that was given out before."""
    buffer = buffers.setdefault((image.shape, image.dtype), np.empty(image.shape, np.float32))
    buffer[...] = image
    return buffer
