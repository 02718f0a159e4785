"""Weights on disk: safetensors, with settings and a checksum in the metadata. Nothing in them is unpickled."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .files import MISFITS, UNSEALED, sealed, unsealed, write_atomically

_SLACK = 2**22
"""Numbers in a module's tensors beside its weights: grids of pixels, tables of the prior."""


def save_weights(path: Path, state: Mapping[str, Tensor], file_format: str, **settings: object) -> None:
    """Saves tensors with settings that belong to them, and a checksum of both.

    Args:
        path: The file.
        state: Name -> tensor.
        file_format: What `opened_weights` is to ask for.
        settings: Plain values, saved as JSON.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    metadata = {"format": f"{file_format} {UNSEALED}"} | {name: json.dumps(value) for name, value in settings.items()}
    content = sealed(save(tensors, metadata))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and tensors of any safetensors file.

    Raises:
        ValueError: It is damaged.
    """
    try:
        content = unsealed(path.read_bytes())
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, OSError, *MISFITS) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}); get or train it again") from error
    return header.get("__metadata__", {}), tensors


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds."""

    metadata: dict[str, str]
    """Name -> settings as JSON."""
    tensors: dict[str, Tensor]
    """Name -> tensor."""

    def settings(self, name: str) -> Any:
        """The settings of a name."""
        return json.loads(self.metadata[name])


@contextlib.contextmanager
def opened_weights(path: Path, wanted: str, remedy: str = "train it again") -> Iterator[Weights]:
    """A file of this package's weights, to make a module from; no tensor much larger than the file's can be made.

    Args:
        path: The file.
        wanted: The ``format`` that its metadata must have.
        remedy: What to do about settings and weights that do not fit.

    Raises:
        ValueError: It is damaged, of another format, or what is done with it fails.
    """
    metadata, tensors = read_tensors(path)
    if metadata.get("format") not in (wanted, f"{wanted} {UNSEALED}"):
        raise ValueError(f"{path} is none of this package (format {metadata.get('format')!r}, wanted {wanted!r})")
    try:
        with SizeLimit(_SLACK + sum(tensor.numel() for tensor in tensors.values())):
            yield Weights(metadata, tensors)
    except MISFITS as error:
        raise ValueError(f"{path} does not fit this version of the package ({error}); {remedy}") from error


class SizeLimit(TorchDispatchMode):
    """A context in which no tensor of more than so many numbers can be made: settings may ask for any size."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def __torch_dispatch__(self, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None) -> Any:
        for size in args:
            of_sides = isinstance(size, list | tuple) and all(isinstance(side, int) for side in size)
            if of_sides and math.prod(size) > self.largest:
                raise ValueError(f"its settings ask for a tensor {list(size)}, more than its weights can fill")
        return func(*args, **(kwargs or {}))


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives a module weights.

    Raises:
        ValueError: They are of another type, or not finite.
        RuntimeError: They have other names or shapes.
    """
    for name, own in module.state_dict().items():
        found = tensors.get(name, own)
        if found.dtype != own.dtype:
            raise ValueError(f"{name} must be of type {own.dtype}, got {found.dtype}")
        if not found.isfinite().all():
            raise ValueError(f"{name} is not finite")
    module.load_state_dict(tensors)


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continues with the state of an optimiser of the same parameters.

    Raises:
        ValueError: It is of other parameters.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            # Kernels read as many numbers as the parameter has.
            if not (isinstance(moment, int | float) or moment.shape in ((), parameter.shape)):
                raise ValueError(f"{name} must be of shape {tuple(parameter.shape)}, got {tuple(moment.shape)}")


def weights_path(source: str | Path, name: str, what: str) -> Path:
    """The file of weights in a run directory, or a file as it is.

    Args:
        source: The directory or the file.
        name: Name of the file in a directory.
        what: What it holds, for the error message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(source) / name if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}; name a run directory that holds {name}, or the file")
    return path
