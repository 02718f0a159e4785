"""Learned backgrounds: the log-joint by hand, gradients, environments, and the agent that infers them."""

from dataclasses import replace

import pytest
import torch
from stable_baselines3 import PPO
from tiny import (
    AGENT,
    NUM_STEPS,
    RECIPE,
    SCENE,
    SIDE,
    WHAT,
    WHERE,
    assert_equal,
    float64,
    generator,
    in_turn,
    make_envs,
    make_scenes,
    normal,
    roll_out,
    z_score,
)
from torch import Tensor, nn
from torch.distributions import Normal

from air_agents.evaluation.metrics import evaluate
from air_agents.inference.air import AIR
from air_agents.inference.cores import CORES
from air_agents.inference.episodes import sample_episodes
from air_agents.inference.recomposition import recompose
from air_agents.sb3 import AIRSceneVecEnv
from air_agents.training.serialisation import from_json, to_json
from air_agents.training.trainer import Trainer
from air_env.explanation import Explanation
from air_env.model import Action, SceneConfig, SceneModel
from air_env.priors import CountPrior
from air_env.scenes import SceneDataset
from air_env.scenes.objects3d import objects3d
from air_env.testing import check_environment
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

CASES = [(background, channels, opaque) for background in (0, 2) for channels, opaque in ((1, False), (3, True))]
COUNTS = torch.arange(NUM_STEPS + 1)
PRESENT = torch.arange(NUM_STEPS) < COUNTS[:, None]


def config_of(background: int, channels: int, opaque: bool) -> SceneConfig:
    renderer = replace(SCENE.renderer, channels=channels, opaque=opaque)
    return replace(SCENE, background=background, background_hidden=8, renderer=renderer)


def spoiled(module: nn.Module) -> None:
    """Makes what is drawn neither dark nor alike."""
    for name, part in module.named_parameters():
        if name.endswith(("decoder.2.bias", "level")):
            nn.init.normal_(part, std=1.0 if part.dim() == 1 else 0.1)


def model_of(*case: int) -> SceneModel:
    with float64():
        model = SceneModel(config_of(*case))
        spoiled(model)
        return model


def scenes_of(channels: int, num_scenes: int = 20) -> SceneDataset:
    scenes = make_scenes(num_scenes)
    return replace(scenes, images=scenes.images.expand(-1, channels, -1, -1).contiguous())


def explanation(dim: int, seed: int = 0) -> Explanation:
    z_where = normal(len(COUNTS), NUM_STEPS, WHERE, seed=seed) * 0.4 - torch.tensor([0.7, 0.0, 0.0])
    z_what, z_scene = normal(len(COUNTS), NUM_STEPS, WHAT, seed=seed + 1), normal(len(COUNTS), dim, seed=seed + 2)
    return Explanation(PRESENT.double(), z_where, 3 * z_what, z_scene)


def log_joint_by_hand(model: SceneModel, images: Tensor, z: Explanation) -> Tensor:
    """``log p(x, z, n)`` of a world, from its parts: the background, then one object after the other."""
    config, shape = model.config, model.image_shape
    if config.background:
        canvas = model.background.decoder(z.z_scene).sigmoid().view(-1, *shape)
    else:
        canvas = (10 * model.background.level).sigmoid().expand(len(images), *shape)
    log_p = Normal(0, 1).log_prob(z.z_scene).sum(1)
    weights = torch.tensor([1e-5**n for n in range(NUM_STEPS + 1)], dtype=torch.float64)
    log_p = log_p + (weights / weights.sum()).log()[z.count]
    for i in range(NUM_STEPS):
        there = PRESENT[:, i]
        drawn = model.renderer.add(canvas, z.z_where[:, i], z.z_what[:, i])
        canvas = torch.where(there[:, None, None, None], drawn, canvas)
        where = Normal(*(torch.tensor(part, dtype=torch.float64) for part in (config.where_mean, config.where_sd)))
        latents = where.log_prob(z.z_where[:, i]).sum(1) + Normal(0, 1).log_prob(z.z_what[:, i]).sum(1)
        log_p = log_p + torch.where(there, latents, 0.0)
    return log_p + Normal(canvas, 0.3).log_prob(images).sum((1, 2, 3))


@in_turn("background channels opaque", CASES)
def test_rewards_telescope_to_the_log_joint_with_the_background(background, channels, opaque):
    model, z = model_of(background, channels, opaque), explanation(background)
    images = scenes_of(channels, len(COUNTS)).images.double() / 255
    state, total, gains = model.initial(images), 0.0, []
    for i in range(NUM_STEPS):
        # Codes that later actions bring mean nothing.
        scene = z.z_scene if i == 0 else z.z_scene + 100
        state, terms = model.step(state, Action(PRESENT[:, i], z.z_where[:, i], z.z_what[:, i], scene))
        total, gains = total + terms.total, [*gains, terms.likelihood_gain]
    by_hand = log_joint_by_hand(model, images, z)
    assert_equal(model.initial(images).log_p_x + total, by_hand, 1e-9)
    assert_equal(model.log_joint(images, z), by_hand, 1e-9)
    assert_equal(state.canvas, model.render(z), 1e-12)
    # An episode that stops at once has a background, too.
    assert_equal(state.canvas[0], model.blank(z)[0])
    assert (gains[0] != 0).all()


@in_turn("background channels opaque", CASES)
def test_prefixes_are_scored_as_whole_explanations(background, channels, opaque):
    model, z = model_of(background, channels, opaque), explanation(background)
    images = scenes_of(channels, len(COUNTS)).images.double() / 255
    z = replace(z, z_pres=torch.ones_like(z.z_pres))
    expected = [model.log_joint(images, z.keep(torch.full_like(COUNTS, n))) for n in range(NUM_STEPS + 1)]
    assert_equal(model.log_joints(images, z), torch.stack(expected, 1), 1e-9)
    soft = model.soften(images, z)
    for n in range(NUM_STEPS + 1):
        extents = (torch.arange(NUM_STEPS) < n).double().expand(len(COUNTS), -1)
        known = model.likelihood.log_prob(images, model.render(z.keep(torch.full_like(COUNTS, n))))
        assert_equal(soft(extents), known, 1e-9)


@pytest.mark.parametrize("background", [0, 2])
def test_gradients_of_the_log_joint_are_differences(background):
    model, z = model_of(background, 3, True), explanation(background)
    images = scenes_of(3, len(COUNTS)).images.double() / 255
    names, weights = zip(*((name, part.detach()) for name, part in model.background.named_parameters()), strict=True)
    model.forward = model.log_joint

    def log_joint(z_where: Tensor, z_what: Tensor, z_scene: Tensor, *values: Tensor) -> Tensor:
        latents = Explanation(z.z_pres, z_where, z_what, z_scene)
        parameters = {f"background.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(model, parameters, (images, latents))

    leaves = [part.clone().requires_grad_() for part in (z.z_where, z.z_what, z.z_scene, *weights)]
    assert torch.autograd.gradcheck(log_joint, leaves, atol=1e-4, fast_mode=True)


@in_turn("background channels opaque", CASES)
def test_environments_keep_their_promises(background, channels, opaque):
    """Among them that the single and the vector environment give the model's numbers, in every action mode."""
    world = World(model_of(background, channels, opaque), scenes_of(channels))
    check_environment(world)
    envs = AIRSceneVectorEnv(2, world=world, render_mode="rgb_array")
    observation, _ = envs.reset(seed=0)
    assert observation["image"].shape == (2, channels, SIDE, SIDE)
    assert ("chosen_z_scene" in observation) == (background > 0)
    assert envs.render()[0].shape[-1] == 3


def test_stable_baselines_trains_on_colours_and_backgrounds():
    world = World(model_of(2, 3, True).float(), scenes_of(3))
    agent = PPO("MultiInputPolicy", AIRSceneVecEnv(2, world=world, action_mode="posterior"), n_steps=4, batch_size=8)
    assert agent.learn(8).num_timesteps == 8


def agent_of(background: int, core: str, channels: int = 3, opaque: bool = True, **changes: object) -> AIR:
    with float64():
        agent = AIR(replace(config_of(background, channels, opaque), **changes), replace(AGENT, core=core))
        spoiled(agent)
        nn.init.normal_(agent.presence.weight)
        return agent.eval()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("background", [0, 2])
def test_scores_are_the_rewards_of_an_episode_less_the_log_density_of_its_latents(background, core):
    agent, images = agent_of(background, core), scenes_of(3, 4).images.double() / 255
    rollout = roll_out(agent, images)
    scores, z = rollout.problem(analytic_kl=False).scores, rollout.z
    log_q = rollout.where.log_prob(z.z_where) + rollout.what.log_prob(z.z_what)
    log_q_scene = Normal(rollout.scene.posterior.mean, rollout.scene.posterior.sd).log_prob(z.z_scene).sum(1)
    for n in range(NUM_STEPS + 1):
        envs = make_envs(agent, images)
        total = envs.state.log_p_x - log_q_scene - log_q[:, :n].sum(1)
        for i in range(NUM_STEPS):
            present = torch.full((len(images),), int(i < n))
            latents = {"z_where": z.z_where[:, i], "z_what": z.z_what[:, i], "z_scene": z.z_scene}
            total = total + envs.step({"z_pres": present, **latents})[1]
        assert_equal(scores[:, n], total, 1e-9)


def test_returns_less_log_q_average_to_the_elbo():
    agent = agent_of(2, "air", likelihood_scale=1.0, count_prior=CountPrior("geometric", 0.5))
    images = scenes_of(3, 4).images.double().repeat(1000, 1, 1, 1) / 255
    with torch.no_grad():
        episodes = sample_episodes(agent, make_envs(agent, images), generator(1))
        elbo = roll_out(agent, images, noise=2).problem().elbo()
    samples = episodes.returns - episodes.log_q + episodes.log_p_x_empty
    assert abs(z_score(samples - elbo)) < 4
    assert abs(z_score(samples - elbo + 1)) > 4


@pytest.mark.parametrize("core", [name for name, core in CORES.items() if core.reads_canvas])
@pytest.mark.parametrize("background", [0, 2])
def test_the_agents_canvas_is_the_models(background, core):
    agent, images = agent_of(background, core), scenes_of(3, 4).images.double() / 255
    state, scene = agent.describe_scene(agent.initial(images), lambda posterior: posterior.mean)
    truth, z = agent.model.initial(images), explanation(background)
    assert_equal(state.canvas, agent.model.blank(replace(z, z_scene=scene.z_scene)))
    for i in range(2):
        action = Action(torch.ones(4), z.z_where[:, i], z.z_what[:, i], scene.z_scene)
        truth, _ = agent.model.step(truth, action)
        state = agent.remember(state, z.z_where[:, i], z.z_what[:, i])
        assert_equal(state.canvas, truth.canvas.detach(), 1e-12)


@in_turn("core", [(name,) for name in CORES])
def test_the_core_of_air_is_told_the_code_and_explanations_draw_it(core):
    agent, images = agent_of(2, core), scenes_of(3, 4).images.double() / 255
    z = agent.explain(images)
    assert_equal(z.z_scene, agent.scene(agent.embed_scene(images)[0], agent.model.prior_scene).mean)
    assert_equal(z.reconstruction, agent.model.render(z))
    logits = []
    for code in (0.0, 1.0):
        state, _ = agent.describe_scene(agent.initial(images), lambda p, code=code: torch.full_like(p.mean, code))
        logits.append(agent.decide(state)[1])
    assert not torch.equal(*logits)


def test_an_agent_is_measured_with_its_background():
    figures = evaluate(agent_of(2, "dair").float(), scenes_of(3), num_samples=2, generator=generator())
    assert figures["kl_background"] > 0
    parts = figures["log_likelihood"] - sum(figures[f"kl_{part}"] for part in ("where", "what", "count", "background"))
    assert figures["elbo"] == pytest.approx(parts, rel=1e-4)


def test_recomposed_scenes_have_the_background_of_a_scene_of_theirs():
    agent, images = agent_of(2, "air"), scenes_of(3, 6).images.double() / 255
    rollout = roll_out(agent, images)
    _, z = recompose(rollout, 8, generator())
    assert all((rollout.z.z_scene == code).all(1).any() for code in z.z_scene)
    assert z.z_scene.unique(dim=0).shape[0] > 1


@pytest.mark.parametrize("background", [0, 1])
def test_training_finds_the_grey_behind_the_digits(background):
    """Of one level, or of levels that differ: the right one is found, and the ELBO rises."""
    scenes = make_scenes(64, "train")
    levels = torch.full((64, 1, 1, 1), 0.5) if background == 0 else torch.linspace(0.1, 0.7, 64).view(-1, 1, 1, 1)
    scenes = replace(scenes, images=torch.maximum(scenes.images, (255 * levels).round().to(torch.uint8)))
    model = replace(config_of(background, 1, True), likelihood_scale=0.1)
    trainer = Trainer(replace(RECIPE, model=model, batch_size=32, learning_rate=4e-3, max_steps=150), scenes)
    elbos = [trainer.step().item() for _ in range(150)]
    z = trainer.agent.explain(scenes.images)
    found = trainer.agent.model.blank(z).mean((1, 2, 3))
    assert sum(elbos[-20:]) > sum(elbos[:20])
    if background == 0:
        assert (found - 0.5).abs().max() < 0.1
    else:
        assert torch.corrcoef(torch.stack([found, levels.flatten()]))[0, 1] > 0.9


def test_settings_are_kept_and_older_ones_have_a_black_background():
    config = config_of(2, 3, True)
    values = to_json(config)
    assert from_json(SceneConfig, values) == config
    for name in ("background", "background_hidden"):
        del values[name]
    for name in ("channels", "opaque"):
        del values["renderer"][name]
    assert from_json(SceneConfig, values) == SCENE


def test_backgrounds_that_make_no_sense_are_refused():
    for value in (-1, 0.5, "grey"):
        with pytest.raises(ValueError, match="background must be a whole number of at least 0"):
            replace(SCENE, background=value)
    with pytest.raises(ValueError, match="background must be None with renderers of kind 'objects3d'"):
        replace(objects3d(renderer="raycast").model, background=0)
