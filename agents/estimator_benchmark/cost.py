"""What an estimator costs: time of a training step, and memory that its graph holds, side by side in one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from ..jobs.timing import timed
from ..training.recipes import RECIPES
from ..training.trainer import Trainer
from .frozen import narrow

_NUM_TRAIN, _REPEATS = 256, 9


@dataclass(frozen=True)
class Cost:
    """Cost of one step of training on a batch: rollout, loss, gradient and Adam.

    Attributes:
        milliseconds: Median of the repeats.
        megabytes: Saved for the backward pass, in 10^6 bytes, without the parameters; on a GPU, the most that was
            allocated above what stays.
    """

    milliseconds: float
    megabytes: float


def measure_costs(
    names: Sequence[str], device: torch.device | str = "cpu", progress: Callable[[int], object] = lambda _: None
) -> dict[str, Cost]:
    """Times estimators in turn, several times over, so that a machine that slows down slows all of them.

    Args:
        names: Registered estimators.
        device: Where to compute.
        progress: Called with 1 after every repeat.
    """
    recipe = replace(narrow(RECIPES.find("digits")), num_train=_NUM_TRAIN)
    scenes = recipe.make_scene().dataset("train", _NUM_TRAIN)
    trainers = {name: Trainer(replace(recipe, estimator=name), scenes, device) for name in names}
    megabytes = {name: _graph_megabytes(trainer) for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_REPEATS):
        for name, trainer in trainers.items():
            seconds[name].append(timed(trainer.step, 1, str(trainer.device)))
        progress(1)
    return {name: Cost(1e3 * median(seconds[name]), megabytes[name]) for name in names}


def _graph_megabytes(trainer: Trainer) -> float:
    """Size of the storages that one step saves for its backward pass; the step is also the warm-up."""
    if trainer.device.type == "cuda":
        trainer.step()
        before = torch.cuda.memory_allocated(trainer.device)
        torch.cuda.reset_peak_memory_stats(trainer.device)
        trainer.step()
        return (torch.cuda.max_memory_allocated(trainer.device) - before) / 1e6
    parameters = {parameter.untyped_storage().data_ptr() for parameter in trainer.agent.parameters()}
    # Kept, so that no storage is freed and its address used again; forgotten when the next forward pass begins.
    saved: dict[int, Tensor] = {}
    peak, backward = 0, False

    def keep(tensor: Tensor) -> Tensor:
        nonlocal peak, backward
        if backward:
            saved.clear()
            backward = False
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            saved.setdefault(address, tensor)
        return tensor

    def use(tensor: Tensor) -> Tensor:
        nonlocal peak, backward
        if not backward:
            peak, backward = max(peak, sum(one.untyped_storage().nbytes() for one in saved.values())), True
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, use):
        trainer.step()
    return peak / 1e6
