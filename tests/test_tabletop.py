"""Crockery on a table: the scene, the environment with its camera, and the agent."""

import itertools
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tiny import assert_equal, float64, generator, in_turn, z_score
from torch.distributions import Normal

from air_agents import load_agent, save_agent
from air_agents.estimators import CategoryValues
from air_agents.estimators.base import category_surrogate, expected_categories
from air_agents.evaluation.metrics import evaluate
from air_agents.inference.agent import mode_of
from air_agents.inference.air import AIR, AgentConfig
from air_agents.inference.episodes import dream, sample_episodes
from air_agents.inference.exploration import Exploration
from air_agents.inference.objects3d import InverseGraphics, InverseGraphicsConfig
from air_agents.inference.rollout import unstopped_rollout
from air_agents.inference.tabletop3d import TabletopAgent, TabletopAgentConfig
from air_agents.training.files import read_rows
from air_agents.training.recipes import RECIPES, Recipe
from air_agents.training.run import TrainingRun
from air_agents.training.trainer import Trainer
from air_env.explanation import Explanation
from air_env.model import Action, SceneConfig, SceneModel
from air_env.priors import CountPrior
from air_env.renderers import TabletopConfig
from air_env.renderers.backends import KINDS, RaycastRenderer
from air_env.renderers.backends.camera import CAMERA, orbit, project
from air_env.scenes import make_scene
from air_env.testing import check_environment
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World, make_world

PLATE, BOWL, CUP = range(3)
OPTIONS = {"scene": "tabletop3d", "num_scenes": 30, "scene_options": {"renderer": "raycast"}}
TABLE = SceneConfig(
    image_size=16,
    num_steps=2,
    likelihood_scale=0.5,
    count_prior=CountPrior("uniform"),
    renderer=TabletopConfig(renderer="raycast", samples=1),
)
SMALL = TabletopAgentConfig(channels=4, camera_hidden=8, glimpse_size=4, hidden=8)


def make_agent(**changes) -> TabletopAgent:
    with float64():
        agent = TabletopAgent(replace(TABLE, **changes), SMALL)
        torch.nn.init.normal_(agent.presence.weight)
        return agent.eval()


def make_envs(agent, num_envs=4) -> AIRSceneVectorEnv:
    scene = make_scene("tabletop3d", renderer="raycast", image_size=16, num_steps=2)
    envs = AIRSceneVectorEnv(num_envs, world=World(agent.model, scene.dataset("test", num_envs)))
    envs.reset(seed=0, options={"scenes": list(range(num_envs))})
    return envs


def truth_of(scenes) -> Explanation:
    present = scenes.labels >= 0
    return Explanation(present.float(), scenes.poses.nan_to_num(), scenes.labels.clamp_min(0), scenes.z_scene)


# The scene


def test_the_truth_draws_the_images():
    scene = make_scene("tabletop3d", renderer="raycast")
    scenes = scene.dataset("test", 40)
    assert scenes.count.unique().tolist() == [0, 1, 2, 3]
    assert_equal((scenes.labels >= 0).sum(1), scenes.count)
    drawn = SceneModel(scene.model).render(truth_of(scenes))
    assert (drawn - scenes.float_images()).abs().max() < 0.003


def test_items_do_not_run_into_each_other():
    scenes = make_scene("tabletop3d", renderer="raycast", counts=(3,)).dataset("train", 300)
    widths = torch.tensor([KINDS[name].width for name in ("plate", "bowl", "cup")])[scenes.labels]
    for i, j in itertools.combinations(range(3), 2):
        distance = (scenes.poses[:, i] - scenes.poses[:, j]).norm(dim=1)
        assert (distance >= 0.9 * (widths[:, i] + widths[:, j])).all()
    assert scenes.poses.abs().max() <= 1.5
    assert scenes.z_scene.abs().max() <= 0.6


def test_without_repetitions_there_is_one_of_each_kind_at_most():
    scenes = make_scene("tabletop3d", renderer="raycast", repetitions=False).dataset("train", 200)
    for labels, count in zip(scenes.labels, scenes.count, strict=True):
        assert len(labels[labels >= 0].unique()) == count
    full = scenes.labels[scenes.count == 3]
    assert len({tuple(labels.tolist()) for labels in full}) == 6  # in every order
    repeated = make_scene("tabletop3d", renderer="raycast").dataset("train", 200)
    assert any(len(labels.unique()) == 1 for labels in repeated.labels[repeated.count == 3])


def test_nearer_items_hide_others():
    model = SceneModel(replace(TABLE, image_size=48))
    where = torch.tensor([[[0.0, 0.9], [0.0, -0.1]]])
    kinds = torch.tensor([[BOWL, CUP]])

    def render(first, second):
        return model.render(Explanation(torch.tensor([[first, second]]), where, kinds, torch.zeros(1, 1)))

    empty, bowl, cup, both = render(0.0, 0.0), render(1.0, 0.0), render(0.0, 1.0), render(1.0, 1.0)
    hidden = ((bowl - empty).abs().sum(1) > 0.01) & ((cup - empty).abs().sum(1) > 0.01)
    assert hidden.sum() > 3
    rows = hidden[0]
    assert_equal(both[0, :, rows], cup[0, :, rows], 1e-6)


def test_items_that_have_no_room_are_refused():
    with pytest.raises(ValueError, match=r"no room was found for 3 items within reach 0\.1 .* a larger reach"):
        make_scene("tabletop3d", renderer="raycast", reach=0.1).dataset("train", 20)


@pytest.mark.parametrize("name", ["tabletop3d", "objects3d"])
def test_boxes_are_of_items_as_large_as_they_are(name):
    options = {"renderer": "raycast", "image_size": 64, "counts": (1,), "size_spread": 0.4}
    scenes = make_scene(name, **options).dataset("test", 30)
    plain = make_scene(name, **options | {"size_spread": 0.0}).dataset("test", 30)
    empty = 0 * scenes.images
    if name == "tabletop3d":
        config = make_scene(name, renderer="raycast", image_size=64).model
        model = SceneModel(config)
        nothing = replace(model.nothing(scenes.z_scene), z_scene=scenes.z_scene)
        empty = model.render(nothing).mul(255).round().byte()
    for image, table, box in zip(scenes.images, empty, scenes.boxes[:, 0], strict=True):
        rows, columns = ((image.int() - table.int()).abs().amax(0) > 2).nonzero().unbind(1)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (seen - box).abs().max() < 2
    assert (scenes.boxes - plain.boxes)[:, 0].abs().max() > 2


def test_perturbations_leave_the_truth_and_the_table_as_they_are():
    plain = make_scene("tabletop3d", renderer="raycast").dataset("train", 20)
    for option in ("colour_spread", "size_spread", "light_spread"):
        other = make_scene("tabletop3d", renderer="raycast", **{option: 0.5}).dataset("train", 20)
        assert_equal((other.labels, other.poses, other.z_scene), (plain.labels, plain.poses, plain.z_scene))
        changed = (other.images.float() - plain.images.float()).abs().amax((1, 2, 3)) > 4
        full = plain.count > 0
        assert changed[full].float().mean() > 0.8
        if option == "size_spread":
            assert not changed[~full].any()


@in_turn(
    "options message",
    [
        ({"counts": (0, 4)}, "counts must be one or more numbers of objects from 0 to 3"),
        ({"turn": 1.0}, "turn must lie between 0 and 0.75"),
        ({"reach": 2.0}, "reach must lie between 0 and 1.5"),
        ({"repetitions": False, "num_steps": 4}, "counts must be at most 3, of which each kind is one"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_scene("tabletop3d", **{"renderer": "raycast"} | options)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="kinds on a table must be round, for they have no yaw; cube, cylinder are"):
        TabletopConfig(kinds=("cube", "cylinder", "cup"))
    with pytest.raises(ValueError, match="camera_step must be positive"):
        TabletopConfig(camera_step=0.0)
    with pytest.raises(ValueError, match=r"shapes \['oval'\] are unknown"):
        RaycastRenderer(shapes=("oval",))
    with pytest.raises(ValueError, match="renderers of kind 'tabletop3d' do not have; take the agent made for them"):
        AIR(TABLE, AgentConfig())
    with pytest.raises(ValueError, match="needs a renderer of items on a table"):
        TabletopAgent(SceneConfig(), SMALL)
    with pytest.raises(ValueError, match="needs a renderer of three-dimensional objects"):
        InverseGraphics(TABLE, InverseGraphicsConfig())


# The camera


def test_a_camera_goes_around_the_axis():
    angle = torch.tensor([0.0, math.pi / 2, -math.pi / 2], dtype=torch.float64)
    wanted = torch.tensor([[0.0, -4.5, 3.2], [4.5, 0.0, 3.2], [-4.5, 0.0, 3.2]], dtype=torch.float64)
    assert_equal(orbit(angle, 4.5, 3.2), wanted, 1e-12)
    assert_equal(orbit(angle, 4.5, 3.2)[0], torch.tensor(CAMERA, dtype=torch.float64), 1e-6)
    # Turning the camera is turning the scene the other way.
    point = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    turn = torch.tensor(0.3, dtype=torch.float64)
    turned = torch.stack([turn.cos() * point[0] + turn.sin() * point[1], turn.cos() * point[1] - turn.sin() * point[0]])
    there = project(torch.cat([turned, point[2:]]), orbit(torch.zeros_like(turn), 4.5, 3.2), 0.7)
    assert_equal(project(point, orbit(turn, 4.5, 3.2), 0.7), there, 1e-12)


def test_known_shapes_change_nothing():
    scenes = make_scene("tabletop3d", renderer="raycast").dataset("train", 20)
    renderer = SceneModel(TABLE).renderer
    batch = renderer.scenes(truth_of(scenes))
    known = RaycastRenderer(shapes=("round", "round", "round", "box"))
    drawn = known.render(batch)
    assert_equal(drawn, RaycastRenderer(shapes=("any",) * 4).render(batch))
    assert_equal(drawn, RaycastRenderer().render(batch))
    assert (drawn - RaycastRenderer(shapes=("box",) * 4).render(batch)).abs().max() > 0.1


def test_images_have_a_gradient_in_places_and_camera():
    model = SceneModel(replace(TABLE, image_size=32))
    place, camera = torch.tensor([[[0.4, -0.3]]]), torch.tensor([[0.1]])
    z = Explanation(torch.ones(1, 1), place, torch.tensor([[CUP]]), camera)
    target = model.render(z)
    for part in ("z_where", "z_scene"):
        off = (getattr(z, part) + 0.1).requires_grad_()
        log_p = model.log_joint(target, replace(z, **{part: off}))
        (gradient,) = torch.autograd.grad(log_p.sum(), off)
        assert (gradient < 0).all()  # towards the truth


# The environment


def test_rewards_telescope_to_the_log_joint():
    options = OPTIONS | {"scene_options": {"renderer": "raycast", "counts": (2,)}}
    env = gymnasium.make("AIRScene-v1", **options).unwrapped
    observation, info = env.reset(seed=3)
    assert not observation["canvas"].any()
    total, camera = info["log_p_x_empty"], info["z_scene"] + np.float32(0.02)
    for i in range(2):
        action = {"z_pres": 1, "z_where": info["poses"][i], "z_what": info["labels"][i], "z_scene": camera}
        observation, reward, terminated, _, step = env.step(action)
        assert observation in env.observation_space
        assert not terminated
        assert reward == pytest.approx(sum(step["reward_terms"].values()), rel=1e-5)
        total, camera = total + reward, camera * 0 + 9  # not asked again
    assert observation["step"] == 2
    assert_equal(torch.from_numpy(observation["chosen_z_scene"]), torch.from_numpy(info["z_scene"] + np.float32(0.02)))
    _, reward, terminated, *_ = env.step(action)  # one plate too many
    assert terminated
    total = total + reward
    poses = np.concatenate([info["poses"][:2], info["poses"][1:2]])
    log_p = -math.log(4) - 3 * math.log(3)  # p(n), p(kinds)
    log_p += Normal(0.0, 0.9).log_prob(torch.from_numpy(poses)).sum().item()
    log_p += Normal(0.0, 0.4).log_prob(torch.from_numpy(info["z_scene"] + np.float32(0.02))).sum().item()
    pixels = torch.from_numpy(observation["image"])
    canvas = env.state.canvas[0]
    log_p += Normal(canvas, 0.1).log_prob(pixels).sum().item()
    assert total == pytest.approx(log_p, rel=1e-5)


def test_stopping_at_once_has_chosen_the_camera():
    scenes = {"renderer": "raycast", "counts": (0,)}
    env = gymnasium.make("AIRScene-v1", **OPTIONS | {"scene_options": scenes})
    rewards = []
    for turn in (0.0, 0.3):
        _, info = env.reset(seed=1)
        action = {"z_pres": 0, "z_where": np.zeros(2), "z_what": 0, "z_scene": info["z_scene"] + turn}
        after, reward, terminated, _, step = env.step(action)
        assert terminated
        assert step["reward_terms"]["log_p_z_where"] == 0
        rewards.append(reward)
        if turn == 0:
            assert np.abs(after["canvas"] - after["image"]).max() < 0.01
    assert rewards[0] > rewards[1] + 100


@in_turn("camera", [(None,), (np.zeros(2),), (np.array([np.nan]),), (np.array([51.0]),)])
def test_a_bad_camera_is_refused_and_changes_nothing(camera):
    env = gymnasium.make("AIRScene-v1", **OPTIONS).unwrapped
    env.reset(seed=0)
    before = env.state
    action = {"z_pres": 1, "z_where": np.zeros(2), "z_what": 0} | ({} if camera is None else {"z_scene": camera})
    with pytest.raises(ValueError, match="z_scene"):
        env.step(action)
    assert env.state is before


def test_the_promises_of_an_environment_hold():
    check_environment(make_world(**OPTIONS), num_envs=3)


@pytest.mark.filterwarnings("ignore:.*For Box action spaces")
def test_the_environment_passes_the_checker():
    options = OPTIONS | {"scene_options": {"renderer": "raycast", "counts": (3,)}}
    check_env(gymnasium.make("AIRScene-v1", **options).unwrapped, skip_render_check=True)


def test_a_plan_pays_what_its_steps_pay():
    agent = make_agent()
    envs = make_envs(agent)
    model, images = agent.model, envs.state.images
    where = model.prior_where.sample(4, 2, generator=generator())
    what = model.prior_what.sample(4, 2, generator=generator())
    camera = model.prior_scene.sample(4, generator=generator())
    state, rewards = envs.state, []
    for i in range(2):
        state, terms = model.step(state, Action(torch.ones(4), where[:, i], what[:, i], camera))
        rewards.append(terms)
    at_once = envs.unroll(Explanation(torch.ones(4, 2), where, what, camera))
    for name, part in at_once.parts.items():
        assert_equal(part, torch.stack([terms.parts[name] for terms in rewards], 1), 1e-9)
    state, terms = model.step(envs.state, Action(torch.zeros(4), where[:, 0], what[:, 0], camera))
    assert_equal(model.log_p_x_empty(images, camera), state.log_p_x, 1e-9)
    with pytest.raises(ValueError, match=r"z_scene has shape \(4, 0\), wanted \(4, 1\)"):
        envs.unroll(Explanation.of_objects(torch.ones(4, 2), where, what))


# The agent


def test_samples_of_the_elbo_agree_with_the_rollout():
    agent, copies = make_agent(), 400
    envs = make_envs(agent, 3 * copies)
    envs.reset(options={"scenes": list(range(3)) * copies})
    with torch.no_grad():
        noise = torch.randn(3 * copies, 2, agent.latent_dim, generator=generator(), dtype=torch.float64)
        rollout = unstopped_rollout(agent, envs, noise)
        weights, analytic = (rollout.problem(analytic_kl=known).elbo() for known in (False, True))
        episodes = sample_episodes(agent, envs, generator(1))
    sampled = episodes.returns - episodes.log_q + episodes.log_p_x_empty
    for other in (weights, sampled):
        # Images differ more than what is said of them.
        difference = (other - analytic).view(copies, 3).mean(1)
        assert abs(z_score(difference)) < 4
    assert (weights - analytic).abs().max() > 0.1


def test_explanations_follow_the_modes():
    agent = make_agent()
    envs = make_envs(agent)
    z = agent.explain(envs.state.images)
    assert_equal(z.reconstruction, agent.model.render(z))
    state, camera = agent.describe_scene(agent.initial(envs.state.images), mode_of)
    assert_equal(z.z_scene, camera.z_scene)
    rows = z.count > 0
    state, _, what = agent.decide(state)
    first = agent.describe_object(state, what, mode_of, mode_of)
    assert_equal((z.z_where[rows, 0], z.z_what[rows, 0]), (first.z_where[rows], first.z_what[rows]))
    assert z.boxes(16).shape == (4, 2, 4)
    assert_equal(z.boxes(16).isnan().all(-1), z.z_pres == 0)
    more = agent.with_num_steps(4).explain(envs.state.images)
    assert more.z_where.shape == (4, 4, 2)


def test_proposals_are_judged_by_what_they_explain():
    agent = make_agent(likelihood_scale=0.1)
    envs = make_envs(agent)
    state, _ = agent.describe_scene(agent.initial(envs.state.images), mode_of)
    state, _, _ = agent.decide(state)
    for kind in range(3):
        z = Explanation(
            torch.ones(4, 1).double(), state.mean[:, kind][:, None], torch.full((4, 1), kind), state.z_scene
        )
        log_p = agent.model.likelihood.log_prob(state.images, agent.model.render(z))
        empty = agent.model.log_p_x_empty(state.images, state.z_scene)
        assert_equal(state.gains[:, kind], (log_p - empty).detach(), 1e-9)


def test_an_untrained_agent_looks_at_the_item_that_stands_out():
    torch.manual_seed(0)
    agent = TabletopAgent(replace(TABLE, image_size=32), TabletopAgentConfig())
    scenes = make_scene("tabletop3d", renderer="raycast", counts=(1,)).dataset("test", 100)
    state, _ = agent.describe_scene(agent.initial(scenes.float_images()), lambda _: scenes.z_scene)
    state, _, what = agent.decide(state)
    kinds = scenes.labels[:, 0]
    assert (state.mean[torch.arange(100), kinds] - scenes.poses[:, 0]).norm(dim=1).median() < 0.25
    assert (what.mode == kinds).float().mean() > 0.8


def test_what_categories_are_worth_is_a_control_variate():
    """On average over the category it changes no gradient, and with the right values it takes the noise away."""
    agent = make_agent()
    noise = torch.randn(4, 2, agent.latent_dim, generator=generator(), dtype=torch.float64)
    problem = unstopped_rollout(agent, make_envs(agent), noise).problem()
    assert isinstance(problem.what_values, CategoryValues)
    logits = torch.randn(4, 2, 3, dtype=torch.float64, generator=generator(1)).requires_grad_()
    log_q = logits.log_softmax(-1)
    values = torch.randn(4, 2, 3, dtype=torch.float64, generator=generator(2))
    worth = 10 * torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=generator(3))
    n = torch.tensor([0, 1, 2, 2])
    for surrogate in (expected_categories, lambda p: category_surrogate(p, n, p.stop_values())):
        means = []
        for known in (True, False):
            total = torch.zeros(4, dtype=torch.float64)
            for kinds in itertools.product(range(3), repeat=2):
                chosen = torch.tensor(kinds)
                log_q_what = torch.stack([log_q[:, i, k] for i, k in enumerate(kinds)], 1)
                found = CategoryValues(values[:, [0, 1], chosen], (log_q.exp() * values).sum(2))
                scores = problem.scores.detach() + worth[:, kinds[0], kinds[1]]
                one = replace(problem, scores=scores, log_q_what=log_q_what, what_values=found if known else None)
                total = total + log_q_what.sum(1).exp().detach() * surrogate(one)
            means.append(torch.autograd.grad(total.sum(), logits, retain_graph=True)[0])
        assert_equal(means[0], means[1], 1e-9)
        assert means[0].abs().max() > 1e-3


def test_dreams_may_come_in_any_order(monkeypatch):
    agent = make_agent()
    images, z = agent.model.sample(200, generator())
    full = z.z_pres.sum(1) == 2

    def dream_of(order, **options):
        scenes = replace(z, z_where=z.z_where[:, order], z_what=z.z_what[:, order])
        monkeypatch.setattr(agent.model, "sample", lambda *_: (images, scenes))
        return dream(agent, 200, **options)[full]

    orders = torch.stack([dream_of([0, 1]), dream_of([1, 0])])
    chosen = dream_of([0, 1], any_order=True)
    assert_equal(dream_of([1, 0], any_order=True), chosen)
    taken = (chosen - orders).abs() < 1e-9
    assert taken.any(0).all()
    assert taken.sum(1).min() > 5
    chosen.sum().backward()
    assert agent.camera[-1].weight.grad.abs().sum() > 0


def test_an_agent_is_saved_and_loaded(tmp_path):
    agent = TabletopAgent(TABLE, SMALL)
    save_agent(agent, tmp_path / "agent.safetensors")
    again = load_agent(tmp_path / "agent.safetensors")
    images = torch.rand(5, 3, 16, 16, generator=generator())
    assert_equal(vars(again.explain(images)), vars(agent.explain(images)))


def test_figures_tell_places_and_camera():
    torch.manual_seed(0)
    agent = TabletopAgent(replace(TABLE, image_size=32, num_steps=3), SMALL)
    scenes = make_scene("tabletop3d", renderer="raycast").dataset("test", 20)
    agent.explain = lambda images: replace(agent.model.drawn(truth_of(scenes)), z_scene=scenes.z_scene + 0.1)
    figures = evaluate(agent, scenes, num_samples=2)
    assert figures["count_accuracy"] == figures["identity_accuracy"] == 1
    assert figures["position_error"] == 0
    assert figures["camera_error"] == pytest.approx(0.1, abs=1e-6)
    assert figures["kl_camera"] > 0


def test_exploration_begins_with_the_camera():
    recipe = RECIPES.find("tabletop3d")
    assert recipe.exploration_at(0) == Exploration(1.0, 1e-4, 0.6)
    assert recipe.exploration_at(recipe.camera_steps) == Exploration(1.0, 0.5, 0.6)
    assert recipe.exploration_at(recipe.camera_steps + recipe.exploration_steps).weight == 0


def test_phases_do_not_share_a_row_of_metrics():
    with pytest.raises(ValueError, match=r"multiple of evaluate_every \(250\)"):
        replace(RECIPES.find("tabletop3d_sleep"), sleep_steps=100)


def test_dreams_have_no_elbo(tmp_path):
    options = {"renderer": "raycast", "image_size": 16, "num_steps": 2}
    recipe = replace(RECIPES.find("tabletop3d_sleep"), scene_options=options, compile=False, batch_size=4, num_train=8)
    recipe = replace(recipe, model=TABLE, agent=SMALL, max_steps=4, sleep_steps=2, evaluate_every=2)
    run = TrainingRun.start(tmp_path / "run", recipe)
    run.train()
    asleep, awake = read_rows(tmp_path / "run" / "metrics.csv")
    assert "elbo" not in asleep
    assert math.isfinite(asleep["log_q_dream"])
    assert math.isfinite(awake["elbo"])
    assert "log_q_dream" not in awake


def quick_recipe(**changes) -> Recipe:
    recipe = replace(RECIPES.find("tabletop3d"), compile=False, batch_size=32, num_train=200)
    return replace(recipe, learning_rate=3e-3, decay=0.0, **changes)


def test_items_are_learned_where_the_camera_is_known():
    scene = make_scene("tabletop3d", renderer="raycast", image_size=16, num_steps=1, counts=(1,), turn=0.0)
    scenes = scene.dataset("train", 200)
    recipe = quick_recipe(
        camera_steps=0,
        exploration_steps=100,
        model=replace(TABLE, num_steps=1, likelihood_scale=0.1, renderer=replace(TABLE.renderer, camera_sd=0.01)),
        agent=replace(SMALL, camera_sd=0.001),
    )
    trainer = Trainer(recipe, scenes)
    # The camera stands where it always does: only what is on the table is learned.
    torch.nn.init.zeros_(trainer.agent.camera[-1].weight)
    torch.nn.init.zeros_(trainer.agent.camera[-1].bias)
    trainer.agent.camera.requires_grad_(False)
    before = evaluate(trainer.agent, scenes, num_samples=1, generator=generator())
    for _ in range(120):
        trainer.step()
    after = evaluate(trainer.agent, scenes, num_samples=1, generator=generator())
    assert after["elbo"] > before["elbo"] + 10
    assert after["count_accuracy"] > before["count_accuracy"] + 0.2
    assert after["identity_accuracy"] > 0.8


@pytest.mark.parametrize("sleep", [False, True])
def test_a_short_training_learns(sleep):
    scene = make_scene("tabletop3d", renderer="raycast", image_size=16, num_steps=1, counts=(0,))
    scenes = scene.dataset("train", 200)
    recipe = quick_recipe(
        model=replace(TABLE, num_steps=1),
        agent=SMALL,
        sleep_steps=250 * sleep,
    )
    trainer = Trainer(recipe, scenes)
    values = torch.stack([trainer.step() for _ in range(60)])
    assert values[-10:].mean() > values[:10].mean() + 0.5
    if not sleep:
        before = (Trainer(recipe, scenes).agent.explain(scenes.images).z_scene - scenes.z_scene).abs().mean()
        assert (trainer.agent.explain(scenes.images).z_scene - scenes.z_scene).abs().mean() < 0.9 * before
