"""`EpisodeStatistics`: returns and lengths of finished episodes, where rewards are tensors with a graph.

Gymnasium's ``RecordEpisodeStatistics`` adds rewards up in numpy, which tensors with a graph refuse.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from gymnasium.vector import AutoresetMode, VectorWrapper
from torch import Tensor

from air_env.reading import to_mask
from air_env.vector_env import AIRSceneVectorEnv, Batch, Info, Observation


class EpisodeStatistics(VectorWrapper[Observation, Mapping[str, object], Observation, Mapping[str, object], Batch]):
    """Notes returns and lengths of the episodes of a differentiable vector environment, without their graph.

    The info of a step has ``episode``, a dict of ``r [num_envs]`` (returns, nats) and
    ``l [num_envs]`` (steps), which are 0 where ``_episode [num_envs]`` is False, as with Gymnasium's
    ``RecordEpisodeStatistics``. Nothing waits for a GPU before `returns` or `lengths` is read.

    Args:
        envs: The environment, ``as_numpy=False``.
        buffer_length: Number of steps that `returns` and `lengths` look back on.

    Example:
        >>> envs = EpisodeStatistics(AIRSceneVectorEnv(2, num_scenes=10, num_steps=1))
        >>> _ = envs.reset(seed=0)
        >>> _ = envs.step({"z_pres": [0, 0], "z_where": torch.zeros(2, 3), "z_what": torch.zeros(2, 50)})
        >>> envs.lengths
        tensor([1, 1])
    """

    def __init__(self, envs: AIRSceneVectorEnv, buffer_length: int = 100) -> None:
        if envs.unwrapped.as_numpy:  # type: ignore[attr-defined]
            raise ValueError("the environment is as_numpy; use gymnasium.wrappers.vector.RecordEpisodeStatistics")
        super().__init__(envs)
        self._finished: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=buffer_length)
        self._return = self._length = self._over = torch.zeros(self.num_envs)

    @property
    def returns(self) -> Tensor:
        """Returns of the last finished episodes in nats, ``[episode]``, oldest first."""
        return torch.cat([values[done] for values, _, done in self._finished] or [torch.empty(0)])

    @property
    def lengths(self) -> Tensor:
        """Steps of the last finished episodes, ``[episode]``, oldest first."""
        return torch.cat([steps[done] for _, steps, done in self._finished] or [torch.empty(0, dtype=torch.long)])

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, object] | None = None
    ) -> tuple[Observation, Info]:
        """Resets the environment (`AIRSceneVectorEnv.reset`), and the sums of the episodes that start."""
        observation, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        goes_on = ~torch.from_numpy(to_mask((options or {}).get("reset_mask"), self.num_envs)).to(
            info["log_p_x_empty"].device
        )
        self._return = torch.where(goes_on, self._return.to(info["log_p_x_empty"]), 0)
        self._length = torch.where(goes_on, self._length.to(observation["step"]), 0)
        self._over = self._over.to(goes_on) & goes_on
        return observation, info

    def step(self, actions: Mapping[str, object]) -> tuple[Observation, Batch, Batch, Batch, Info]:
        """Takes a step (`AIRSceneVectorEnv.step`); the info tells of the episodes that it finishes."""
        observation, rewards, terminations, truncations, info = self.env.step(actions)
        # The step after an episode's last belongs to no episode: it starts another one, or is taken by none.
        self._return = torch.where(self._over, 0, self._return + rewards.detach())
        self._length = torch.where(self._over, 0, self._length + 1)
        done = terminations & ~self._over
        finished = torch.where(done, self._return, 0), torch.where(done, self._length, 0)
        self._finished.append((*finished, done))
        if self.env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
            self._return, self._length = self._return - finished[0], self._length - finished[1]
        else:
            self._over = terminations
        info |= {"episode": dict(zip("rl", finished, strict=True)), "_episode": done}
        return observation, rewards, terminations, truncations, info
