"""`AIRSceneVectorEnv`: a batch of episodes as one differentiable torch computation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import logger
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from air_env import geometry
from air_env.actions import ACTION_MODES
from air_env.explanation import Explanation, masked
from air_env.frames import Frame, episode_frame
from air_env.model import SceneModel, SceneState
from air_env.reading import read_options, read_whole, to_indices, to_mask, to_seeds
from air_env.rewards import RewardTerms
from air_env.scenes import SceneDataset
from air_env.spaces import Observer, map_tensors, to_images, to_numpy, to_plans, where_rows, without_empty
from air_env.world import World, make_world

Batch = Any
"""A tensor; an array where the environment is ``as_numpy``."""
Observation = dict[str, Batch]
Info = dict[str, Any]

_RESET_OPTIONS = ("reset_mask", "scenes", "images")


class AIRSceneVectorEnv(VectorEnv[Observation, Mapping[str, object], Batch]):
    """Explains a batch of images, one object a step; torch tensors in and out.

    The spaces are those of `AIRSceneEnv`, batched. Rewards are differentiable functions of the actions
    and of the renderer's parameters; the graph reaches back to the last reset of all episodes. Unless
    ``autoreset_mode`` says otherwise, finished episodes are absorbing with reward 0 until they are reset.

    Observations are the state's own tensors, not copies. They are never changed afterwards, so they may
    be kept; clone them before writing to them. A copy or a pickle of the environment has no graph.

    Args:
        num_envs: Number of episodes.
        device: Where the model is moved to and the tensors live; None leaves it where it is.
        grad_enabled: False cuts the graph of every step.
        check_actions: False skips the checks of values, which on a GPU wait for it. Latents that are not
            finite or out of bounds then spoil the state of their episode.
        render_mode: None or ``rgb_array``.
        action_mode: One of `ACTION_MODES`: what an action is.
        byte_images: Observations hold uint8 pixels, of which the canvas has no graph.
        min_side: Observed pixels are repeated until no side of the images is shorter, in pixels (`Observer`).
        raw_latents: Observations have the chosen latents as actions have them (`Observer`).
        autoreset_mode: Gymnasium's ``AutoresetMode``. ``DISABLED``: episodes are reset by `reset` only. ``NEXT_STEP``:
            the step after an episode's last ignores its action and starts another, with reward 0. ``SAME_STEP``: its
            last step starts another, of which it returns the observation; the info has its last ``final_obs`` and
            ``final_info``, and in ``_final_obs`` whose they are.
        as_numpy: Returns new numpy arrays, of the types that Gymnasium's vector environments return, without a graph.
        world: A world made before, instead of one made from the options.
        options: Everything `make_world` takes: scene, num_steps, data_dir, likelihood, ...

    Example:
        >>> envs = AIRSceneVectorEnv(num_envs=2, num_scenes=10)
        >>> observation, info = envs.reset(seed=0)
        >>> observation["image"].shape
        torch.Size([2, 1, 50, 50])
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        device: torch.device | str | None = None,
        grad_enabled: bool = True,
        check_actions: bool = True,
        render_mode: str | None = None,
        action_mode: str = "dict",
        byte_images: bool = False,
        min_side: int = 1,
        raw_latents: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.DISABLED,
        as_numpy: bool = False,
        world: World | None = None,
        **options: Any,
    ) -> None:
        if autoreset_mode not in (modes := [*AutoresetMode, *(mode.value for mode in AutoresetMode)]):
            raise ValueError(
                f"autoreset_mode {autoreset_mode!r} is unknown; choose one of {modes[len(AutoresetMode) :]}"
            )
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": ["rgb_array"], "render_fps": 2}
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose None or rgb_array")
        if world is not None and options:
            raise ValueError(f"{', '.join(options)} cannot change a world that is given; make the world with them")
        if world is None:
            world = make_world(**options)
        self.num_envs = read_whole("num_envs", num_envs, 1)
        self.grad_enabled = grad_enabled and not as_numpy
        self.check_actions = check_actions
        self.render_mode = render_mode
        self.model: SceneModel = world.model if device is None else world.model.to(device)
        self.scenes: SceneDataset = world.scenes.to(self.device)
        self.action_mode = ACTION_MODES.find(action_mode)(self.model)
        self.byte_images = byte_images
        self.as_numpy = as_numpy
        self._observer = Observer(self.model, byte_images=byte_images, min_side=min_side, raw_latents=raw_latents)
        self.single_action_space = self.action_mode.space
        self.single_observation_space = self._observer.space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.rngs = [np_random()[0] for _ in range(self.num_envs)]
        self._state: SceneState | None = None
        self._truth: dict[str, Tensor] = {}
        self._known = np.zeros(self.num_envs, bool)
        self._returns = torch.zeros(self.num_envs, device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.model.log_p_count.device

    @property
    def state(self) -> SceneState:
        """Where the episodes stand."""
        if self._state is None:
            raise ResetNeeded("the episodes have not begun; call reset() first")
        return self._state

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, object] | None = None
    ) -> tuple[Observation, Info]:
        """Starts new episodes.

        Args:
            seed: Seed of the first episode's scenes, the others' follow; or one for each. Only the episodes
                that start are seeded.
            options: ``reset_mask [num_envs]`` (bool) starts only these; ``scenes [num_envs]`` (int) chooses
                scenes of the pool; ``images [num_envs, 1, height, width]`` or ``[num_envs, height, width]``
                (uint8, or float in [0, 1]) brings one's own.

        Returns:
            Observation and info. The info has ``log_p_x_empty [num_envs]``, the constant that an episode's
            rewards lack to be a log-joint, and the truth where it is known: ``count``, ``labels``, ``boxes``
            as in `SceneDataset`. Episodes on images of one's own have -1, -1 and NaN there; if there are no
            others, the info has no truth.

        Raises:
            ValueError: An option or the seed is not as above. Nothing has changed then.
            ResetNeeded: The first reset must start all episodes.
        """
        options = read_options(options, _RESET_OPTIONS)
        if "scenes" in options and "images" in options:
            raise ValueError("reset options 'scenes' and 'images' exclude each other; give one of them")
        mask = to_mask(options.get("reset_mask"), self.num_envs)
        if self._state is None and not mask.all():
            raise ResetNeeded("the first reset must start all episodes; call it without reset_mask")
        seeds = to_seeds(seed, self.num_envs)
        own_images = "images" in options
        if own_images:
            images, truth = (
                to_images(options["images"], self.model, self.num_envs),
                self.scenes.unknown_truth(self.num_envs),
            )
        elif "scenes" in options:
            images, truth = self._look_up(to_indices(options["scenes"], self.num_envs, len(self.scenes)))
        else:
            images = truth = None

        # Everything has been checked: from here on the environment changes.
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self.rngs[i] = np_random(seeds[i])[0]
        if images is None or truth is None:
            images, truth = self._draw(mask)
        info = self._begin(mask, images, truth, known=not own_images)
        return self._observe(), to_numpy(info) if self.as_numpy else info

    def step(self, actions: object) -> tuple[Observation, Batch, Batch, Batch, Info]:
        """Adds one object to every scene, or stops there.

        Args:
            actions: A dict of ``z_pres [num_envs]`` (1 draws an object, 0 stops), ``z_where [num_envs, 3]``,
                ``z_what [num_envs, what]`` (or ``[num_envs]`` of categories), and ``z_scene [num_envs, scene]`` where
                there is one; or a matrix, as the action mode says. Tensors, whose graph is kept, or arrays.

        Returns:
            Observation (``image``, ``canvas``, ``step``); rewards ``[num_envs]`` in nats; terminations, which
            stay true until the reset; truncations, never true; info with ``reward_terms``, which add up to the
            reward (the parts of `RewardTerms`, and ``neg_log_q``, which is 0 unless the environment drew the objects),
            ``action``, the objects, and the truth as at the reset; ``log_p_x_empty``, too, where episodes started.

        Raises:
            ValueError: The action is not valid (`ActionMode.read`). Nothing has changed then.
            ResetNeeded: The episodes have not begun.
        """
        self.state  # noqa: B018 (has begun)
        return self.take(self.action_mode.read(actions, self.num_envs, check=self.check_actions))

    def take(self, values: Any) -> tuple[Observation, Batch, Batch, Batch, Info]:
        """`step` with actions that the action mode has read."""
        before = self.state
        if not self.grad_enabled:
            values = map_tensors(Tensor.detach, values)
        action, log_q = self.action_mode.act(values, self._noise(before.active), before.active & (before.step == 0))
        with torch.set_grad_enabled(self.grad_enabled and torch.is_grad_enabled()):
            self._state, terms = self.model.step(before, action)
            parts = terms.parts | {"neg_log_q": masked(before.active, -log_q)}
            rewards = terms.total + parts["neg_log_q"]
        self._returns = self._returns + rewards.detach()
        observation, terminations = self._observe(), ~self._state.active
        info: Info = {"reward_terms": parts, "action": without_empty(vars(action)), **self._known_truth()}
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            terminations = terminations & before.active
            if restarted := self._restart(~before.active):
                observation, info = self._observe(), info | restarted
        elif self.autoreset_mode == AutoresetMode.SAME_STEP and (restarted := self._restart(terminations)):
            final_obs = _apart(observation, to_numpy(terminations)) if self.as_numpy else observation
            final = {"final_obs": final_obs, "final_info": info}
            observation, info = self._observe(), info | restarted | final | {f"_{name}": terminations for name in final}
        truncations = torch.zeros_like(terminations)
        if self.as_numpy:
            return observation, to_numpy(rewards.double()), *map(to_numpy, (terminations, truncations, info))
        return observation, rewards, terminations, truncations, info

    def unroll(self, z: Explanation) -> RewardTerms:
        """The rewards ``[plan, N]`` of plans: N objects for each current image, all at once.

        The same numbers as a reset to these images and N steps with presence 1, for a plan that does not
        look at the canvas. The episodes stay where they are.

        Args:
            z: N objects that are all present, of one plan for each image, or several; the plans of an image follow each
                other.

        Raises:
            ValueError: The latents are not valid.
            ResetNeeded: The episodes have not begun.
        """
        z = to_plans(z, self.model, self.num_envs, check=self.check_actions)
        images = self.state.images.repeat_interleave(len(z.z_pres) // self.num_envs, 0)
        with torch.set_grad_enabled(self.grad_enabled and torch.is_grad_enabled()):
            return self.model.unroll(images, z)

    def render(self) -> tuple[Frame, ...] | None:
        """One RGB frame for each episode: image and canvas with the windows, count and return so far."""
        if self.render_mode is None:
            logger.warn("render() was called without a render mode; make the environment with render_mode='rgb_array'")
            return None
        state = self.state
        windows = geometry.to_pixels(self.model.windows(state.z), self.model.config.image_size)
        pixels = (state.images, state.canvas, windows)
        told = (state.step.tolist(), (~state.active).tolist(), self._returns.tolist())
        rows = zip(*(part.numpy(force=True) for part in pixels), *told, strict=True)
        return tuple(episode_frame(*row) for row in rows)

    def __getstate__(self) -> dict[str, object]:
        # Torch copies only what has no graph.
        state = self._state
        return {**self.__dict__, "_state": None if state is None else map_tensors(Tensor.detach, state)}

    def _restart(self, finished: Bool[Tensor, "batch"]) -> Info:
        """Starts other episodes of the pool where some are finished; their info, empty where none are."""
        mask = finished.numpy(force=True)
        return self._begin(mask, *self._draw(mask), known=True) if mask.any() else {}

    def _begin(self, mask: NDArray[np.bool_], images: Tensor, truth: dict[str, Tensor], *, known: bool) -> Info:
        """Puts the masked episodes at the start of new images; returns the info of a reset."""
        old, restarts = self._state, torch.from_numpy(mask).to(self.device)
        if old is not None and not mask.all():
            images = where_rows(restarts, images, old.images)
            truth = {name: where_rows(restarts, part, self._truth[name]) for name, part in truth.items()}
        state = fresh = self.model.initial(images)
        if old is not None and not mask.all():
            state = where_rows(restarts, fresh, old)
        self._returns = torch.where(restarts, 0.0, self._returns.to(fresh.log_p_x))
        self._state, self._truth, self._known = state, truth, np.where(mask, known, self._known)
        return {"log_p_x_empty": fresh.log_p_x, **self._known_truth()}

    def _draw(self, mask: NDArray[np.bool_]) -> tuple[Tensor, dict[str, Tensor]]:
        """Images and truth of scenes that the masked episodes draw from the pool."""
        rows = zip(self.rngs, mask, strict=True)
        return self._look_up(torch.tensor([rng.integers(len(self.scenes)) if on else 0 for rng, on in rows]))

    def _look_up(self, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images and truth of scenes of the pool."""
        scenes = self.scenes[chosen.to(self.device)]
        truth = scenes.truth
        return to_images(scenes.images, self.model), truth

    def _noise(self, active: Bool[Tensor, "batch"]) -> Float[Tensor, "batch noise"]:
        """What the action mode draws; finished episodes draw nothing, as they would alone."""
        like, size = self.model.log_p_count, self.action_mode.noise_size
        if size == 0:
            return like.new_empty(self.num_envs, 0)
        rows = zip(self.rngs, active.tolist(), strict=True)
        noise = np.stack([self.action_mode.noise(rng) if on else np.zeros(size) for rng, on in rows])
        return torch.from_numpy(noise).to(like.device, like.dtype)

    def _observe(self) -> Observation:
        observation = self._observer(self.state)
        if not self.as_numpy:
            return observation
        return {
            name: to_numpy(part.float() if part.is_floating_point() else part) for name, part in observation.items()
        }

    def _known_truth(self) -> dict[str, Tensor]:
        return dict(self._truth) if self._known.any() else {}


def _apart(observation: Observation, mask: NDArray[np.bool_]) -> NDArray[np.object_]:
    """The observations of single episodes, None where the mask does not hold."""
    rows = np.full(len(mask), None)
    for i in np.flatnonzero(mask):
        rows[i] = {name: part[i] for name, part in observation.items()}
    return rows
