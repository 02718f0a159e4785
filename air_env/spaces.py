"""The observation space of the environments, and the images that they take."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, UInt8
from torch import Tensor

from air_env.explanation import Explanation, Images
from air_env.model import SceneModel, SceneState
from air_env.reading import read_numbers, read_whole

_ROUNDING = 1e-5

T = TypeVar("T")


def without_empty(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts but for those of length zero: what there is not is no key of an observation, action or info."""
    return {name: part for name, part in parts.items() if part.shape[-1] > 0}


class Observer:
    """What is seen of an episode: the image, the canvas (up to 1 for every object) and the number of objects so far.

    Where the scene has a latent, also all latents chosen so far, 0 for those to come: of objects that hide each other
    the canvas does not tell all that there is. Categories are one-hot.

    Args:
        model: The model of the scenes.
        byte_images: Pixels are uint8 from 0 to 255, as networks of RL libraries want them; `to_bytes`.
        min_side: Pixels are repeated by the smallest whole number that makes no side shorter than this, in pixels.
        raw_latents: The chosen latents look as in an action and have the same names, which tools that keep both in one
            place confuse; categories are numbers.

    Attributes:
        space: The space of one episode's observations.

    Raises:
        ValueError: ``min_side`` is less than 1.
    """

    def __init__(
        self, model: SceneModel, *, byte_images: bool = False, min_side: int = 1, raw_latents: bool = False
    ) -> None:
        min_side = read_whole("min_side", min_side, 1)
        (channels, *sides), num_steps = model.image_shape, model.config.num_steps
        self._model, self._byte_images, self._raw_latents = model, byte_images, raw_latents
        self._repeats = math.ceil(min_side / min(sides))
        shape = (channels, *(side * self._repeats for side in sides))
        if byte_images:
            image = canvas = spaces.Box(0, 255, shape, np.uint8)
        else:
            image = spaces.Box(0, 1, shape, np.float32)
            # N objects, and a background, add up to as many at most, but for rounding: one more keeps all inside.
            canvas = spaces.Box(0, num_steps + 1 + (model.background is not None), shape, np.float32)
        what = model.prior_what.space if raw_latents else model.prior_what.feature_space
        latents = self._named(model.prior_scene.space(), model.prior_where.space(num_steps), what(num_steps))
        self.space = spaces.Dict({"image": image, "canvas": canvas, "step": spaces.Discrete(num_steps + 1), **latents})

    def __call__(self, state: SceneState) -> dict[str, Tensor]:
        """The observations of a batch of episodes."""
        z, what = state.z, state.z.z_what
        if not self._raw_latents:
            what = self._model.prior_what.features(what) * z.z_pres[..., None]
        latents = self._named(z.z_scene, z.z_where, what)
        return {"image": self._seen(state.images), "canvas": self._seen(state.canvas), "step": state.step, **latents}

    def _named(self, scene: T, where: T, what: T) -> dict[str, T]:
        prefix = "" if self._raw_latents else "chosen_"
        parts = {f"{prefix}z_scene": scene, f"{prefix}z_where": where, f"{prefix}z_what": what}
        return parts if self._model.scene_dim else {}

    def _seen(self, pixels: Images) -> Tensor:
        pixels = to_bytes(pixels) if self._byte_images else pixels
        for axis in (-2, -1) if self._repeats > 1 else ():
            pixels = pixels.repeat_interleave(self._repeats, axis)
        return pixels


def to_bytes(pixels: Images) -> UInt8[Tensor, "batch channel height width"]:
    """Pixels as uint8; beyond [0, 1] they are clipped."""
    return (pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def to_images(values: object, model: SceneModel, num_images: int | None = None) -> Images:
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
    given = images = read_numbers("images", values)
    if images.dim() == 3 and channels == 1:
        images = images[:, None]
    if images.shape[1:] != shape or (num_images is not None and len(images) != num_images):
        batch = "batch" if num_images is None else num_images
        kind, also = ("grey", f" or ({batch}, {height}, {width})") if channels == 1 else ("RGB", "")
        raise ValueError(
            f"images have shape {tuple(given.shape)}, wanted ({batch}, {channels}, {height}, {width}){also}; "
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


def to_plans(z: object, model: SceneModel, num_images: int, *, check: bool = True) -> Explanation:
    """Reads plans, N objects each that are all present: for each image one, or several, which follow each other.

    Args:
        z: An `Explanation`, whose ``z_pres`` does not matter.
        model: The model that is to draw them.
        num_images: Number of images.
        check: False skips the checks of values, which on a GPU wait for it.

    Raises:
        ValueError: It is no explanation, or its latents are not valid.
    """
    if not isinstance(z, Explanation):
        raise ValueError(f"a plan is an Explanation of {model.config.num_steps} objects for each image, got {z!r}")
    num_plans = num_images * max(1, math.prod(read_numbers("z_where", z.z_where).shape[:1]) // num_images)
    plans = (num_plans, model.config.num_steps)
    latents = {
        name: prior.read(name, getattr(z, name), plans[:1] if name == "z_scene" else plans, check=check)
        for name, prior in model.priors.items()
    }
    return Explanation(latents["z_where"].new_ones(plans), **latents)


def to_numpy(values: Any) -> Any:
    """New arrays of tensors, and of those in dicts; arrays as they are."""
    if isinstance(values, dict):
        return {name: to_numpy(value) for name, value in values.items()}
    return values.numpy(force=True).copy() if isinstance(values, Tensor) else values


def where_rows(mask: Bool[Tensor, "batch"], new: T, old: T) -> T:
    """Rows of ``new`` where the mask holds, of ``old`` elsewhere: of tensors, or of dataclasses of such."""
    return map_tensors(lambda new, old: torch.where(mask.view(-1, *[1] * (new.dim() - 1)), new, old), new, old)


def map_tensors(function: Callable[..., Tensor], first: T, *others: T) -> T:
    """Applies a function to tensors, or to each of the tensors that dataclasses hold."""
    if isinstance(first, Tensor):
        return function(first, *others)  # pyright: ignore
    names = [field.name for field in fields(first)]  # pyright: ignore
    parts = {name: [getattr(whole, name) for whole in (first, *others)] for name in names}
    return type(first)(**{name: map_tensors(function, *part) for name, part in parts.items()})
