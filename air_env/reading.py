"""Reading what a caller hands in: numbers, masks, indices and seeds, with errors that say what is wrong."""

import operator
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

LATENT_BOUND = 50.0
"""Largest absolute value of a latent in an action.

Wide enough for the steps of a trained agent that never happen, whose latents nothing holds near the prior; narrow
enough for ``exp(log_scale)``, which overflows float32 at 88.
"""


def read_options(options: object, names: Sequence[str]) -> dict[str, object]:
    """A copy of reset options; None means none.

    Raises:
        ValueError: They are no mapping, or one is none of the names.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"reset options must be a dict with some of {', '.join(names)}; got {options!r}")
    options = dict(options or {})
    if unknown := options.keys() - set(names):
        raise ValueError(f"reset options {sorted(map(str, unknown))} are unknown; choose from {', '.join(names)}")
    return options


def read_whole(name: str, value: object, least: int = 0, most: int | None = None) -> int:
    """A whole number of a range, of Python's, numpy's or torch's types.

    Raises:
        ValueError: It is none, or out of the range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # pyright: ignore
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        wanted = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        raise ValueError(f"{name} must be a whole number {wanted}, got {value!r}")
    return number


def keep_whole(settings: object, least: int, *names: str, most: int | None = None) -> None:
    """Reads settings of a frozen dataclass that are whole numbers of a range, and keeps them as int (`read_whole`)."""
    for name in names:
        object.__setattr__(settings, name, read_whole(name, getattr(settings, name), least, most))


def is_between(value: object, low: float, high: float) -> bool:
    """Whether it is a real number between two others, which it is not itself."""
    return isinstance(value, Real) and low < float(value) < high


def read_numbers(name: str, value: object) -> Tensor:
    """A tensor as it is, anything else as a new tensor (uint8, bool, float32 or float64).

    Raises:
        ValueError: They are not real numbers, or a tensor does not hold one for each of its places.
    """
    if isinstance(value, Tensor):
        kinds = {"sparse": value.layout != torch.strided, "meta": value.is_meta, "quantized": value.is_quantized}
        if found := [kind for kind, is_so in {"nested": value.is_nested, **kinds}.items() if is_so]:
            raise ValueError(f"{name} is a {found[0]} tensor, wanted a dense one, such as torch.zeros makes")
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


def read_shaped(name: str, value: object, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Reads numbers of the given shape, in the device and dtype of another tensor; a tensor keeps its graph.

    Raises:
        ValueError: They are not numbers, or misshapen.
    """
    tensor = read_numbers(name, value)
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, wanted {shape}")
    return tensor.to(like.device, like.dtype)


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


def to_mask(value: object, num_envs: int) -> Bool[np.ndarray, "num_envs"]:
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


def to_indices(value: object, num_envs: int, num_scenes: int) -> Int[Tensor, "num_envs"]:
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
