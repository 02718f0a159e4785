"""The observation space of the environments, and the checks of what a caller hands in."""

import math
import operator
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from air_env.model import Images, SceneModel
from air_env.priors import CategoricalPrior

LATENT_BOUND = 50.0
"""Largest absolute value of a latent in an action.

Wide enough for the steps of a trained agent that never happen, whose latents nothing holds near the prior; narrow
enough for ``exp(log_scale)``, which overflows float32 at 88.
"""

_ROUNDING = 1e-5


def observation_space(model: SceneModel, *, byte_images: bool = False) -> spaces.Dict:
    """The image, the canvas so far (up to 1 for every object) and the number of objects so far.

    Where there is a camera, also what the `Layout` holds: its latent and the objects so far, 0 for those to come.

    Args:
        model: The model of the scenes.
        byte_images: Pixels are uint8 from 0 to 255, as networks of RL libraries want them; `to_bytes`.
    """
    shape, num_steps = model.image_shape, model.config.num_steps
    if byte_images:
        image = canvas = spaces.Box(0, 255, shape, np.uint8)
    else:
        image = spaces.Box(0, 1, shape, np.float32)
        # N objects add up to N at most, but for rounding: one more keeps every canvas inside.
        canvas = spaces.Box(0, num_steps + 1, shape, np.float32)
    layout: dict[str, spaces.Space[Any]] = {}
    if model.camera_dim:
        assert isinstance(model.prior_what, CategoricalPrior)
        layout = {
            "z_camera": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (model.camera_dim,), np.float32),
            "z_where": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (num_steps, model.where_dim), np.float32),
            "z_what": spaces.MultiDiscrete([model.prior_what.num_categories] * num_steps),
        }
    return spaces.Dict({"image": image, "canvas": canvas, "step": spaces.Discrete(num_steps + 1), **layout})


def to_bytes(pixels: Images) -> UInt8[Tensor, "batch channel height width"]:
    """Pixels as uint8; beyond [0, 1] they are clipped."""
    return (pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def to_images(values: Any, model: SceneModel, num_images: int | None = None) -> Images:
    """Reads images into a new tensor with pixels in [0, 1], in the model's device and dtype.

    Args:
        values: ``[batch, channel, height, width]``, or ``[batch, height, width]`` for a model of grey images, a
            tensor or an array: uint8 from 0 to 255, or other numbers from 0 to 1.
        model: The model that is to explain them; its image size is wanted.
        num_images: Length of the batch, if it matters.

    Raises:
        ValueError: The images have the wrong number or size, are not numbers, or hold NaN or values outside
            [0, 1].
    """
    channels, height, width = shape = model.image_shape
    images = read_numbers("images", values)
    if images.dim() == 3 and channels == 1:
        images = images[:, None]
    if images.shape[1:] != shape or (num_images is not None and len(images) != num_images):
        batch = "batch" if num_images is None else num_images
        kind, also = ("grey", f" or ({batch}, {height}, {width})") if channels == 1 else ("RGB", "")
        raise ValueError(
            f"images have shape {_shape(values)}, wanted ({batch}, {channels}, {height}, {width}){also}; "
            f"resize or crop them, and stack one {kind} image for each episode"
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


def where_rows(mask: Bool[Tensor, "batch"], new: Any, old: Any) -> Any:
    """Rows of ``new`` where the mask holds, of ``old`` elsewhere: of tensors, or of dataclasses of such or None."""
    if new is None:
        return None
    if not isinstance(new, Tensor):
        names = [field.name for field in fields(new)]
        return type(new)(**{name: where_rows(mask, getattr(new, name), getattr(old, name)) for name in names})
    return torch.where(mask.view(-1, *[1] * (new.dim() - 1)), new, old)


def to_mask(value: Any, num_envs: int) -> Bool[np.ndarray, "num_envs"]:
    """Reads which episodes are to restart; None means all.

    Raises:
        ValueError: It is not one boolean for each episode.
    """
    if value is None:
        return np.ones(num_envs, bool)
    mask = read_numbers("reset_mask", value).cpu().numpy()
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
    indices = read_numbers("scenes", value).cpu()
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


def read_shaped(name: str, value: Any, shape: tuple[int, ...], model: SceneModel) -> Tensor:
    """Reads numbers of the given shape, in the model's device and dtype; a tensor keeps its graph.

    Raises:
        ValueError: They are not numbers, or misshapen.
    """
    tensor = read_numbers(name, value)
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, wanted {shape}")
    return tensor.to(model.log_p_count.device, model.log_p_count.dtype)


def within(name: str, values: Tensor, bound: float, check: bool) -> Tensor:
    """Values that are finite and in [-bound, bound], if that is to be checked.

    Raises:
        ValueError: They are not.
    """
    # NaN compares false, so that one reduction answers for NaN, infinity and the bound.
    if check and not (values.detach().abs() <= bound).all():
        if not values.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values; check the policy that made it")
        raise ValueError(
            f"{name} holds {values.detach().abs().max().item():g}, wanted values in [-{bound:g}, {bound:g}]; "
            "clip or rescale the policy's output"
        )
    return values


def read_numbers(name: str, value: Any) -> Tensor:
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
