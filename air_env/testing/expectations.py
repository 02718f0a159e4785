"""What the checks have in common: how a broken promise is found and told."""

import copy
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def expect(promise: bool, otherwise: str) -> None:
    """Raises an ``AssertionError`` that says what is otherwise."""
    # Not an assert statement, which `python -O` leaves out.
    if not promise:
        raise AssertionError(otherwise)


def same(first: object, second: Any, tolerance: float = 0.0) -> bool:
    """Whether numbers, arrays or containers of them are equal, up to a share of the larger numbers."""
    if is_dataclass(first):
        return type(first) is type(second) and same(vars(first), vars(second), tolerance)
    if isinstance(first, dict | tuple | list):
        items = first.items() if isinstance(first, dict) else enumerate(first)
        return len(first) == len(second) and all(same(value, second[key], tolerance) for key, value in items)
    if isinstance(first, str):
        return first == second
    one, two = (np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in (first, second))
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if tolerance == 0 or one.dtype.kind != "f":
        return np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    return np.allclose(one, two, rtol=tolerance, atol=tolerance, equal_nan=True)


def in_precision(module: Any, dtype: torch.dtype) -> Any:
    """A copy of a module, in float32 or float64."""
    try:
        return copy.deepcopy(module).to(dtype)
    except Exception as error:
        raise AssertionError(f"a {type(module).__name__} cannot be copied: {error}") from error
