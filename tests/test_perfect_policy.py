"""Whoever says the truth is right by every measure: every scene, every action mode, every way to act.

That fails where evaluation does not see what the environment was told, such as outlines or the camera.
"""

import numpy as np
import pytest
import torch

from air_agents.evaluation.metrics import compare, kinds_of
from air_agents.sb3.evaluation import act_at_random, evaluate_policy, explain, stop_at_once
from air_env import geometry
from air_env.env import AIRSceneEnv
from air_env.explanation import Explanation
from air_env.model import SceneConfig, SceneModel
from air_env.renderers import SpriteConfig
from air_env.scenes import make_scene
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World, make_world

NUM_SCENES = 6
SCENES = {
    "digits": {"image_size": 24, "object_size": (6, 9)},
    "sprites": {"image_size": 24, "object_size": (6, 9), "num_steps": 2},
    "objects3d": {"image_size": 16, "renderer": "raycast", "counts": (0, 1)},
    "tabletop3d": {"image_size": 16, "renderer": "raycast", "num_steps": 2},
}
MODES = ("dict", "latents", "posterior")
FLAT_MODES = MODES[1:]


def make(scene: str) -> tuple[World, Explanation]:
    """Scenes, and the truth about them as latents of a model in double precision."""
    pool = make_scene(scene, **SCENES[scene])
    scenes = pool.dataset("test", NUM_SCENES)
    config = pool.model or SceneConfig(image_size=24, num_steps=2)
    model = SceneModel(config).double()
    present = scenes.labels >= 0
    where, what = scenes.poses.nan_to_num(), scenes.labels.clamp_min(0)
    if config.renderer.windows:
        where = geometry.from_boxes(scenes.boxes.nan_to_num(posinf=1.0), config.image_size).nan_to_num(neginf=0.0)
    if not model.prior_what.categorical:
        what = torch.zeros(*what.shape, model.prior_what.size)
    return World(model, scenes), Explanation(present.double(), where.double(), what, scenes.z_scene.double())


def action_of(envs: AIRSceneVectorEnv, z: Explanation, step: int):
    """The truth about an object as an action: the truth itself, its entries, or a distribution close around it."""
    num_steps = z.z_pres.shape[1]
    present = z.z_pres[:, step] if step < num_steps else torch.zeros(NUM_SCENES)
    slot = min(step, num_steps - 1)
    latents = {"z_where": z.z_where[:, slot], "z_what": z.z_what[:, slot], "z_scene": z.z_scene}
    mode, model = envs.action_mode, envs.model
    if envs.single_action_space.shape is None:
        return {"z_pres": present, **latents}
    parts = {}
    for name, prior in model.priors.items():
        value = latents[name]
        if prior.categorical:
            parts[name] = (1e3 * torch.nn.functional.one_hot(value, prior.size).double(),)
        else:
            parts[name] = (value, prior.sd.expand_as(value) * np.exp(-6))
    logit = torch.where(present > 0, 10.0, -10.0).double()
    if hasattr(mode, "encode"):
        return mode.encode(logit, parts["z_where"], parts["z_what"], parts["z_scene"])
    entries = [
        prior.encode(*parts[name])[..., : prior.size]
        for name, prior in ((name, model.priors[name]) for name in ("z_where", "z_scene", "z_what"))
    ]
    return torch.cat([logit[:, None], *entries], 1).clamp(-1, 1)


def policy(world: World, mode: str, z: Explanation):
    """The truth as a policy of Stable-Baselines3's evaluation, which acts on every scene at once."""
    envs = AIRSceneVectorEnv(1, world=world, action_mode=mode)

    def act(observation):
        step = int(observation["step"].max())
        # Stopped episodes stay where they are, and the truth about them is that nothing follows.
        return action_of(envs, z, step).float().numpy()

    return act


def by_sb3(world: World, mode: str, z: Explanation) -> Explanation:
    return explain(policy(world, mode, z), world, mode)[0]


def by_vector(world: World, mode: str, z: Explanation) -> Explanation:
    envs = AIRSceneVectorEnv(NUM_SCENES, world=world, action_mode=mode, grad_enabled=False)
    envs.reset(seed=0, options={"scenes": np.arange(NUM_SCENES)})
    for step in range(world.model.config.num_steps):
        envs.step(action_of(envs, z, step))
    return envs.state.z


def by_single(world: World, mode: str, z: Explanation) -> Explanation:
    env, found = AIRSceneEnv(world=world, action_mode=mode), []
    envs = AIRSceneVectorEnv(1, world=world, action_mode=mode)
    for i in range(NUM_SCENES):
        _, info = env.reset(seed=i, options={"scene": i})
        assert info["count"] == z.count[i]
        terminated, step = False, 0
        while not terminated:
            whole = action_of(envs, z, step)
            rows = {name: part[i].numpy() for name, part in whole.items()} if mode == "dict" else whole[i].numpy()
            _, _, terminated, _, _ = env.step(rows)
            step += 1
        found.append(vars(env.state.z))
    return Explanation(**{name: torch.cat([parts[name] for parts in found]) for name in found[0]})


CASES = [(mode, act) for act in (by_vector, by_single) for mode in MODES] + [(mode, by_sb3) for mode in FLAT_MODES]


@pytest.mark.parametrize(("mode", "act"), CASES, ids=lambda part: getattr(part, "__name__", part))
@pytest.mark.parametrize("scene", SCENES)
def test_a_perfect_policy_is_perfect(scene, mode, act):
    world, truth = make(scene)
    z = world.model.drawn(act(world, mode, truth))
    assert len(world.scenes.count.unique()) > 1
    metrics = compare(z, world.scenes, kinds_of(world.model))
    assert metrics["count_accuracy"].all()
    # The narrowest posterior that an action can say is 1/400 of the prior wide.
    assert metrics["box_iou"].min() > (0.9 if mode == "posterior" else 0.99)
    if scene != "digits":
        assert metrics["identity_accuracy"].all()
    if scene in ("objects3d", "tabletop3d"):
        assert metrics["position_error"].max() < 0.02
    if scene == "tabletop3d":
        assert metrics["camera_error"].max() < 0.01


def test_sb3_evaluation_ranks_the_truth_above_nothing_and_nothing_above_chance():
    world, truth = make("sprites")
    size = 1 + 3 + world.model.prior_what.size
    found = evaluate_policy(policy(world, "latents", truth), world, "latents")
    empty, chance = (evaluate_policy(act(size), world, "latents") for act in (stop_at_once, act_at_random))
    assert found["count_accuracy"] == found["identity_accuracy"] == 1
    assert found["box_iou"] == pytest.approx(1, abs=0.01)
    assert empty["return"] == pytest.approx(world.model.log_p_count[0].item(), abs=1e-6)
    assert empty["count_accuracy"] == (world.scenes.count == 0).double().mean()
    assert chance["return"] < empty["return"] < found["return"]


def test_a_plugged_in_renderer_is_chosen_by_its_kind():
    assert SceneConfig(renderer="sprites") == SceneConfig(renderer=SpriteConfig())
    assert make_world("sprites", renderer="sprites", num_scenes=2).model.config.renderer == SpriteConfig()
    with pytest.raises(ValueError, match="renderer 'clay' is unknown; choose one of patch, sprites, "):
        SceneConfig(renderer="clay")
