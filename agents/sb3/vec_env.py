"""`AIRSceneVecEnv`: a batch of episodes as Stable-Baselines3 wants one.

Finished episodes start again by themselves, and everything is numpy. The same numbers as ``DummyVecEnv`` over
as many ``AIRSceneFlat-v1``, from one computation.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from air_env.vector_env import AIRSceneVectorEnv, Info

Observation = dict[str, NDArray]

ACTION_MODES = ("latents", "posterior")
"""The action modes whose actions are vectors, which is all that the algorithms know."""

_OF_STEPS = {"reward_terms", "action", "final_obs", "final_info", "_final_obs", "_final_info"}
"""What the info of a reset lacks."""


class AIRSceneVecEnv(VecEnv):
    """`AIRSceneVectorEnv` for Stable-Baselines3.

    Every info has ``TimeLimit.truncated`` (False: N belongs to the model). To be cheap, the others come at the end
    of an episode only: ``terminal_observation`` and what `AIRSceneEnv` has in the info of that step (``reward_terms``,
    ``action`` and the truth). ``reset_infos`` has what it has in the info of a reset.

    There are no single environments behind it. `get_attr` gives the vector environment's attribute for each index,
    and `env_method` calls its method once, whatever the indices, for all.

    Args:
        num_envs: Number of episodes.
        action_mode: ``latents`` or ``posterior``.
        min_side: Observed pixels are repeated until no side of the images is shorter; Stable-Baselines3's CNN needs 36.
        options: Everything else that `AIRSceneVectorEnv` takes: scene, split, device, world, render_mode, ...

    Raises:
        ValueError: The action mode is another, or an option is not valid.

    Example:
        >>> envs = AIRSceneVecEnv(2, scene="sprites", num_scenes=10)
        >>> envs.reset()["image"].shape
        (2, 3, 40, 40)
    """

    def __init__(self, num_envs: int, *, action_mode: str = "latents", min_side: int = 36, **options: Any) -> None:
        if action_mode not in ACTION_MODES:
            raise ValueError(f"action_mode {action_mode!r} is unknown here; choose one of {', '.join(ACTION_MODES)}")
        self.envs = AIRSceneVectorEnv(
            num_envs,
            action_mode=action_mode,
            byte_images=True,
            min_side=min_side,
            autoreset_mode=AutoresetMode.SAME_STEP,
            as_numpy=True,
            **options,
        )
        super().__init__(num_envs, self.envs.single_observation_space, self.envs.single_action_space)
        self._actions: NDArray | None = None

    def reset(self) -> Observation:
        """Starts new episodes, with the seeds of `seed` and the options of `set_options`.

        The options are those of `AIRSceneEnv.reset`: ``scene`` or ``image``, the same one for all episodes.
        """
        names = {name for options in self._options for name in options}
        if any(set(options) != names for options in self._options):
            raise ValueError(f"all episodes need the same reset options; some lack one of {', '.join(sorted(names))}")
        batched = {f"{name}s": np.stack([options[name] for options in self._options]) for name in names}
        observation, info = self.envs.reset(seed=self._seeds, options=batched)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _rows(info, np.arange(self.num_envs))
        return observation

    def step_async(self, actions: NDArray) -> None:
        """Keeps the actions ``[num_envs, action]`` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Takes the step; episodes that it finishes start again."""
        observation, rewards, dones, _, info = self.envs.step(self._actions)
        infos: list[Info] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            finished, started = np.flatnonzero(dones), {name: info[name] for name in info.keys() - _OF_STEPS}
            rows = zip(finished, _rows(info["final_info"], finished), _rows(started, finished), strict=True)
            for i, final, self.reset_infos[i] in rows:
                infos[i] |= final | {"terminal_observation": info["final_obs"][i]}
        return observation, rewards.astype(np.float32), dones, infos

    def get_images(self) -> Sequence[NDArray | None]:
        """One RGB frame for each episode."""
        return self.envs.render() or [None] * self.num_envs

    def close(self) -> None:
        """Closes the vector environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[object]:
        """The vector environment's attribute, for each index."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> None:
        """Sets the vector environment's attribute.

        Raises:
            ValueError: The indices are not all: the episodes share their attributes.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"the episodes share {attr_name!r}; set it for all of them (indices=None)")
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: object, indices: VecEnvIndices = None, **method_kwargs: object
    ) -> list[object]:
        """Calls the vector environment's method once; its result for each index, or the index's part of a tuple."""
        result = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        apart = isinstance(result, tuple) and len(result) == self.num_envs
        return [result[i] if apart else result for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False for _ in self._get_indices(indices)]


def _rows(info: Info, indices: NDArray[np.int64]) -> list[Info]:
    """The infos of some episodes: numbers, and arrays."""
    columns = {name: _column(value, indices) for name, value in info.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(indices))]


def _column(value: Info | NDArray, indices: NDArray[np.int64]) -> Sequence[object]:
    if isinstance(value, dict):
        return _rows(value, indices)
    chosen = value[indices]  # a copy
    return chosen.tolist() if chosen.ndim == 1 else list(chosen)
