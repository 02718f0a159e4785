"""What keeps its precision where a caller's networks compute in half of it (`torch.autocast`).

Autocast takes matrix products to bfloat16, whose neighbours lie 1/128 of their size apart. Inference networks live with
that. Pixels, whose squared errors are summed and divided by a small variance, do not, and neither do latents and
log-probabilities.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor, nn

_HALF = (torch.bfloat16, torch.float16)

P = ParamSpec("P")


def exact(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A function of tensors as it is without autocast; tensors of half precision are handed to it as float32."""

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(arg.device.type for arg in args if isinstance(arg, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        whole = (arg.float() if isinstance(arg, Tensor) and arg.dtype in _HALF else arg for arg in args)
        with torch.autocast(device, enabled=False):
            return function(*whole, **kwargs)  # pyright: ignore

    return computed


class Head(nn.Linear):
    """A linear layer at the end of a network: what it says has the precision of its weights, also under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output."""
        return super().forward(input).to(self.weight.dtype)
