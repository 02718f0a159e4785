"""`AIRSceneVectorEnv`: a batch of episodes as one differentiable torch computation."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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

from air_env.actions import ACTION_MODES
from air_env.explanation import Action, Explanation, masked
from air_env.frames import Frame, scene_frame
from air_env.model import RewardTerms, SceneModel, SceneState
from air_env.reading import to_indices, to_mask, to_seeds
from air_env.scenes import SceneDataset
from air_env.spaces import observation_space, observe, to_images, where_rows, without_empty
from air_env.world import World, make_world

Observation = dict[str, Tensor]
Info = dict[str, Any]

_RESET_OPTIONS = ("reset_mask", "scenes", "images")


class AIRSceneVectorEnv(VectorEnv[Observation, Mapping[str, Any], Tensor]):
    """Explains a batch of images, one object a step; torch tensors in and out.

    The spaces are those of `AIRSceneEnv`, batched. Rewards are differentiable functions of the actions
    and of the renderer's parameters; the graph reaches back to the last reset of all episodes. There is
    no automatic reset: finished episodes are absorbing with reward 0 until they are reset.

    Observations are the state's own tensors, not copies. They are never changed afterwards, so they may
    be kept; clone them before writing to them.

    Args:
        num_envs: Number of episodes.
        device: Where the model is moved to and the tensors live; None leaves it where it is.
        grad_enabled: False cuts the graph of every step.
        check_actions: False skips the checks of values, which on a GPU wait for it. Latents that are not
            finite or out of bounds then spoil the state of their episode.
        render_mode: None or ``rgb_array``.
        action_mode: One of `ACTION_MODES`: what an action is.
        byte_images: Observations hold uint8 pixels, of which the canvas has no graph.
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
        world: World | None = None,
        **options: Any,
    ) -> None:
        self.metadata = {
            "autoreset_mode": AutoresetMode.DISABLED,
            "render_modes": ["rgb_array"],
            "render_fps": 2,
        }
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose None or rgb_array")
        if world is not None and options:
            raise ValueError(f"{', '.join(options)} cannot change a world that is given; make the world with them")
        if world is None:
            world = make_world(**options)
        self.num_envs = num_envs
        self.grad_enabled = grad_enabled
        self.check_actions = check_actions
        self.render_mode = render_mode
        self.model: SceneModel = world.model if device is None else world.model.to(device)
        self.scenes: SceneDataset = world.scenes.to(self.device)
        self.action_mode = ACTION_MODES.find(action_mode)(self.model)
        self.byte_images = byte_images
        self.single_action_space = self.action_mode.space
        self.single_observation_space = observation_space(self.model, byte_images=byte_images)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._rngs = [np_random()[0] for _ in range(num_envs)]
        self._state: SceneState | None = None
        self._truth: dict[str, Tensor] = {}
        self._known = np.zeros(num_envs, bool)
        self._returns = torch.zeros(num_envs, device=self.device)

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
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
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
        options = dict(options or {})
        if unknown := options.keys() - set(_RESET_OPTIONS):
            raise ValueError(f"reset options {sorted(unknown)} are unknown; choose from {', '.join(_RESET_OPTIONS)}")
        if "scenes" in options and "images" in options:
            raise ValueError("reset options 'scenes' and 'images' exclude each other; give one of them")
        mask = to_mask(options.get("reset_mask"), self.num_envs)
        if self._state is None and not mask.all():
            raise ResetNeeded("the first reset must start all episodes; call it without reset_mask")
        seeds = to_seeds(seed, self.num_envs)
        own_images = "images" in options
        if own_images:
            images, truth = to_images(options["images"], self.model, self.num_envs), self._unknown_truth()
        elif "scenes" in options:
            images, truth = self._look_up(to_indices(options["scenes"], self.num_envs, len(self.scenes)))
        else:
            images = truth = None

        # Everything has been checked: from here on the environment changes.
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self._rngs[i] = np_random(seeds[i])[0]
        if images is None or truth is None:
            drawn = [draw_scene(self._rngs[i], len(self.scenes)) if mask[i] else 0 for i in range(self.num_envs)]
            images, truth = self._look_up(torch.tensor(drawn))
        self._known = np.where(mask, not own_images, self._known)
        log_p_x_empty = self._begin(mask, images, truth)
        return self._observation(), {"log_p_x_empty": log_p_x_empty, **self._known_truth()}

    def step(self, actions: Any) -> tuple[Observation, Tensor, Tensor, Tensor, Info]:
        """Adds one object to every scene, or stops there.

        Args:
            actions: A dict of ``z_pres [num_envs]`` (1 draws an object, 0 stops), ``z_where [num_envs, 3]``,
                ``z_what [num_envs, what]`` (or ``[num_envs]`` of categories), and ``z_scene [num_envs, scene]`` where
                there is one; or a matrix, as the action mode says. Tensors, whose graph is kept, or arrays.

        Returns:
            Observation (``image``, ``canvas``, ``step``); rewards ``[num_envs]`` in nats; terminations, which
            stay true until the reset; truncations, never true; info with ``reward_terms``, which add up to the
            reward (the parts of `RewardTerms`, and ``neg_log_q``, which is 0 unless the environment drew the objects),
            ``action``, the objects, and the truth as at the reset.

        Raises:
            ValueError: The action is not valid (`ActionMode.read`). Nothing has changed then.
            ResetNeeded: The episodes have not begun.
        """
        active = self.state.active
        values = self.action_mode.read(actions, self.num_envs, check=self.check_actions)
        return self.advance(*self.action_mode.act(values, self._noise(active), active & (self.state.step == 0)))

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
        model, plans = self.model, max(1, len(z.z_where) // self.num_envs)
        plan = (self.num_envs * plans, model.config.num_steps)
        latents = {
            name: prior.read(name, getattr(z, name), plan[:1] if name == "z_scene" else plan, check=self.check_actions)
            for name, prior in model.priors.items()
        }
        z = Explanation(latents["z_where"].new_ones(plan), **latents)
        with self._graph():
            return model.unroll(self.state.images.repeat_interleave(plans, 0), z)

    def render(self) -> tuple[Frame, ...] | None:
        """One RGB frame for each episode: image and canvas with the windows, count and return so far."""
        if self.render_mode is None:
            logger.warn("render() was called without a render mode; make the environment with render_mode='rgb_array'")
            return None
        state = self.state
        pixels = (state.images, state.canvas, self.model.boxes(state.z))
        parts = zip(*(part.numpy(force=True) for part in pixels), strict=True)
        rows = zip(parts, state.step.tolist(), state.active.tolist(), self._returns.tolist(), strict=True)
        frames = []
        for part, count, active, total in rows:
            # Adding 0 takes the sign of -0.0.
            value = f"canvas, return {round(total, 1) + 0.0:,.1f} nats"
            frames.append(scene_frame(*part, (f"image, count {count}{'' if active else ', finished'}", value)))
        return tuple(frames)

    def advance(self, action: Action, log_q: Tensor) -> tuple[Observation, Tensor, Tensor, Tensor, Info]:
        """`step` with an `Action` that is known to be valid, in the model's device and dtype.

        Args:
            action: The objects.
            log_q: Their log-probability, which is subtracted from the rewards of the episodes that go on.
        """
        before = self.state
        with self._graph():
            after, terms = self.model.step(before, action)
            parts = terms.parts | {"neg_log_q": masked(before.active, -log_q)}
            rewards = terms.total + parts["neg_log_q"]
        self._state, self._returns = after, self._returns + rewards.detach()
        info = {"reward_terms": parts, "action": without_empty(vars(action)), **self._known_truth()}
        return self._observation(), rewards, ~after.active, torch.zeros_like(after.active), info

    def _begin(self, mask: NDArray[np.bool_], images: Tensor, truth: dict[str, Tensor]) -> Float[Tensor, "batch"]:
        """Puts the masked episodes at the start of new images; returns ``log p(x | c_0)`` of all."""
        old, restarts = self._state, torch.from_numpy(mask).to(self.device)
        if old is not None and not mask.all():
            images = where_rows(restarts, images, old.images)
            truth = {name: where_rows(restarts, part, self._truth[name]) for name, part in truth.items()}
        state = fresh = self.model.initial(images)
        if old is not None and not mask.all():
            state = where_rows(restarts, fresh, old)
        self._returns = torch.where(restarts, 0.0, self._returns.to(fresh.log_p_x))
        self._state, self._truth = state, truth
        return fresh.log_p_x

    def _look_up(self, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images and truth of scenes of the pool."""
        scenes = self.scenes[chosen.to(self.device)]
        truth = scenes.truth
        return to_images(scenes.images, self.model), truth

    def _unknown_truth(self) -> dict[str, Tensor]:
        """The truth of images that are not of the pool."""
        return {
            name: part.new_full(
                (self.num_envs, *part.shape[1:]), torch.nan if part.is_floating_point() else -1, device=self.device
            )
            for name, part in self.scenes.truth.items()
        }

    def _noise(self, active: Bool[Tensor, "batch"]) -> Float[Tensor, "batch noise"]:
        """What the action mode draws; finished episodes draw nothing, as they would alone."""
        like, size = self.model.log_p_count, self.action_mode.noise_size
        if size == 0:
            return like.new_empty(self.num_envs, 0)
        rows = zip(self._rngs, active.tolist(), strict=True)
        noise = np.stack([self.action_mode.noise(rng) if on else np.zeros(size) for rng, on in rows])
        return torch.from_numpy(noise).to(like.device, like.dtype)

    def _observation(self) -> Observation:
        return observe(self.model, self.state, byte_images=self.byte_images)

    def _known_truth(self) -> dict[str, Tensor]:
        return dict(self._truth) if self._known.any() else {}

    def _graph(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.grad_enabled else torch.no_grad()


def draw_scene(rng: np.random.Generator, num_scenes: int) -> int:
    """The scene of the pool that a reset starts; the single and the vector environment share it."""
    return int(rng.integers(num_scenes))
