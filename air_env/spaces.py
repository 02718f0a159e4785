"""The spaces of the environments, and the checks of what a caller hands in."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Int
from torch import Tensor

from air_env.model import Action, Images, SceneModel

LATENT_BOUND = 50.0
"""Largest absolute value of a latent in an action.

Wide enough for the steps of a trained agent that never happen, whose latents nothing holds near the prior; narrow
enough for ``exp(log_scale)``, which overflows float32 at 88.
"""

_ROUNDING = 1e-5


def action_space(model: SceneModel) -> spaces.Dict:
    """``z_pres`` (0 stops), and the latents of the object that is added."""
    return spaces.Dict(
        {
            "z_pres": spaces.Discrete(2),
            "z_where": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (model.where_dim,), np.float32),
            "z_what": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (model.config.what_dim,), np.float32),
        }
    )


def observation_space(model: SceneModel) -> spaces.Dict:
    """The image, the canvas so far (up to 1 for every object) and the number of objects so far."""
    shape = (1, model.config.image_size, model.config.image_size)
    num_steps = model.config.num_steps
    return spaces.Dict(
        {
            "image": spaces.Box(0, 1, shape, np.float32),
            # N objects add up to N at most, but for rounding: one more keeps every canvas inside.
            "canvas": spaces.Box(0, num_steps + 1, shape, np.float32),
            "step": spaces.Discrete(num_steps + 1),
        }
    )


def to_action(values: Any, num_envs: int | None, model: SceneModel, *, check: bool = True) -> Action:
    """Reads a batched action from tensors, arrays or numbers.

    Args:
        values: A dict of ``z_pres [num_envs]``, ``z_where [num_envs, where]``, ``z_what [num_envs, what]``. The
            latents of an episode that stops or is finished are ignored, but they are checked.
        num_envs: Number of episodes; None reads one action without a batch axis into a batch of one.
        model: The model the action is for; its device and dtype become the action's.
        check: False skips the checks that read values, which on a GPU wait for it.

    Raises:
        ValueError: A part is missing or misshapen, not made of numbers, not finite or out of bounds, or a
            presence is neither 0 nor 1.
    """
    batch = () if num_envs is None else (num_envs,)
    shapes = {
        "z_pres": batch,
        "z_where": (*batch, model.where_dim),
        "z_what": (*batch, model.config.what_dim),
    }
    if not isinstance(values, Mapping) or set(values) != set(shapes):
        found = f"one with {sorted(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(f"an action is a dict of {', '.join(shapes)}; got {found}")
    z_pres = _read("action 'z_pres'", values["z_pres"], shapes["z_pres"], model)
    if check and not ((z_pres == 0) | (z_pres == 1)).all():
        raise ValueError("action 'z_pres' must be 1 (draw an object) or 0 (stop)")
    z_where, z_what = (
        to_latents(f"action {name!r}", values[name], shapes[name], model, check=check) for name in ("z_where", "z_what")
    )
    if num_envs is None:
        z_pres, z_where, z_what = z_pres[None], z_where[None], z_what[None]
    return Action(z_pres, z_where, z_what)


def to_latents(name: str, value: Any, shape: tuple[int, ...], model: SceneModel, *, check: bool = True) -> Tensor:
    """Reads latents of the given shape, in the model's device and dtype.

    Args:
        name: What an error calls them.
        value: A tensor, whose graph is kept, or an array.
        shape: What is wanted.
        model: The model the latents are for.
        check: False skips the checks that read values.

    Raises:
        ValueError: They are misshapen, not numbers, not finite or beyond `LATENT_BOUND`.
    """
    latents = _read(name, value, shape, model)
    # NaN compares false, so that one reduction answers for NaN, infinity and the bound.
    if check and not (latents.detach().abs() <= LATENT_BOUND).all():
        if not latents.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values; check the policy that made it")
        raise ValueError(
            f"{name} holds {latents.detach().abs().max().item():g}, wanted values in "
            f"[-{LATENT_BOUND:g}, {LATENT_BOUND:g}]; clip or rescale the policy's output"
        )
    return latents


def to_images(values: Any, model: SceneModel, num_images: int | None = None) -> Images:
    """Reads images into a new tensor with pixels in [0, 1], in the model's device and dtype.

    Args:
        values: ``[batch, 1, height, width]`` or ``[batch, height, width]``, a tensor or an array: uint8 from 0
            to 255, or other numbers from 0 to 1.
        model: The model that is to explain them; its image size is wanted.
        num_images: Length of the batch, if it matters.

    Raises:
        ValueError: The images have the wrong number or size, are not numbers, or hold NaN or values outside
            [0, 1].
    """
    side = model.config.image_size
    images = _numbers("images", values)
    if images.dim() == 3:
        images = images[:, None]
    if images.shape[1:] != (1, side, side) or (num_images is not None and len(images) != num_images):
        batch = "batch" if num_images is None else num_images
        raise ValueError(
            f"images have shape {_shape(values)}, wanted ({batch}, 1, {side}, {side}) or ({batch}, {side}, {side}); "
            "resize or crop them, and stack one grey image for each episode"
        )
    like = model.log_p_count
    if images.dtype == torch.uint8:
        return images.to(like.device, like.dtype) / 255
    images = images.detach().to(like.device, like.dtype, copy=True)
    if len(images):
        low, high = torch.stack(images.aminmax()).tolist()
        if math.isnan(low):
            raise ValueError("images hold NaN, wanted pixels in [0, 1]; mend or leave out these images")
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ValueError(
                f"images hold values from {low:g} to {high:g}, wanted [0, 1]; "
                "pass uint8 images, or divide by the largest value and clip"
            )
    return images.clamp_(0, 1)


def to_mask(value: Any, num_envs: int) -> Bool[np.ndarray, "num_envs"]:
    """Reads which episodes are to restart; None means all.

    Raises:
        ValueError: It is not one boolean for each episode.
    """
    if value is None:
        return np.ones(num_envs, bool)
    mask = _numbers("reset_mask", value).cpu().numpy()
    if mask.dtype != bool or mask.shape != (num_envs,):
        raise ValueError(
            f"reset_mask has shape {mask.shape} and dtype {mask.dtype}, wanted ({num_envs},) and bool; "
            "the terminations of a step fit"
        )
    return mask


def to_indices(value: Any, num_envs: int, num_scenes: int) -> Int[Tensor, "num_envs"]:
    """Reads which scene of the pool each episode is to explain.

    Raises:
        ValueError: It is not one index in [0, num_scenes) for each episode.
    """
    indices = _numbers("scenes", value).cpu()
    if indices.shape != (num_envs,):
        raise ValueError(f"scenes have shape {tuple(indices.shape)}, wanted ({num_envs},), one index for each episode")
    if not ((indices >= 0) & (indices < num_scenes) & (indices == indices.long())).all():
        raise ValueError(f"scenes must be integers from 0 to {num_scenes - 1}, got {indices.tolist()}")
    return indices.long()


def to_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Reads one seed for each episode: ``seed + i`` as Gymnasium's vector environments have it, or a list.

    Raises:
        ValueError: A list has the wrong length, or a seed is not a natural number.
    """
    seeds: list[int | None]
    try:
        if seed is None:
            seeds = [None] * num_envs
        elif isinstance(seed, Sequence | np.ndarray):
            seeds = [None if s is None else operator.index(s) for s in seed]
        else:
            seeds = [operator.index(seed) + i for i in range(num_envs)]
    except TypeError as error:
        raise ValueError(f"a seed must be an integer of at least 0 or None, got {seed!r}") from error
    if len(seeds) != num_envs:
        raise ValueError(f"got {len(seeds)} seeds for {num_envs} episodes; give one for each, or a single integer")
    if any(s is not None and s < 0 for s in seeds):
        raise ValueError(f"a seed must be an integer of at least 0 or None, got {seed!r}")
    return seeds


def _read(name: str, value: Any, shape: tuple[int, ...], model: SceneModel) -> Tensor:
    """A tensor of the given shape, in the model's device and dtype."""
    tensor = _numbers(name, value)
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, wanted {shape}")
    return tensor.to(model.log_p_count.device, model.log_p_count.dtype)


def _numbers(name: str, value: Any) -> Tensor:
    """A tensor as it is, anything else as a new tensor (uint8, bool, float32 or float64)."""
    if isinstance(value, Tensor):
        if value.is_complex():
            raise ValueError(f"{name} holds complex numbers, wanted real ones")
        return value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {array.dtype}, wanted an array of real numbers")
    kept = array.dtype in (np.uint8, np.bool_, np.float32, np.float64)
    # A copy: torch warns of arrays that cannot be written to, and refuses negative strides. What float64
    # cannot hold becomes infinite, which the caller refuses.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(array, dtype=array.dtype if kept else np.float64, order="C"))


def _shape(values: Any) -> tuple[int, ...]:
    return tuple(values.shape) if hasattr(values, "shape") else np.shape(values)
