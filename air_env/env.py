"""`AIRSceneEnv`: one episode at a time, in numpy, for Gymnasium's users and tools."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import logger
from gymnasium.error import ResetNeeded

from air_env.frames import Frame, Window
from air_env.model import SceneModel, SceneState
from air_env.pictured import Pictured
from air_env.reading import read_numbers, read_options, to_seeds
from air_env.vector_env import AIRSceneVectorEnv, Info
from air_env.world import World

Observation = dict[str, np.ndarray | np.int64]

_RESET_OPTIONS = ("scene", "image")


class AIRSceneEnv(Pictured, gymnasium.Env[Observation, Mapping[str, object]]):
    """Explain an image one object at a time, for the log-joint of the explanation.

    ## Description

    An image ``x`` shows a few objects. The agent explains it step by step: every step adds one object, what it
    looks like and where it is, to a canvas, or stops. The environment knows the generative model
    ``p(n) * prod_i p(z_where_i) p(z_what_i) * p(x | canvas_n)`` and pays what each step adds to its logarithm, so
    that scene explanation is reinforcement learning (Eslami et al., "Attend, Infer, Repeat", 2016). The episode is
    a shell around `SceneModel`; `AIRSceneVectorEnv` gives the same numbers for batches, as differentiable tensors.

    ## Action

    ``action_mode="dict"``, of ``AIRScene-v1``: the object itself, a ``Dict``:

    | key | space | meaning |
    |---|---|---|
    | ``z_pres`` | ``Discrete(2)`` | 1 draws an object; 0 stops, and the latents are ignored |
    | ``z_where`` | ``Box(-50, 50, (3,))`` | window: log of its size relative to the image, centre x, y |
    | ``z_what`` | ``Box(-50, 50, (50,))`` or ``Discrete(K)`` | a code, a priori standard normal; or a category |

    The centre is in image coordinates, from -1 (left, top) to 1 (right, bottom). In ``objects3d``, ``z_where`` is a
    pose instead: x and y on a plane, and yaw in radians. In ``tabletop3d`` it is a place ``(2,)`` on the table, and a
    fourth key belongs to the whole scene: ``z_scene``, ``Box(-50, 50, (1,))``, the angle of the camera in radians. So
    does the code of a learned background, ``Box(-50, 50, (S,))``, where the model has one (`SceneConfig.background`).
    Only an episode's first action is asked for it, be it a stop. The bounds are far beyond the priors
    (`air_env.reading.LATENT_BOUND`).

    ``action_mode="latents"``, of ``AIRSceneFlat-v1``: the same as a ``Box(-1, 1, (4 + 50,))`` or ``(4 + K,)``:

    | entries | meaning |
    |---|---|
    | 1 | ``z_pres``: positive draws an object, 0 or less stops |
    | 3 | ``z_where``, in units of 3 prior standard deviations from the prior's mean (``tabletop3d``: 2) |
    | 0 | ``z_scene``, in the same units (``tabletop3d``: 1) |
    | 50 or K | ``z_what``, in the same units; or one entry for each category, of which the largest wins |

    ``action_mode="posterior"``: a distribution, a ``Box(-1, 1, (7 + 100,))`` or ``(7 + K,)``. The environment draws the
    object from it, with the generator that the seed of `reset` decides, and pays for its entropy:

    | entries | meaning |
    |---|---|
    | 1 | logit of drawing an object, in units of 10 |
    | 3 | means of ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | 3 | log standard deviations of ``z_where``: 1 is the prior's, -1 is exp(-6) of it |
    | 0 | the same of ``z_scene`` (``tabletop3d``: 1 and 1) |
    | 50, 50 or K | the same of ``z_what``; or one logit for each category, in units of 10 |

    In every mode, a value out of bounds, NaN or a wrong shape is a ``ValueError``, also in latents that are ignored,
    and changes nothing. ``info["action"]`` of a step is the object: ``z_pres``, ``z_where``, ``z_what``.

    ## Observation

    ``Dict``, with all the state there is (the episode is Markov); C is 1 (grey) or 3 (RGB):

    | key | space | with ``byte_images`` | meaning |
    |---|---|---|---|
    | ``image`` | ``Box(0, 1, (C, H, W))``, float32 | ``Box(0, 255, (C, H, W))``, uint8 | what is to be explained |
    | ``canvas`` | ``Box(0, N + 1, (C, H, W))``, float32 | ``Box(0, 255, (C, H, W))``, uint8 | what is drawn so far |
    | ``step`` | ``Discrete(N + 1)`` | ``Discrete(N + 1)`` | number of objects so far |

    Where there is a ``z_scene``, also ``chosen_z_scene``, ``chosen_z_where`` and ``chosen_z_what`` (``tabletop3d``:
    ``[1]``, ``[N, 2]`` and ``[N, K]``, one-hot), 0 where nothing is chosen yet.

    Learned patches add up, unless they are opaque, so that a canvas may exceed 1, and N + 1 on a learned background; as
    bytes it is clipped at 1. ``AIRSceneFlat-v1`` has bytes, and at least 36 pixels a side, which the CNN of
    Stable-Baselines3 needs: smaller images have their pixels repeated.

    ## Rewards

    In nats, with ``c_i`` the canvas after i objects:

        present step i:  r_i    = log p(x|c_i) - log p(x|c_{i-1}) + log p(z_where_i) + log p(z_what_i)
                                  + log p(z_pres_i = 1 | i - 1)
        stop after i:    r_stop = log p(z_pres = 0 | i)                          (0 when i = N)

    They telescope: with undiscounted return ``G`` and the constant ``info["log_p_x_empty"]`` of the reset,

        G + log p(x | c_0) = log p(x, z, n),    E_q[G - log q(z, n | x)] + log p(x | c_0) = ELBO.

    In ``posterior`` every step also pays ``-log q`` of what it drew, so that ``G + log p(x | c_0)`` alone is a sample
    of the ELBO. ``info["reward_terms"]`` has the parts, which add up to the reward: ``likelihood_gain``,
    ``log_p_z_where``, ``log_p_z_what``, ``log_p_z_pres``, ``log_p_z_scene`` (0 where the scene has no latent) and
    ``neg_log_q`` (0 but in ``posterior``). Where the empty scene is not black, ``c_0`` still is, and the reward of the
    first action, be it a stop, adds ``log p(z_scene)`` and the log-likelihood gained by drawing the empty scene.

    ## Starting state

    An empty canvas, and an image drawn uniformly from the pool. ``reset(options={"scene": i})`` chooses image i of the
    pool, ``options={"image": array}`` brings one's own: ``[H, W]`` (grey) or ``[C, H, W]``, uint8 or float in [0, 1].
    The truth about an image of the pool is in the info of every reset and step, for evaluation only: ``count``,
    ``labels [object]`` (-1 where there is none), ``boxes [object, 4]`` (``x0, y0, x1, y1`` in pixels; NaN where there
    is none), and in three dimensions ``poses [object, 3]`` or ``[object, 2]`` and, of a table, ``z_scene [1]``.

    ## Episode end

    ``terminated`` when the agent stops or has drawn N objects: N belongs to the model, so it is no time limit, and
    ``truncated`` is never true. A further step raises ``ResetNeeded``.

    ## Arguments

    ```python
    import air_env, gymnasium
    env = gymnasium.make("AIRScene-v1", scene="sprites", num_steps=4, render_mode="rgb_array")
    env = gymnasium.make("AIRSceneFlat-v1", scene="sprites", action_mode="posterior")
    ```

    Args:
        render_mode: None; ``rgb_array``: `render` returns image and canvas with the windows in red, green, blue, the
            count and the return so far; ``human``: a matplotlib window shows that frame after every step.
        device: Where the model computes; None leaves it where it is.
        action_mode: What an action is: ``dict``, ``latents`` or ``posterior``.
        byte_images: Observations hold uint8 pixels, as networks of RL libraries want them.
        min_side: Observed pixels are repeated until no side of the images is shorter, in pixels: some networks need
            36. Images that `reset` takes keep their size.
        raw_latents: Observations have the chosen latents by the names and in the form that actions have them.
        world: A world made before, instead of one made from the options.
        options: Everything `make_world` takes: scene, split, num_scenes, data_dir, model, num_steps, likelihood,
            likelihood_scale, count_prior, ..., and the options of the scene: counts, object_size, ...

    ## Version history

    - v1: observations name chosen latents otherwise than actions do, and have categories one-hot;
      ``AIRSceneFlat-v1`` repeats the pixels of images smaller than 36.
    - v0: initial version.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 2}

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        device: torch.device | str | None = None,
        action_mode: str = "dict",
        byte_images: bool = False,
        min_side: int = 1,
        raw_latents: bool = False,
        world: World | None = None,
        **options: Any,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose None, human or rgb_array")
        self.render_mode = render_mode
        # One implementation: the single environment is the vector environment of one episode.
        self._envs = AIRSceneVectorEnv(
            1,
            device=device,
            grad_enabled=False,
            render_mode="rgb_array",
            action_mode=action_mode,
            byte_images=byte_images,
            min_side=min_side,
            raw_latents=raw_latents,
            as_numpy=True,
            world=world,
            **options,
        )
        self.action_space = self._envs.single_action_space
        self.observation_space = self._envs.single_observation_space
        self._window: Window | None = None

    @property
    def model(self) -> SceneModel:
        """The generative model."""
        return self._envs.model

    @property
    def state(self) -> SceneState:
        """Where the episode stands: tensors with a batch axis of length 1; not to be written to."""
        return self._envs.state

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, object] | None = None
    ) -> tuple[Observation, Info]:
        """Starts an episode; the class documentation has the options and what the info holds.

        Raises:
            ValueError: An option is not valid; the episode goes on as it was.
        """
        options = read_options(options, _RESET_OPTIONS)
        batched = {f"{name}s": read_numbers(name, value)[None] for name, value in options.items()}
        [seed] = to_seeds(seed, 1)
        # Gymnasium's generator, which a user may have replaced, is the only episode's.
        self._envs.rngs[0] = self.np_random
        observation, info = self._envs.reset(seed=seed, options=batched)
        if seed is not None:
            self._np_random, self._np_random_seed = self._envs.rngs[0], seed
        self._show()
        return _row(observation), _to_python(info)

    def step(self, action: object) -> tuple[Observation, float, bool, bool, Info]:
        """Adds one object, or stops.

        Args:
            action: As the action mode says.

        Raises:
            ValueError: The action is not valid; the episode goes on as it was.
            ResetNeeded: The episode has not begun or is finished.
        """
        if not self.state.active.item():
            raise ResetNeeded("the episode is finished; call reset() to start another")
        self._envs.rngs[0] = self.np_random
        observation, rewards, terminations, truncations, info = self._envs.take(
            self._envs.action_mode.read(action, None)
        )
        self._show()
        return _row(observation), float(rewards[0]), bool(terminations[0]), bool(truncations[0]), _to_python(info)

    def render(self) -> Frame | None:
        """The RGB frame of the episode for ``rgb_array``; ``human`` shows it by itself."""
        if self.render_mode is None:
            logger.warn("render() was called without a render mode; make the environment with render_mode='rgb_array'")
            return None
        if self.render_mode == "human":
            self._show()
            return None
        return self.picture()

    def picture(self) -> Frame:
        """The RGB frame of the episode, which notebooks show and `plot` draws, whatever the render mode."""
        frames = self._envs.render()
        assert frames is not None
        return frames[0]

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._envs.close()

    def __getstate__(self) -> dict[str, object]:
        # A window belongs to its process.
        return {**self.__dict__, "_window": None}

    def _repr_png_(self) -> bytes | None:
        # There is nothing to see before the first reset.
        with suppress(ResetNeeded):
            return super()._repr_png_()

    def _show(self) -> None:
        if self.render_mode == "human":
            self._window = self._window or Window()
            self._window.show(self.picture(), 1 / self.metadata["render_fps"])


def _row(observation: Mapping[str, np.ndarray]) -> Observation:
    """The observation of the only episode."""
    return {name: part[0] for name, part in observation.items()}


def _to_python(info: Info) -> Info:
    """The info of the only episode: numbers, and arrays."""
    return {
        name: _to_python(value) if isinstance(value, dict) else value[0].item() if value.ndim == 1 else value[0]
        for name, value in info.items()
    }
