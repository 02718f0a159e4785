"""Action modes: what flat actions mean, that a posterior's return is the ELBO, and that no action spoils an episode."""

import copy
import math
import pickle
import warnings
from dataclasses import replace

import gymnasium
import matplotlib
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    AGENT,
    SCENE,
    SCENE_OPTIONS,
    WHAT,
    assert_equal,
    float64,
    generator,
    make_images,
    make_model,
    make_scenes,
    normal,
    roll_out,
    z_score,
)

from air_agents.inference.air import AIR
from air_env import AIRSceneEnv, AIRSceneVectorEnv, SceneModel, SpriteConfig, World, make_scene
from air_env.actions import ACTION_MODES, FlatLatents, FlatPosterior
from air_env.reading import LATENT_BOUND

FLAT = ("latents", "posterior")
KINDS = 3


def sprite_model(dtype=torch.float64) -> SceneModel:
    """Small images of sprites, whose ``z_what`` is one of three categories."""
    with float64():
        model = SceneModel(replace(SCENE, renderer=SpriteConfig()))
    return model.to(dtype)


def world_of(name: str, dtype=torch.float64) -> World:
    """A tiny world of codes (digits) or categories (sprites)."""
    if name == "digits":
        return World(make_model().to(dtype), make_scenes(10))
    return World(sprite_model(dtype), make_scene("sprites", **SCENE_OPTIONS).dataset("test", 10))


MODELS = {"digits": make_model, "sprites": sprite_model}
WORLDS = tuple(MODELS)


def entries(mode: FlatLatents | FlatPosterior, num: int, seed: int = 0) -> torch.Tensor:
    """Random valid actions."""
    return 2 * torch.rand(num, *mode.space.shape, generator=generator(seed), dtype=torch.float64) - 1


def posterior_of(mode: FlatPosterior, actions: torch.Tensor):
    """The distributions that the documented layout says, as torch's own."""
    prior, model = mode.model.prior_where, mode.model
    normal_of = lambda mean, sd, prior: torch.distributions.Normal(  # noqa: E731
        prior.mean + 3 * prior.sd * mean, prior.sd * torch.exp(-6 + 6 * (sd + 1) / 2)
    )
    presence = torch.distributions.Bernoulli(logits=10 * actions[:, 0])
    where = normal_of(actions[:, 1:4], actions[:, 4:7], prior)
    if actions.shape[1] == 7 + KINDS:
        what = torch.distributions.Categorical(logits=10 * actions[:, 7:])
    else:
        what = normal_of(actions[:, 7 : 7 + WHAT], actions[:, 7 + WHAT :], model.prior_what)
    return presence, where, what


FIRST = torch.ones(1, dtype=torch.bool)


def draw_noise(mode: FlatPosterior, num: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([mode.noise(rng) for _ in range(num)]))


@pytest.mark.parametrize("name", WORLDS)
def test_flat_latents_are_objects_in_units_of_the_prior(name):
    mode = FlatLatents(MODELS[name]())
    actions = entries(mode, 50)
    actions[0, 0] = 0
    objects, log_q = mode.act(actions, torch.empty(50, 0), FIRST.expand(50))
    assert not log_q.any()
    assert mode.space.shape == (1 + 3 + (WHAT if name == "digits" else KINDS),)
    assert objects.z_pres.tolist() == [float(action[0] > 0) for action in actions]
    assert objects.z_pres[0] == 0
    mean, sd = (torch.tensor(part, dtype=torch.float64) for part in (SCENE.where_mean, SCENE.where_sd))
    assert_equal(objects.z_where, mean + 3 * sd * actions[:, 1:4], 1e-12)
    if name == "digits":
        assert_equal(objects.z_what, 3 * actions[:, 4:], 1e-12)
    else:
        assert objects.z_what.tolist() == [max(range(KINDS), key=action[4:].tolist().__getitem__) for action in actions]


@pytest.mark.parametrize("name", WORLDS)
def test_the_posterior_pays_the_log_probability_of_what_it_draws(name):
    mode = FlatPosterior(MODELS[name]())
    actions, noise = entries(mode, 200), draw_noise(mode, 200)
    assert mode.space.shape == (1 + 6 + (2 * WHAT if name == "digits" else KINDS),)
    objects, log_q = mode.act(actions, noise, FIRST.expand(len(actions)))
    presence, where, what = posterior_of(mode, actions)
    log_q_what = what.log_prob(objects.z_what)
    latents = where.log_prob(objects.z_where).sum(1) + (log_q_what.sum(1) if name == "digits" else log_q_what)
    assert 50 < objects.z_pres.sum() < 150
    assert_equal(log_q, presence.log_prob(objects.z_pres) + objects.z_pres * latents, 1e-9)


def test_gaussian_noise_moves_the_posterior_by_its_standard_deviation():
    mode = FlatPosterior(make_model())
    actions = entries(mode, 20)
    _, where, what = posterior_of(mode, actions)
    for shift in (0.0, 1.0, -2.0):
        noise = torch.full((20, mode.noise_size), shift, dtype=torch.float64)
        objects, _ = mode.act(actions, noise, FIRST.expand(len(actions)))
        assert_equal(objects.z_where, where.mean + shift * where.stddev, 1e-9)
        assert_equal(objects.z_what, what.mean + shift * what.stddev, 1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_what_the_environment_draws_has_the_posterior_frequencies(name):
    mode, num = FlatPosterior(MODELS[name]()), 20_000
    action = 0.2 * entries(mode, 1, seed=3)
    presence, where, what = posterior_of(mode, action)
    objects, _ = mode.act(action.expand(num, -1), draw_noise(mode, num), FIRST.expand(num))
    assert abs(z_score(objects.z_pres, presence.mean.item())) < 4
    for i in range(3):
        assert abs(z_score(objects.z_where[:, i], where.mean[0, i].item())) < 4
        assert abs(z_score((objects.z_where[:, i] - where.mean[0, i]).square(), where.variance[0, i].item())) < 4
    if name == "sprites":
        for category, probability in enumerate(what.probs[0].tolist()):
            assert abs(z_score((objects.z_what == category).double(), probability)) < 4
        # What is drawn at one step is drawn independently.
        both = (objects.z_what == 0) * objects.z_pres
        assert abs(z_score(both, (what.probs[0, 0] * presence.mean[0]).item())) < 4


@pytest.mark.parametrize("name", WORLDS)
def test_encoding_a_distribution_gives_it_back(name):
    mode = FlatPosterior(MODELS[name]())
    prior, prior_what, num = mode.model.prior_where, mode.model.prior_what, 30
    logit = 9 * normal(num).tanh()
    where = prior.mean + 2.5 * prior.sd * normal(num, 3, seed=1).tanh(), prior.sd * normal(num, 3, seed=2).sigmoid()
    if name == "digits":
        what = 2.5 * normal(num, WHAT, seed=3).tanh(), normal(num, WHAT, seed=4).sigmoid()
    else:
        what = normal(num, KINDS, seed=3)
        assert prior_what.num_categories == KINDS
    actions = mode.encode(logit, where, what if name == "digits" else (what,))
    assert actions.abs().max() <= 1
    presence, decoded_where, decoded_what = posterior_of(mode, actions)
    assert_equal(presence.logits, logit, 1e-9)
    assert_equal((decoded_where.mean, decoded_where.stddev), where, 1e-9)
    if name == "digits":
        assert_equal((decoded_what.mean, decoded_what.stddev), what, 1e-9)
    else:
        assert_equal(decoded_what.logits, what.log_softmax(-1), 1e-9)
    # And `act` reads the same.
    noise = draw_noise(mode, num)
    objects, log_q = mode.act(actions, noise, FIRST.expand(len(actions)))
    expected = presence.log_prob(objects.z_pres)
    log_q_what = decoded_what.log_prob(objects.z_what).reshape(num, -1).sum(1)
    expected = expected + objects.z_pres * (decoded_where.log_prob(objects.z_where).sum(1) + log_q_what)
    assert_equal(log_q, expected, 1e-9)


def test_encoding_clips_what_the_space_cannot_say():
    mode = FlatPosterior(make_model())
    prior, what = mode.model.prior_where, (torch.zeros(1, WHAT), torch.ones(1, WHAT))
    far = prior.mean + torch.tensor([[100.0, -100.0, 0.0]]), prior.sd * torch.tensor([[1e-9, 1e9, 1.0]])
    action = mode.encode(torch.tensor([1e9]), far, what)[0]
    assert action[:7].tolist() == [1, 1, -1, 0, -1, 1, 1]


class Glance(AIR):
    """An agent that describes an object by a fixed window.

    In a step of the environment all distributions are named before anything is drawn, so that what an object is
    cannot depend on where it was drawn.
    """

    def describe(self, images, canvas, z_where):
        return super().describe(images, canvas, torch.zeros_like(z_where))


def glancing_agent(name: str) -> Glance:
    """Its presences, windows and descriptions depend on the image and on the objects before."""
    with float64():
        # A lenient likelihood, so that returns vary little.
        scene = replace(SCENE, likelihood_scale=2.0)
        agent = Glance(scene if name == "digits" else replace(scene, renderer=SpriteConfig()), AGENT)
        for layer in (agent.presence, agent.where.linear, agent.what.linear):
            torch.nn.init.normal_(layer.weight, std=0.3)
        return agent.eval()


@torch.no_grad()
def posterior_returns(agent: AIR, images: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ELBO samples of an agent that tells the environment its distributions, and their parts without ``-log q``."""
    envs = AIRSceneVectorEnv(len(images), world=World(agent.model, make_scenes(1)), action_mode="posterior")
    _, info = envs.reset(seed=seed, options={"images": images})
    total, log_joint, state = info["log_p_x_empty"], info["log_p_x_empty"], agent.initial(images)
    mode = envs.action_mode
    done = torch.zeros(len(images), dtype=torch.bool)
    while not done.all():
        state, logit, where = agent.decide(state)
        what = agent.describe(images, torch.zeros_like(images), where.mean)
        described = (what.log_q,) if agent.categorical else (what.mean, what.sd)
        action = mode.encode(logit, (where.mean, where.sd), described)
        assert (action.abs() < 1).all() or agent.categorical
        assert_parameters_fit(mode, action, logit, where, described)
        _, rewards, done, _, info = envs.step(action)
        total = total + rewards
        log_joint = log_joint + rewards - info["reward_terms"]["neg_log_q"]
        state = agent.remember(state, info["action"]["z_where"], info["action"]["z_what"])
    return total, log_joint


def assert_parameters_fit(mode, action, logit, where, what) -> None:
    """Nothing was clipped: the action is the agent's distribution, to rounding."""
    presence, decoded_where, decoded_what = posterior_of(mode, action)
    assert_equal(presence.logits, logit, 1e-9)
    assert_equal((decoded_where.mean, decoded_where.stddev), (where.mean, where.sd), 1e-9)
    decoded = (decoded_what.logits,) if len(what) == 1 else (decoded_what.mean, decoded_what.stddev)
    assert_equal(decoded, what, 1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_the_mean_return_of_a_posterior_is_the_agents_elbo(name):
    agent, copies = glancing_agent(name), 1_000
    if name == "digits":
        images = make_images(4)
    else:
        images = make_scene("sprites", **SCENE_OPTIONS).dataset("test", 4).images.double() / 255
    images = images.repeat_interleave(copies, 0)
    returns, log_joint = posterior_returns(agent, images, seed=0)
    with torch.no_grad():
        elbo = roll_out(agent, images, noise=5).problem().elbo()
    for i in range(4):
        rows = slice(i * copies, (i + 1) * copies)
        assert abs(z_score(returns[rows] - elbo[rows])) < 4
    assert abs(z_score(returns - elbo)) < 4
    # The test would notice if the entropy were missing.
    assert abs(z_score(log_joint - elbo)) > 5


@pytest.mark.parametrize("mode", ACTION_MODES)
@pytest.mark.parametrize("name", WORLDS)
def test_single_and_vector_environment_agree_in_every_mode(name, mode):
    num_envs, world = 4, world_of(name)
    envs = AIRSceneVectorEnv(num_envs, world=world, action_mode=mode)
    singles = [AIRSceneEnv(world=world, action_mode=mode) for _ in range(num_envs)]
    assert singles[0].action_space == envs.single_action_space
    for env in (envs, *singles):
        env.action_space.seed(0)
    for episode in range(3):
        seed = 5 if episode == 0 else None
        envs.reset(seed=seed)
        for i, env in enumerate(singles):
            env.reset(seed=None if seed is None else seed + i)
        running = list(range(num_envs))
        while running:
            actions = envs.action_space.sample()
            if mode == "dict":
                # Windows that are seen.
                actions["z_where"] = np.float32(actions["z_where"] / 50)
            observation, rewards, terminations, _, info = envs.step(actions)
            for i in list(running):
                own = {k: v[i] for k, v in actions.items()} if mode == "dict" else actions[i]
                single, reward, terminated, _, single_info = singles[i].step(own)
                assert reward == pytest.approx(rewards[i].item(), abs=1e-9)
                assert terminated == bool(terminations[i])
                np.testing.assert_allclose(single["canvas"], observation["canvas"][i].numpy(force=True), atol=1e-6)
                for group in ("reward_terms", "action"):
                    assert single_info[group].keys() == info[group].keys()
                    for part, value in single_info[group].items():
                        np.testing.assert_allclose(value, info[group][part][i].numpy(force=True), atol=1e-9)
                assert mode == "posterior" or single_info["reward_terms"]["neg_log_q"] == 0
                assert reward == pytest.approx(sum(single_info["reward_terms"].values()), abs=1e-9)
                if terminated:
                    running.remove(i)


@pytest.mark.parametrize("name", WORLDS)
def test_gradients_of_posterior_rewards_are_their_derivatives(name):
    world = world_of(name)
    envs = AIRSceneVectorEnv(3, world=world, action_mode="posterior")
    mode = envs.action_mode
    # Probable windows: the entries of the mean are small, and objects are drawn.
    action = 0.3 * entries(mode, 3)
    action[:, 0] = 0.3

    def rewards(action):
        envs.reset(seed=0)
        return envs.step(action)[1]

    assert torch.autograd.gradcheck(rewards, action.requires_grad_())
    (gradient,) = torch.autograd.grad(rewards(action).sum(), action)
    assert (gradient[:, :7] != 0).all()
    # Choices have the gradient of their log-probability only, where a score-function estimator starts.
    going_on = -torch.sigmoid(-10 * action[:, 0]) * 10
    assert_equal(gradient[:, 0], going_on.detach(), 1e-9)


def test_gradients_of_latents_reach_the_action():
    envs = AIRSceneVectorEnv(3, world=world_of("digits"), action_mode="latents")
    action = (0.3 * entries(envs.action_mode, 3)).requires_grad_()
    with torch.no_grad():
        action[:, 0] = 0.5
    envs.reset(seed=0)
    envs.step(action)[1].sum().backward()
    assert action.grad is not None
    assert (action.grad[:, 0] == 0).all()
    assert (action.grad[:, 1:] != 0).all()


def test_without_gradients_nothing_is_drawn_otherwise():
    action = 0.3 * entries(FlatPosterior(make_model()), 3)
    rewards = []
    for grad_enabled in (True, False):
        envs = AIRSceneVectorEnv(3, world=world_of("digits"), action_mode="posterior", grad_enabled=grad_enabled)
        envs.reset(seed=0)
        rewards.append(envs.step(action.clone().requires_grad_())[1])
    assert_equal(rewards[0].detach(), rewards[1])
    assert [reward.requires_grad for reward in rewards] == [True, False]


def test_a_finished_episode_draws_no_noise():
    """Else an episode would depend on how long it waited for the others."""
    envs = AIRSceneVectorEnv(2, world=world_of("digits"), action_mode="posterior")
    action = torch.zeros(2, *envs.single_action_space.shape, dtype=torch.float64)
    action[:, 0] = torch.tensor([-1.0, 1.0])
    envs.reset(seed=0)
    envs.step(action)
    before = [copy.deepcopy(rng.bit_generator.state) for rng in envs.rngs]
    _, rewards, _, _, info = envs.step(action)
    after = [rng.bit_generator.state for rng in envs.rngs]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert rewards[0] == info["reward_terms"]["neg_log_q"][0] == 0


def test_unknown_action_modes_are_named():
    with pytest.raises(ValueError, match="action_mode 'flat' is unknown; choose one of dict, latents, posterior"):
        ACTION_MODES.find("flat")(make_model())


SPECIAL = (0.0, -0.0, 1.0, -1.0, 1.5, 1e-45, 49.9, 50.0, -50.0, 50.1, 6e4, 1e308, math.inf, -math.inf, math.nan)
TORCH_DTYPES = ("f2", "f4", "f8", "i1", "i8", "u1", "?", "c8")
DTYPES = (*TORCH_DTYPES, "g", "U1", "O")


def _array(values: list, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array of the values, repeated, in a dtype that may not hold them."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return np.resize(np.array(values), shape).astype(dtype)


def valid(shape: tuple[int, ...], bound: float) -> st.SearchStrategy[np.ndarray]:
    """Entries up to the bound; long vectors repeat a few numbers."""
    numbers = st.lists(st.floats(-bound, bound, width=32), min_size=1, max_size=4)
    return st.builds(_array, numbers, st.just(shape), st.sampled_from(["f4", "f8"]))


def anything(shape: tuple[int, ...], bound: float) -> st.SearchStrategy:
    """Arrays, tensors and lists of any size, type and value, and what is none of these."""
    shapes = st.sampled_from([shape, shape, shape, (), (0,), (1, *shape), (*shape, 1), (2, 2)])
    numbers = st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4)
    arrays = st.builds(_array, numbers, shapes, st.sampled_from(DTYPES))
    tensors = st.builds(_array, numbers, shapes, st.sampled_from(TORCH_DTYPES)).map(torch.from_numpy)
    others = st.sampled_from([None, "stop", [], {}, 10**400, 1j, [[1], [1, 2]], b"1", len])
    return st.one_of(arrays, tensors, valid(shape, bound).map(np.ndarray.tolist), others)


def actions_of(space: gymnasium.Space) -> st.SearchStrategy:
    """Valid actions, and others."""
    if isinstance(space, gymnasium.spaces.Box):
        return st.one_of(valid(space.shape, 1), anything(space.shape, 1))
    assert isinstance(space, gymnasium.spaces.Dict)
    what = space["z_what"]
    if isinstance(what, gymnasium.spaces.Discrete):
        z_what = st.integers(0, KINDS - 1), st.sampled_from([-1, KINDS, 0.5, math.nan, [0], "red"])
    else:
        z_what = valid(what.shape, LATENT_BOUND), anything(what.shape, LATENT_BOUND)
    parts = {
        "z_pres": (st.sampled_from([0, 1, 1, True, np.int64(1)]), anything((), 1)),
        "z_where": (valid((3,), LATENT_BOUND), anything((3,), LATENT_BOUND)),
        "z_what": z_what,
    }
    proper = {name: first for name, (first, _) in parts.items()}
    mixed = {name: st.one_of(*strategies) for name, strategies in parts.items()}
    misnamed = st.fixed_dictionaries({}, optional={**proper, "what": st.just(0), 3: st.just(0)})
    whole = st.fixed_dictionaries(proper)
    return st.one_of(whole, whole, st.fixed_dictionaries(mixed), misnamed, anything((8,), 1))


def snapshot(env: AIRSceneEnv) -> dict:
    """Copies of everything that an episode is made of, its generator included."""
    generator = env.np_random.bit_generator.state
    parts = vars(env.state) | vars(env.state.z)
    state = {name: part.clone() for name, part in parts.items() if name != "z"}
    drawn = [generator["state"]["state"] % 2**62, generator["has_uint32"], generator["uinteger"]]
    return {**state, "total": env._envs._returns.clone(), "generator": drawn}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(
    ("env_id", "mode"), [("AIRScene-v1", "dict"), ("AIRSceneFlat-v1", "latents"), ("AIRSceneFlat-v1", "posterior")]
)
def test_no_action_corrupts_an_episode(name, env_id, mode):
    """1,000 episodes in all: an action is refused before anything has changed, or it is a valid step."""
    env = gymnasium.make(
        env_id, world=world_of(name, torch.float32), action_mode=mode, render_mode="rgb_array", disable_env_checker=True
    ).unwrapped
    assert isinstance(env, AIRSceneEnv)
    actions, accepted, refused, episodes = actions_of(env.action_space), 0, 0, 0

    @settings(max_examples=170)
    @given(st.data())
    def play(data):
        nonlocal accepted, refused, episodes
        env.reset(seed=data.draw(st.integers(0, 1000)))
        episodes += 1
        for _ in range(8):
            action = data.draw(actions)
            before = snapshot(env)
            try:
                observation, reward, terminated, truncated, info = env.step(action)
            except ValueError:
                refused += 1
                assert_equal(snapshot(env), before)
                continue
            accepted += 1
            assert observation in env.observation_space
            assert type(reward) is float
            assert math.isfinite(reward)
            assert truncated is False
            assert reward == pytest.approx(sum(info["reward_terms"].values()), rel=1e-5, abs=1e-2)
            present = info["action"]["z_pres"] > 0.5
            assert observation["step"] == before["step"].item() + present
            assert terminated is bool(not present or observation["step"] == SCENE.num_steps)
            assert env.state.canvas.isfinite().all()
            assert env.state.log_p_x.isfinite().all()
            if terminated:
                return

    play()
    assert episodes >= 170
    assert min(accepted, refused) > 100


@pytest.mark.parametrize("mode", FLAT)
@pytest.mark.parametrize("scene", WORLDS)
def test_gymnasiums_checker_passes_on_the_flat_environment(scene, mode):
    matplotlib.use("Agg")
    env = gymnasium.make("AIRSceneFlat-v1", scene=scene, num_scenes=20, action_mode=mode, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def flat_env(mode: str, name: str = "sprites", **options) -> AIRSceneEnv:
    env = gymnasium.make("AIRSceneFlat-v1", world=world_of(name, torch.float32), action_mode=mode, **options).unwrapped
    assert isinstance(env, AIRSceneEnv)
    return env


@pytest.mark.parametrize("mode", FLAT)
@pytest.mark.parametrize("name", WORLDS)
def test_flat_environments_show_bytes_that_share_no_memory(name, mode):
    env, twin = flat_env(mode, name), flat_env(mode, name)
    arrays = []
    for each in (env, twin):
        each.action_space.seed(0)
        results = [each.reset(seed=0)[0]]
        results.append(each.step(each.action_space.sample())[0])
        results.append(each.reset()[0])
        assert all(observation in each.observation_space for observation in results)
        arrays.append([observation[part] for observation in results for part in ("image", "canvas")])
    for mine, others in zip(*arrays, strict=True):
        assert mine.dtype == np.uint8
        assert np.array_equal(mine, others)
    every = arrays[0]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(every) for b in every[:i])
    for array in every:
        array.fill(77)
    first, second = (each.step(each.action_space.sample()) for each in (env, twin))
    assert np.array_equal(first[0]["canvas"], second[0]["canvas"])
    assert first[1] == second[1]


@pytest.mark.parametrize("mode", FLAT)
def test_a_pickled_flat_environment_draws_the_same(mode):
    env = flat_env(mode)
    env.reset(seed=0)
    twin = pickle.loads(pickle.dumps(env))
    action = env.action_space.sample()
    for _ in range(3):
        results = [each.step(action) for each in (env, twin)]
        assert results[0][1:3] == results[1][1:3]
        assert np.array_equal(results[0][0]["canvas"], results[1][0]["canvas"])
        if results[0][2]:
            starts = [each.reset()[1]["log_p_x_empty"] for each in (env, twin)]
            assert starts[0] == starts[1]


@pytest.mark.parametrize("mode", FLAT)
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "human"])
def test_flat_environments_render_and_close_twice(mode, render_mode):
    matplotlib.use("Agg")
    env = flat_env(mode, render_mode=render_mode)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    if render_mode == "rgb_array":
        frame = env.render()
        assert frame is not None
        assert frame.dtype == np.uint8
        assert frame.shape[2] == 3
    elif render_mode == "human":
        assert env.render() is None
    env.close()
    env.close()
