"""The promises of the environments of a world."""

import copy
from typing import Any

import cloudpickle
import numpy as np
import torch
from gymnasium.error import ResetNeeded

from air_env.actions import ACTION_MODES
from air_env.env import AIRSceneEnv
from air_env.testing.expectations import expect, in_precision, same
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World


def check_environment(world: World, *, num_envs: int = 4, seed: int = 0) -> None:
    """Checks the environments of a world, in every action mode and in float64.

    Args:
        world: The world; its model is copied, not changed.
        num_envs: Number of episodes at once.
        seed: Of the episodes and the actions.

    Raises:
        AssertionError: They break a promise of `AIRSceneEnv` or `AIRSceneVectorEnv`.

    Example:
        >>> from air_env import make_world
        >>> check_environment(make_world("sprites", num_scenes=10))
    """
    world = World(in_precision(world.model, torch.float64), world.scenes)
    for mode in ACTION_MODES:
        generator = torch.Generator().manual_seed(seed)
        _check_rewards(world, mode, num_envs, seed, generator)
        _check_single(world, mode, num_envs, seed, generator)
        _check_housekeeping(world, mode, seed, generator)


def _actions(envs: AIRSceneVectorEnv, generator: torch.Generator) -> Any:
    """Random actions that rather draw than stop, of objects that are probable a priori."""
    batch, like = envs.num_envs, envs.model.log_p_count
    flat = envs.single_action_space.shape
    if flat is not None:
        actions = 2 * torch.rand(batch, *flat, generator=generator, dtype=like.dtype) - 1
        actions[:, 0] = (actions[:, 0] + 0.5).clamp(-1, 1)
        return actions
    latents = {name: prior.sample(batch, generator=generator) for name, prior in envs.model.priors.items()}
    return {"z_pres": (torch.rand(batch, generator=generator) < 0.75).long(), **latents}


def _row(actions: Any, i: int) -> Any:
    """The action of one episode, in numpy."""
    if isinstance(actions, dict):
        return {name: value[i].numpy() for name, value in actions.items()}
    return actions[i].numpy()


def _check_rewards(world: World, mode: str, num_envs: int, seed: int, generator: torch.Generator) -> None:
    """The telescoping identity, and that finished episodes stay as they are."""
    envs = AIRSceneVectorEnv(num_envs, world=world, action_mode=mode, grad_enabled=False)
    num_steps = envs.model.config.num_steps
    _, info = envs.reset(seed=seed)
    total, done = info["log_p_x_empty"], torch.zeros(num_envs, dtype=torch.bool)
    for _ in range(num_steps + 1):
        before = envs.state
        _, rewards, terminations, truncations, info = envs.step(_actions(envs, generator))
        parts = info["reward_terms"]
        expect(same(rewards, sum(parts.values()), 1e-9), f"{mode}: rewards are not the sum of info['reward_terms']")
        after = envs.state
        stays = same(before.canvas[done], after.canvas[done]) and same(before.step[done], after.step[done])
        expect(
            stays and bool((rewards[done] == 0).all() and terminations[done].all()),
            f"{mode}: a finished episode changed or was paid; it must be absorbing with reward 0",
        )
        expect(not truncations.any(), f"{mode}: an episode was truncated; running out of steps is termination")
        total, done = total + rewards - parts["neg_log_q"], terminations
    expect(bool(done.all()), f"{mode}: an episode goes on after {num_steps} objects")
    z = envs.state.z
    wanted = envs.model.log_joint(envs.state.images, z)
    expect(
        same(total, wanted, 1e-8),
        f"{mode}: rewards and log_p_x_empty add up to {total.tolist()}, but log p(x, z, n) is {wanted.tolist()}",
    )


def _check_single(world: World, mode: str, num_envs: int, seed: int, generator: torch.Generator) -> None:
    """One episode at a time, or all at once: the same numbers, from a reset with the same seed twice."""
    envs = AIRSceneVectorEnv(num_envs, world=world, action_mode=mode, grad_enabled=False)
    singles = [AIRSceneEnv(world=world, action_mode=mode) for _ in range(num_envs)]
    starts = [[env.reset(seed=seed + i) for i, env in enumerate(singles)] for _ in range(2)]
    expect(same(starts[0], starts[1]), f"{mode}: two resets with the same seed differ")
    envs.reset(seed=seed)
    running = range(num_envs)
    while running:
        actions = _actions(envs, generator)
        _, rewards, terminations, _, info = envs.step(actions)
        going_on = []
        for i in running:
            observation, reward, terminated, truncated, single_info = singles[i].step(_row(actions, i))
            kinds = [type(value) for value in (reward, terminated, truncated)]
            expect(kinds == [float, bool, bool], f"{mode}: reward, terminated, truncated must be plain, got {kinds}")
            expect(
                singles[i].observation_space.contains(observation),
                f"{mode}: the observation is not of the space; pixels of canvases must lie in [0, N + 1]",
            )
            mine = reward, singles[i].state.canvas[0], single_info["action"]["z_where"]
            others = rewards[i].item(), envs.state.canvas[i], info["action"]["z_where"][i].numpy()
            expect(
                same(mine, others, 1e-8) and terminated == bool(terminations[i]),
                f"{mode}: episode {i} differs between the single and the vector environment",
            )
            if not terminated:
                going_on.append(i)
        running = going_on
    for env in singles:
        try:
            env.step(_row(_actions(envs, generator), 0))
        except ResetNeeded:
            continue
        raise AssertionError(f"{mode}: a finished episode could be stepped; wanted ResetNeeded")


def _check_housekeeping(world: World, mode: str, seed: int, generator: torch.Generator) -> None:
    """What programs around an environment rely on: copies, memory, refusals, closing."""
    env = AIRSceneEnv(world=world, action_mode=mode)
    sampler = AIRSceneVectorEnv(1, world=world, action_mode=mode)
    results: list[Any] = [env.reset(seed=seed)]
    try:
        # As Gymnasium's AsyncVectorEnv and Stable-Baselines3's SubprocVecEnv do.
        cloudpickle.dumps(env)
        twin = copy.deepcopy(env)
    except Exception as error:
        raise AssertionError(f"{mode}: the environment cannot be pickled for parallel workers: {error}") from error
    action = _row(_actions(sampler, generator), 0)
    _check_refusal(env, action, mode)
    results.append(env.step(action))
    results.append(env.reset())
    same_results = [twin.step(action), twin.reset()]
    expect(same(results[1:], same_results), f"{mode}: a copy of the environment does not go on as the original does")

    arrays = [array for result in results for array in _arrays(result)]
    sharing = any(np.shares_memory(one, two) for i, one in enumerate(arrays) for two in arrays[:i])
    for array in arrays:
        array.fill(1)
    action = _row(_actions(sampler, generator), 0)
    expect(
        not sharing and same(env.step(action), twin.step(action)),
        f"{mode}: observations or infos share memory with each other or the environment; return copies",
    )
    try:
        for each in (env, env, sampler, sampler):
            each.close()
    except Exception as error:
        raise AssertionError(f"{mode}: the environment cannot be closed twice: {error}") from error


def _check_refusal(env: AIRSceneEnv, action: Any, mode: str) -> None:
    """An action that holds NaN is an error, after which the episode is what it was."""
    spoiled = {**action, "z_where": action["z_where"] * np.nan} if isinstance(action, dict) else action * np.nan
    before = copy.deepcopy((vars(env.state), env.np_random.bit_generator.state))
    try:
        env.step(spoiled)
    except ValueError:
        unchanged = same(before, (vars(env.state), env.np_random.bit_generator.state))
        expect(unchanged, f"{mode}: a refused action changed the episode")
        return
    raise AssertionError(f"{mode}: an action that holds NaN was accepted; wanted a ValueError")


def _arrays(value: Any) -> list[np.ndarray]:
    """The arrays in nested containers."""
    if isinstance(value, np.ndarray):
        return [value]
    parts = list(value.values()) if isinstance(value, dict) else value
    return [array for part in parts for array in _arrays(part)] if isinstance(parts, list | tuple) else []
