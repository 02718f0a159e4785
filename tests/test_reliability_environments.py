"""Hostile calls to the environments: every error leaves the state as it was."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from campaign import campaign
from gymnasium.error import ResetNeeded

from air_env import AIRSceneEnv, AIRSceneVectorEnv, Explanation, World, make_world

pytestmark = pytest.mark.slow
CALLS, NUM_ENVS = 30_000, 3
WORLDS: dict[str, dict[str, Any]] = {
    "sprites": {"scene": "sprites", "num_scenes": 8, "num_steps": 2},
    "digits": {"scene": "digits", "num_scenes": 8, "num_steps": 3},
    "objects3d": {"scene": "objects3d", "num_scenes": 8, "image_size": 16, "scene_options": {"renderer": "raycast"}},
    "tabletop3d": {"scene": "tabletop3d", "num_scenes": 8, "image_size": 16, "scene_options": {"renderer": "raycast"}},
}


class Hostile:
    """Draws values that callers hand in by mistake, of an array that would be right."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def choice(self, values: list) -> Any:
        return values[self.rng.integers(len(values))]

    def junk(self) -> Any:
        """Something that is no array of numbers of the right shape."""
        makers: list[Callable[[], Any]] = [
            lambda: None, lambda: "z", lambda: b"\0", lambda: object(), lambda: {}, lambda: {"z": 1}, lambda: [],
            lambda: [[1], [2, 3]], lambda: float("nan"), lambda: float("inf"), lambda: 10**400, lambda: -1, lambda: 1.5,
            lambda: 1j, lambda: {1, 2}, lambda: np.array(["a"]), lambda: np.array([None]), lambda: np.zeros((0, 0)),
            lambda: np.datetime64("2020-01-01"), lambda: lambda: 0, lambda: torch.zeros(1, dtype=torch.complex64),
            lambda: torch.zeros(2, device="meta"), lambda: torch.eye(2).to_sparse(), lambda: range(3), lambda: True,
            lambda: np.ma.masked_array([1.0], [True]), lambda: torch.zeros(()), lambda: iter([1]), lambda: type,
            lambda: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]),
        ]  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.choice(makers)()

    def damaged(self, values: Any) -> Any:
        """A right value with something wrong with it, or now and then the right value."""
        array = np.array(values)
        kind = self.rng.integers(8)
        if kind == 0:
            return self.junk()
        if kind == 1:
            return array.astype(self.choice([np.float64, np.float16, np.int8, np.complex64, object, str, bool]))
        if kind == 2:
            return array[..., : max(0, array.shape[-1] - 1)] if array.ndim else array[None]
        if kind == 3:
            return np.stack([array, array])
        array = array.astype(float)
        if kind in (4, 5) and array.size:
            array.flat[self.rng.integers(array.size)] = self.choice([np.nan, np.inf, -np.inf, 1e308, -51, 1.0001, 0.5])
        return torch.from_numpy(array) if self.rng.random() < 0.5 and array.ndim else array

    def action(self, space: gymnasium.Space) -> Any:
        """An action of a space, damaged."""
        action = space.sample()
        if self.rng.random() < 0.1:
            return self.junk()
        if not isinstance(action, dict):
            return self.damaged(action)
        name = self.choice(list(action))
        if (kind := self.rng.integers(6)) == 0:
            del action[name]
        elif kind == 1:
            action["z_bogus"] = 0
        elif kind == 2:
            action = {str(key).upper() if key == name else key: value for key, value in action.items()}
        else:
            action = {**action, name: self.damaged(action[name])}
        return action

    def plan(self, envs: AIRSceneVectorEnv) -> Explanation:
        """Objects for each image, with something wrong in number, size or values."""
        batch, steps = (self.choice([0, 1, 3, 3, 3, 6, 7]), self.choice([1, envs.model.config.num_steps]))
        parts = {
            name: torch.as_tensor(np.array(prior.space(*(() if name == "z_scene" else (steps,))).sample()))
            .float()
            .expand(batch, *(() if name == "z_scene" else (steps,)), *prior.event_shape)
            .clone()
            for name, prior in envs.model.priors.items()
        }
        name = self.choice(list(parts))
        if parts[name].numel():
            parts[name].flatten()[0] = self.choice([0.0, np.nan, np.inf, 99.0, -1.0, 0.5])
        if envs.model.prior_what.event_shape == ():
            parts["z_what"] = parts["z_what"].nan_to_num(0, 0, 0).long()
        return Explanation(torch.ones(batch, steps), **parts)

    def reset(self, names: tuple[str, ...], right: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a reset."""
        options: Any = {}
        for name in names:
            if self.rng.random() < 0.4:
                options[name] = self.damaged(right[name])
        if self.rng.random() < 0.15:
            options[self.choice(["bogus", 1, None])] = self.junk()
        if self.rng.random() < 0.1:
            options = self.choice([5, "scene", [1], 1.5, {"scene"}, object()])
        seed = self.choice([None, 0, 5, np.int64(3), -1, 1.5, "1", [1, 2, 3], [1], [None, -1, 2], float("nan"), 2**70])
        return {"seed": seed, "options": options}


def fingerprint(envs: AIRSceneVectorEnv) -> list[Any]:
    """All that an error must not change."""
    state = envs._state
    tensors = [] if state is None else [*(vars(state) | vars(state.z)).values()]
    parts = [part.detach().numpy().tobytes() for part in tensors if isinstance(part, torch.Tensor)]
    truth = [part.numpy().tobytes() for part in envs._truth.values()]
    rngs = [str(rng.bit_generator.state) for rng in envs.rngs]
    return [*parts, *truth, envs._returns.numpy().tobytes(), envs._known.tobytes(), *rngs]


ALLOWED = (ValueError, ResetNeeded)


def calls(
    envs: AIRSceneEnv | AIRSceneVectorEnv, inner: AIRSceneVectorEnv, hostile: Hostile
) -> Iterator[Callable[[], Any]]:
    """Endless calls, of which most are wrong."""
    single = isinstance(envs, AIRSceneEnv)
    names = ("scene", "image") if single else ("scenes", "images", "reset_mask")
    images = inner.scenes.float_images()[: inner.num_envs].numpy()
    right = {"scene": 1, "image": images[0], "scenes": [0, 1, 2], "images": images, "reset_mask": [True, False, True]}
    space = envs.action_space
    while True:
        kind = hostile.rng.random()
        if kind < 0.45:
            action = hostile.action(space)
            yield lambda action=action: envs.step(action)
        elif kind < 0.55:
            yield lambda: envs.step(space.sample())
        elif kind < 0.6:
            yield lambda: envs.reset()
        elif kind < 0.95 or single:
            arguments = hostile.reset(names, right)
            yield lambda arguments=arguments: envs.reset(**arguments)
        else:
            plan = hostile.choice([None, 5, {}, hostile.plan(inner), hostile.plan(inner)])
            yield lambda plan=plan: envs.unroll(plan)


@pytest.mark.parametrize("mode", ["dict", "latents", "posterior"])
@pytest.mark.parametrize("kind", ["single", "vector"])
def test_hostile_calls_change_nothing(kind, mode):
    with campaign(f"hostile calls, {kind} environment, {mode}") as counts, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in WORLDS.items():
            world = make_world(**options)
            hostile = Hostile(len(name))
            if kind == "single":
                envs = AIRSceneEnv(world=world, action_mode=mode)
                inner = envs._envs
            else:
                envs = inner = AIRSceneVectorEnv(NUM_ENVS, world=World(world.model, world.scenes), action_mode=mode)
            envs.action_space.seed(0)
            envs.reset(seed=0)
            stream = calls(envs, inner, hostile)
            refused = 0
            for i in range(CALLS // 6 // len(WORLDS)):
                call = next(stream)
                counts.tried += 1
                before, generator = fingerprint(inner), copy.deepcopy(getattr(envs, "_np_random", None))
                try:
                    call()
                except ALLOWED:
                    refused += 1
                    if fingerprint(inner) != before:
                        counts.lost.append(f"{name} call {i}: an error changed the state")
                    if generator is not None and envs._np_random.bit_generator.state != generator.bit_generator.state:
                        counts.lost.append(f"{name} call {i}: an error changed the generator")
                except Exception as error:
                    counts.failed.append(f"{name} call {i}: {type(error).__name__}: {str(error)[:100]}")
                if inner._state is not None and not inner.state.log_p_x.isfinite().all():
                    counts.lost.append(f"{name} call {i}: the state is not finite")
                    envs.reset(seed=0)
            if refused < counts.tried / len(WORLDS) / 10:
                counts.failed.append(f"{name}: only {refused} calls were refused: the campaign is too tame")
