"""The vector environment: its rewards against independent oracles, its contract, its refusals."""

import copy
import math
import pickle
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from data_files import data_dir_of
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tiny import SCALES, in_turn, pixel_log_prob

from air_env import (
    AIRSceneVectorEnv,
    Explanation,
    PatchConfig,
    SceneConfig,
    SceneModel,
    SpriteConfig,
    World,
    make_world,
)
from air_env.frames import COLOURS
from air_env.likelihoods import LIKELIHOODS
from air_env.priors import CountPrior
from air_env.scenes import SCENES

NUM_STEPS, SIDE, WHAT = 3, 12, 4
TERMS = ("likelihood_gain", "log_p_z_where", "log_p_z_what", "log_p_z_pres", "log_p_z_scene")


@contextmanager
def float64():
    """Constants of a model are rounded to the default dtype when it is made, so it must be made in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def tiny_world(scene: str = "digits", likelihood: str = "gaussian", data_dir: Path | None = None) -> World:
    """Images of 12 pixels, a decoder of 8 units, float64."""
    config = SceneConfig(
        image_size=SIDE,
        num_steps=NUM_STEPS,
        likelihood=likelihood,
        likelihood_scale=SCALES[likelihood],
        renderer=SpriteConfig(size=5) if "sprites" in scene else PatchConfig(what_dim=WHAT, patch_size=5, hidden=8),
    )
    with float64(), torch.random.fork_rng():
        torch.manual_seed(0)
        model = SceneModel(config)
    options = {"image_size": SIDE, "object_size": (4, 6)}
    return make_world(scene, split="test", num_scenes=40, data_dir=data_dir, scene_options=options, model=model)


def make_envs(num_envs: int, **options) -> AIRSceneVectorEnv:
    """The environments of the tiny world."""
    return AIRSceneVectorEnv(num_envs, world=tiny_world(), **options)


def random_latents(*batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of a third to all of the image, and appearances beyond the linear part of the sigmoid."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    log_scale = torch.rand(*batch, 1, **options) - 1
    centre = 1.6 * torch.rand(*batch, 2, **options) - 0.8
    return torch.cat([log_scale, centre], -1), 3 * torch.randn(*batch, WHAT, **options)


def action(num_envs: int, z_pres: int | torch.Tensor = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random action of the given presences."""
    z_where, z_what = random_latents(num_envs, seed=seed)
    return {"z_pres": torch.as_tensor(z_pres).expand(num_envs), "z_where": z_where, "z_what": z_what}


def snapshot(envs: AIRSceneVectorEnv) -> dict[str, torch.Tensor]:
    """Copies of what the episodes are made of."""
    parts = vars(envs.state) | vars(envs.state.z)
    return {name: part.clone() for name, part in parts.items() if name != "z"}


def frames(envs: AIRSceneVectorEnv) -> np.ndarray:
    """The rendered frames, one row for each episode."""
    return np.stack(envs.render() or ())


def decode_by_hand(model: SceneModel, what: np.ndarray) -> np.ndarray:
    """A decoder's patch, ``[1, 5, 5]``."""
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.renderer.decoder.parameters())
    return (1 / (1 + np.exp(-(w2 @ np.maximum(w1 @ what + b1, 0) + b2)))).reshape(1, 5, 5)


def sprite_by_hand(what: int) -> np.ndarray:
    """Red square, green disc or blue triangle, ``[4, 5, 5]``: every pixel is 64 points, covered or not."""
    layers = np.zeros((4, 5, 5))
    colour = [(0.95, 0.25, 0.2), (0.2, 0.85, 0.3), (0.3, 0.45, 1.0)][what]
    for row, column, i, j in product(range(5), range(5), range(8), range(8)):
        x, y = ((8 * k + sub + 0.5) / 20 - 1 for k, sub in ((column, j), (row, i)))
        covered = [True, x * x + y * y <= 1, abs(x) <= (y + 1) / 2][what]
        layers[:, row, column] += np.array([*colour, 1.0]) * covered / 64
    return layers


def log_joint_by_hand(model: SceneModel, image: np.ndarray, z_where: np.ndarray, z_what: np.ndarray) -> float:
    """The log-joint log p(x, z, n) of one image and its n objects, without the package's mathematics."""
    config, count = model.config, len(z_where)
    canvas = torch.zeros(1, len(image), SIDE, SIDE, dtype=torch.float64)
    for (log_scale, x, y), what in zip(z_where, z_what, strict=True):
        s = math.exp(log_scale)
        window_of_image = torch.tensor([[[1 / s, 0, -x / s], [0, 1 / s, -y / s]]], dtype=torch.float64)
        grid = F.affine_grid(window_of_image, [1, 1, SIDE, SIDE], align_corners=False)
        patch = sprite_by_hand(what) if z_what.ndim == 1 else decode_by_hand(model, what)
        placed = F.grid_sample(torch.from_numpy(patch)[None], grid, align_corners=False)
        # A sprite is four layers: the colours times the opacity, and the opacity.
        canvas = placed[:, :3] + (1 - placed[:, 3:]) * canvas if z_what.ndim == 1 else canvas + placed

    weights = [1e-5**n for n in range(NUM_STEPS + 1)]
    log_p = math.log(weights[count] / sum(weights))
    for i in range(count):
        for value, mean, sd in zip(z_where[i], (-1.3, 0.0, 0.0), (0.25, 0.5, 0.5), strict=True):
            log_p += -0.5 * ((value - mean) / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))
        if z_what.ndim == 1:
            log_p -= math.log(3)
        else:
            log_p += sum(-0.5 * value**2 - 0.5 * math.log(2 * math.pi) for value in z_what[i])

    return log_p + pixel_log_prob(config.likelihood, torch.from_numpy(image), canvas[0]).sum().item()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("scene", sorted(SCENES.keys() - {"objects3d", "tabletop3d", "images"}))
def test_rewards_of_an_episode_and_the_constant_are_the_log_joint(scene, likelihood):
    world = tiny_world(scene, likelihood, data_dir_of(scene))
    # Two images for each number of objects, 0 to N.
    counts = torch.arange(NUM_STEPS + 1).repeat(2)
    envs = AIRSceneVectorEnv(len(counts), world=world)
    observation, info = envs.reset(seed=0)
    z_where, z_what = random_latents(len(counts), NUM_STEPS)
    if "sprites" in scene:
        z_what = torch.arange(z_what[..., 0].numel()).view(z_what.shape[:2]) % 3
    total = info["log_p_x_empty"]
    for i in range(NUM_STEPS):
        parts = {"z_pres": counts > i, "z_where": z_where[:, i], "z_what": z_what[:, i]}
        _, rewards, _, _, info = envs.step(parts)
        torch.testing.assert_close(sum(info["reward_terms"].values()), rewards)
        total = total + rewards

    images = observation["image"]
    z_pres = (torch.arange(NUM_STEPS) < counts[:, None]).double()
    whole = envs.model.log_joint(images, Explanation.of_objects(z_pres, z_where, z_what))
    by_hand = [
        log_joint_by_hand(envs.model, images[b].numpy(), z_where[b, :n].numpy(), z_what[b, :n].numpy())
        for b, n in enumerate(counts.tolist())
    ]
    assert images.std() > 0.05
    torch.testing.assert_close(total, torch.tensor(by_hand, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(total, whole, rtol=0, atol=1e-9)


def plan_of(z_where, z_what):
    return Explanation.of_objects(torch.ones_like(z_where[..., 0]), z_where, z_what)


def test_unroll_equals_steps_that_all_draw_an_object():
    envs = make_envs(4)
    envs.reset(seed=3)
    z_where, z_what = random_latents(4, NUM_STEPS)
    before = snapshot(envs)
    plan = envs.unroll(plan_of(z_where, z_what))
    assert all(torch.equal(value, before[name]) for name, value in snapshot(envs).items())
    for i in range(NUM_STEPS):
        parts = {"z_pres": torch.ones(4), "z_where": z_where[:, i], "z_what": z_what[:, i]}
        *_, info = envs.step(parts)
        for name in TERMS:
            torch.testing.assert_close(getattr(plan, name)[:, i], info["reward_terms"][name], rtol=0, atol=1e-9)


def test_finished_episodes_are_absorbing_with_reward_0():
    envs = make_envs(3)
    envs.reset(seed=0)
    *_, terminations, truncations, _ = envs.step(action(3, torch.tensor([1, 0, 1])))
    assert terminations.tolist() == [False, True, False]
    before, observation = snapshot(envs), {}
    for seed in range(NUM_STEPS - 1):
        observation, rewards, terminations, truncations, info = envs.step(action(3, seed=seed))
        assert rewards[1] == 0
        assert all(info["reward_terms"][name][1] == 0 for name in TERMS)
        assert (rewards[[0, 2]] != 0).all()
    assert torch.equal(observation["canvas"][1], before["canvas"][1])
    assert observation["step"].tolist() == [NUM_STEPS, 0, NUM_STEPS]
    # N objects finish an episode; no time limit truncates it.
    assert terminations.tolist() == [True, True, True]
    assert truncations.tolist() == [False, False, False]
    _, rewards, *_ = envs.step(action(3))
    assert rewards.tolist() == [0, 0, 0]


def test_partial_reset_restarts_only_the_masked_episodes():
    envs = make_envs(3)
    _, first = envs.reset(options={"scenes": [0, 1, 2]})
    envs.step(action(3))
    before = snapshot(envs)
    observation, info = envs.reset(options={"reset_mask": np.array([False, True, False]), "scenes": [7, 8, 9]})
    after = snapshot(envs)
    for name, value in before.items():
        assert torch.equal(after[name][[0, 2]], value[[0, 2]])
    pool = envs.scenes.images[8].double() / 255
    assert torch.equal(observation["image"][1], pool)
    assert observation["step"].tolist() == [1, 0, 1]
    assert not observation["canvas"][1].any()
    # The constant and the truth of those that go on are still theirs.
    assert torch.equal(info["log_p_x_empty"][[0, 2]], first["log_p_x_empty"][[0, 2]])
    assert info["count"].tolist() == envs.scenes.count[[0, 8, 2]].tolist()
    assert info["log_p_x_empty"][1] == after["log_p_x"][1]


def test_terminations_serve_as_reset_mask_and_seed_only_who_restarts():
    envs = make_envs(2)
    envs.reset(seed=0)
    *_, terminations, _, _ = envs.step(action(2, torch.tensor([0, 1])))
    kept = envs.state.images[1].clone()
    envs.reset(seed=[5, 5], options={"reset_mask": terminations})
    assert torch.equal(envs.state.images[1], kept)
    _, restarted = envs.reset()
    envs.reset(seed=[5, 1])
    _, fresh = envs.reset()
    # Episode 0 continues the generator of seed 5, episode 1 still that of seed 0 + 1.
    assert torch.equal(restarted["log_p_x_empty"], fresh["log_p_x_empty"])


def test_a_seed_decides_the_scenes_and_seeds_follow_each_other():
    envs = make_envs(8)
    draws = []
    for seed in (3, 3, range(3, 11), 4):
        envs.reset(seed=seed)
        draws.append([envs.reset()[1]["log_p_x_empty"] for _ in range(3)])
    for again in draws[1:3]:
        assert all(map(torch.equal, draws[0], again))
    assert all(torch.equal(a[1:], b[:-1]) for a, b in zip(draws[0], draws[3], strict=True))
    assert not torch.equal(draws[0][0], draws[0][1])
    assert not torch.equal(draws[0][0], draws[3][0])


def test_gradients_of_the_return_agree_with_finite_differences():
    envs = make_envs(2)

    def returns(z_where, z_what):
        envs.reset(options={"scenes": [1, 2]})
        total = torch.zeros(2)
        for i, z_pres in enumerate(torch.tensor([[1, 1], [1, 1], [1, 0]])):
            total = total + envs.step({"z_pres": z_pres, "z_where": z_where[:, i], "z_what": z_what[:, i]})[1]
        return total

    latents = [part.requires_grad_() for part in random_latents(2, NUM_STEPS)]
    assert torch.autograd.gradcheck(returns, latents)
    weights = list(envs.model.renderer.parameters())
    gradients = torch.autograd.grad(returns(*latents).sum(), [*latents, *weights])
    assert all(gradient.any() for gradient in gradients)
    # The latents of the step that stops are not used.
    assert gradients[0][:, 2].bool().tolist() == [[True] * 3, [False] * 3]


def test_grad_enabled_false_cuts_the_graph_of_every_step():
    envs = make_envs(2, grad_enabled=False)
    envs.reset(seed=0)
    parts = action(2)
    parts["z_where"].requires_grad_()
    observation, rewards, *_, info = envs.step(parts)
    plan = envs.unroll(plan_of(*random_latents(2, NUM_STEPS)))
    tensors = [rewards, plan.total, *observation.values(), *info["reward_terms"].values()]
    assert not any(tensor.requires_grad for tensor in tensors)


NAN_WHERE = np.array([[math.nan, 0, 0]] * 2)
INVALID_ACTIONS = {
    "nan": ({"z_where": NAN_WHERE}, "NaN or infinite"),
    "infinite": ({"z_what": np.full((2, WHAT), np.inf)}, "NaN or infinite"),
    "infinite in the model's dtype": ({"z_what": np.full((2, WHAT), np.longdouble("1e400"))}, "NaN or infinite"),
    "out of bounds": ({"z_where": np.full((2, 3), -50.5)}, r"50.5, wanted values in \[-50, 50\]"),
    "nan presence": ({"z_pres": np.array([1, math.nan])}, "must be 1"),
    "presence 2": ({"z_pres": np.array([1, 2])}, "must be 1"),
    "half a presence": ({"z_pres": torch.tensor([1, 0.5])}, "must be 1"),
    "one episode too many": ({"z_pres": np.ones(3)}, r"shape \(3,\), wanted \(2,\)"),
    "no batch axis": ({"z_where": np.zeros(3)}, r"shape \(3,\), wanted \(2, 3\)"),
    "short": ({"z_what": np.zeros((2, WHAT - 1))}, r"shape \(2, 3\), wanted \(2, 4\)"),
    "ragged": ({"z_where": [[0, 0, 0], [0, 0]]}, "'z_where' is not an array"),
    "text": ({"z_where": np.full((2, 3), "a")}, "'z_where' holds <U1"),
    "none": ({"z_what": None}, "'z_what' holds object"),
    "complex": ({"z_what": torch.zeros(2, WHAT, dtype=torch.complex64)}, "complex"),
    "complex array": ({"z_what": np.zeros((2, WHAT), complex)}, "complex"),
    "superfluous": ({"z": np.zeros(2)}, "dict of z_pres, z_where, z_what"),
}


@in_turn("changes message", INVALID_ACTIONS.values())
def test_an_invalid_action_is_refused_and_changes_nothing(changes, message):
    envs = make_envs(2, render_mode="rgb_array")
    envs.reset(seed=0)
    envs.step(action(2))
    before, shown = snapshot(envs), frames(envs)
    with pytest.raises(ValueError, match=message):
        envs.step({**action(2), **changes})
    assert all(torch.equal(value, before[name]) for name, value in snapshot(envs).items())
    assert np.array_equal(frames(envs), shown)


@in_turn("values", [({},), ({"z_pres": np.ones(2)},), (None,), (np.zeros((2, 8)),), ([1, 2],)])
def test_an_action_that_lacks_parts_is_refused(values):
    envs = make_envs(2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="an action is a dict of z_pres, z_where, z_what; got"):
        envs.step(values)


def test_a_misshapen_or_invalid_plan_is_refused():
    envs = make_envs(2)
    envs.reset(seed=0)
    z_where, z_what = random_latents(2, NUM_STEPS)
    with pytest.raises(ValueError, match=r"z_where has shape \(2, 2, 3\), wanted \(2, 3, 3\)"):
        envs.unroll(plan_of(z_where[:, 1:], z_what[:, 1:]))
    with pytest.raises(ValueError, match="z_what holds NaN"):
        envs.unroll(plan_of(z_where, z_what * math.nan))


def test_unchecked_actions_are_still_checked_for_shape():
    envs = make_envs(2, check_actions=False)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        envs.step({**action(2), "z_where": np.zeros((2, 2))})
    envs.step({**action(2), "z_where": NAN_WHERE})
    assert envs.state.canvas.isnan().any()


PIXELS = np.zeros((2, SIDE, SIDE))
INVALID_OPTIONS = {
    "mask of numbers": ({"reset_mask": np.array([1, 0])}, "reset_mask has shape"),
    "mask of wrong length": ({"reset_mask": np.ones(3, bool)}, r"shape \(3,\)"),
    "scene beyond the pool": ({"scenes": [0, 40]}, "from 0 to 39"),
    "negative scene": ({"scenes": [0, -1]}, "from 0 to 39"),
    "half a scene": ({"scenes": [0, 0.5]}, "integers"),
    "scene without an end": ({"scenes": [0, math.inf]}, "integers"),
    "one scene": ({"scenes": [0]}, r"shape \(1,\), wanted \(2,\)"),
    "image of wrong size": ({"images": PIXELS[:, 1:]}, r"shape \(2, 11, 12\), wanted \(2, 1, 12, 12\).*resize"),
    "one image": ({"images": PIXELS[:1]}, r"shape \(1, 12, 12\)"),
    "colours": ({"images": np.zeros((2, 3, SIDE, SIDE))}, r"shape \(2, 3, 12, 12\)"),
    "nan image": ({"images": PIXELS + math.nan}, "images hold NaN"),
    "bright image": ({"images": PIXELS + 255}, "from 255 to 255, wanted.*uint8"),
    "negative image": ({"images": PIXELS - 0.5}, "from -0.5"),
    "text image": ({"images": np.full((2, SIDE, SIDE), "x")}, "images holds <U1"),
    "both": ({"images": PIXELS, "scenes": [0, 1]}, "exclude each other"),
    "unknown": ({"image": PIXELS}, r"\['image'\] are unknown; choose from reset_mask, scenes, images"),
}


@in_turn("options message", INVALID_OPTIONS.values())
def test_an_invalid_reset_is_refused_and_changes_nothing(options, message):
    envs, twin = make_envs(2), make_envs(2)
    for each in (envs, twin):
        each.reset(seed=0)
        each.step(action(2))
    before = snapshot(envs)
    with pytest.raises(ValueError, match=message):
        envs.reset(seed=9, options=options)
    assert all(torch.equal(value, before[name]) for name, value in snapshot(envs).items())
    # The generators have not moved either.
    assert torch.equal(envs.reset()[0]["image"], twin.reset()[0]["image"])


@in_turn("seed", [(-1,), ([1],), ([1, -2],)])
def test_an_invalid_seed_is_refused(seed):
    envs = make_envs(2)
    with pytest.raises(ValueError, match="seed"):
        envs.reset(seed=seed)


def test_images_of_ones_own_are_read_alike_and_copied():
    envs = make_envs(2)
    bytes_ = envs.scenes.images[:2].numpy()
    observation, info = envs.reset(options={"images": bytes_})
    assert not info.keys() & {"count", "labels", "boxes"}
    wanted = observation["image"].clone()
    assert wanted.max() > 0.5
    own = torch.from_numpy(bytes_[:, 0] / 255)
    observation, _ = envs.reset(options={"images": own})
    own.zero_()
    torch.testing.assert_close(observation["image"], wanted)
    # Among others, the truth of such images is marked as unknown; later resets know it again.
    _, info = envs.reset(options={"reset_mask": np.array([True, False]), "scenes": [5, 5]})
    assert info["count"].tolist() == [envs.scenes.count[5].item(), -1]
    assert info["labels"][1].tolist() == [-1] * envs.scenes.labels.shape[1]
    assert info["boxes"][1].isnan().all()
    assert (envs.reset(seed=0)[1]["count"] >= 0).all()


def test_steps_need_a_reset():
    envs = make_envs(2, render_mode="rgb_array")
    for call in (
        lambda: envs.step(action(2)),
        envs.render,
        lambda: envs.unroll(plan_of(*random_latents(2, NUM_STEPS))),
    ):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded, match="first reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})


def test_what_is_handed_out_stays_as_it_was():
    envs = make_envs(2)
    observation, _ = envs.reset(seed=0)
    kept = {name: value.clone() for name, value in observation.items()}
    envs.step(action(2))
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert all(torch.equal(observation[name], value) for name, value in kept.items())


def test_make_vec_gives_the_differentiable_environment():
    envs = gymnasium.make_vec("AIRScene-v1", num_envs=64, world=tiny_world())
    assert isinstance(envs, AIRSceneVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert "torch" not in envs.metadata
    envs.action_space.seed(0)
    observation, _ = envs.reset(seed=0)
    terminations = torch.zeros(64)
    for _ in range(NUM_STEPS):
        observation, rewards, terminations, truncations, _ = envs.step(envs.action_space.sample())
        numpy = {name: value.numpy(force=True) for name, value in observation.items()}
        for name in ("image", "canvas"):
            numpy[name] = numpy[name].astype(np.float32)
        assert numpy in envs.observation_space
        assert rewards.shape == terminations.shape == truncations.shape == (64,)
        assert rewards.isfinite().all()
        assert rewards.requires_grad
        assert terminations.dtype == truncations.dtype == torch.bool
    assert terminations.all()
    envs.close()
    envs.close()


def test_rendering_gives_one_frame_per_episode():
    envs = make_envs(2, render_mode="rgb_array")
    envs.reset(options={"scenes": [3, 3]})
    blank = frames(envs)
    assert np.array_equal(blank[0], blank[1])
    envs.step(action(2, torch.tensor([1, 0])))
    drawn, stopped = frames(envs)
    assert drawn.dtype == np.uint8
    assert [(frame == COLOURS[0]).all(-1).any() for frame in (drawn, stopped)] == [True, False]
    envs.reset(options={"scenes": [3, 3], "reset_mask": np.array([True, False])})
    assert np.array_equal(frames(envs), [blank[0], stopped])
    silent = make_envs(1)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert silent.render() is None
    with pytest.raises(ValueError, match="render_mode 'ascii' is unknown"):
        make_envs(1, render_mode="ascii")


def test_worlds_refuse_what_does_not_fit_together(monkeypatch):
    model = SceneModel(SceneConfig(image_size=SIDE))
    with pytest.raises(ValueError, match="scene 'cats' is unknown; choose one of digits"):
        make_world("cats", model=model)
    with pytest.raises(ValueError, match="num_steps, likelihood cannot change a model"):
        make_world(num_scenes=1, model=model, num_steps=2, likelihood="laplace")
    with pytest.raises(ValueError, match="50 pixels a side, the model wants 12"):
        make_world(num_scenes=1, model=model)
    with pytest.raises(ValueError, match="num_scenes must be a whole number of at least 1"):
        make_world(num_scenes=0)
    with pytest.raises(ValueError, match="count prior 'poisson' is unknown"):
        make_world(num_scenes=1, count_prior="poisson")
    with pytest.raises(ValueError, match="num_steps cannot change a world"):
        AIRSceneVectorEnv(1, world=tiny_world(), num_steps=2)
    with pytest.raises(ValueError, match="num_envs"):
        AIRSceneVectorEnv(0, world=tiny_world())
    monkeypatch.setattr("air_env.world.DEFAULT_RENDERER", "missing.safetensors")
    with pytest.raises(FileNotFoundError, match=r"missing.safetensors.*give a model of your own"):
        make_world(num_scenes=1)


def test_the_settings_of_the_default_model_can_be_changed(monkeypatch):
    loaded = []
    monkeypatch.setattr("air_env.world.load_renderer", loaded.append)
    settings = {"num_steps": 5, "likelihood": "laplace", "likelihood_scale": 0.1, "count_prior": "uniform"}
    envs = AIRSceneVectorEnv(2, num_scenes=2, device="cpu", **settings)
    config = envs.model.config
    assert loaded == [envs.model]
    assert (config.num_steps, config.likelihood, config.likelihood_scale) == (5, "laplace", 0.1)
    assert config.count_prior == CountPrior("uniform")
    assert envs.single_observation_space["step"].n == 6  # type: ignore[index]


def test_pools_are_made_once_whatever_the_options_are(monkeypatch):
    options = {"image_size": SIDE, "object_size": [4, 6], "counts": [1, 2]}
    first, again = (make_world(num_scenes=3, scene_options=options, model=tiny_world().model) for _ in range(2))
    assert first.scenes is again.scenes
    assert first.scenes.count.min() >= 1
    arrays = {**options, "counts": np.array([1, 2])}
    assert make_world(num_scenes=3, scene_options=arrays, model=first.model).scenes is first.scenes
    # Options that cannot be looked up make a new pool, the same.
    monkeypatch.setitem(SCENES, "nested", lambda data_dir, nested: SCENES["digits"](**nested))
    nested = {"nested": {"image_size": SIDE, "object_size": (4, 6), "counts": (1, 2)}}
    again = make_world("nested", num_scenes=3, scene_options=nested, model=first.model)
    assert torch.equal(again.scenes.images, first.scenes.images)


@pytest.mark.parametrize("id_", ["AIRScene-v1", "AIRSceneFlat-v1"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_episodes_start_again_as_those_of_gymnasium(id_, mode):
    options = {"scene": "sprites", "num_scenes": 20, "num_steps": 2}
    ours = gymnasium.make_vec(id_, 3, autoreset_mode=mode, as_numpy=True, **options)
    theirs = SyncVectorEnv([lambda: gymnasium.make(id_, **options)] * 3, autoreset_mode=mode)
    ours.action_space.seed(0)
    observations, infos = zip(ours.reset(seed=7), theirs.reset(seed=7), strict=True)
    finished = 0
    for _ in range(12):
        for name, part in theirs.single_observation_space.spaces.items():
            assert observations[0][name].dtype == part.dtype
            np.testing.assert_array_equal(observations[0][name], observations[1][name])
        for name in ("labels", "boxes", "count"):
            np.testing.assert_array_equal(infos[0][name], infos[1][name])
        actions = ours.action_space.sample()
        observations, *results, infos = zip(ours.step(actions), theirs.step(actions), strict=True)
        for ours_result, theirs_result in results:
            assert ours_result.dtype == theirs_result.dtype
            np.testing.assert_allclose(ours_result, theirs_result, rtol=1e-5)
        assert ("final_obs" in infos[0]) == ("final_obs" in infos[1])
        if "final_obs" in infos[0]:
            np.testing.assert_array_equal(infos[0]["_final_obs"], infos[1]["_final_obs"])
            for i in np.flatnonzero(infos[0]["_final_obs"]):
                for name, part in infos[1]["final_obs"][i].items():
                    np.testing.assert_array_equal(infos[0]["final_obs"][i][name], part)
                gains = [info["final_info"]["reward_terms"]["likelihood_gain"][i] for info in infos]
                assert gains[0] == pytest.approx(gains[1], rel=1e-5)
            assert all(row is None for row in infos[0]["final_obs"][~infos[0]["_final_obs"]])
        finished += int(results[1][0].sum())
    assert finished >= 6


def test_episodes_that_start_again_keep_the_graph_of_the_others():
    envs = make_envs(2, autoreset_mode="NextStep")
    assert envs.autoreset_mode == envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    first = action(2, torch.tensor([1, 0]))
    first["z_where"].requires_grad_()
    envs.step(first)
    _, rewards, terminations, _, info = envs.step(action(2))
    assert not terminations.any()
    assert rewards[1] == 0
    assert "log_p_x_empty" in info
    (gradient,) = torch.autograd.grad(rewards.sum(), first["z_where"])
    assert gradient[0].any()
    assert not gradient[1].any()


def test_autoreset_modes_are_checked():
    with pytest.raises(ValueError, match=r"choose one of .*NextStep.*SameStep.*Disabled"):
        make_envs(2, autoreset_mode="never")


def test_an_environment_with_a_graph_can_be_copied():
    envs = make_envs(2)
    envs.reset(seed=0)
    step = action(2)
    step["z_where"].requires_grad_()
    envs.step(step)
    for copied in (copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):
        assert torch.equal(copied.state.canvas, envs.state.canvas)
        assert not copied.state.canvas.requires_grad
        torch.testing.assert_close(copied.step(action(2, seed=1))[1], copy.deepcopy(envs).step(action(2, seed=1))[1])
    assert envs.state.canvas.requires_grad


def test_small_images_are_enlarged_by_repeating_pixels():
    envs, enlarged = make_envs(2), make_envs(2, min_side=30)
    small, large = (env.reset(seed=0)[0]["image"] for env in (envs, enlarged))
    assert large.shape == (2, 1, 3 * SIDE, 3 * SIDE)
    for i, j in product(range(3), repeat=2):
        assert torch.equal(large[..., i::3, j::3], small)
    observation, *_ = enlarged.step(step := action(2) | {"z_where": action(2)["z_where"].requires_grad_()})
    assert observation["canvas"].shape == large.shape
    assert torch.autograd.grad(observation["canvas"].sum(), step["z_where"])[0].any()
    assert enlarged.single_observation_space["image"].shape == large.shape[1:]  # type: ignore[index]
    with pytest.raises(ValueError, match="min_side must be a whole number of at least 1"):
        make_envs(1, min_side=0)
