"""Timing, and how far from what the machine can do.

Beside each speed stands the floating-point rate it reaches: the operations of one call (matrix products and
convolutions, forward and backward, as `torch.utils.flop_counter` counts them) over its time, as a share of
the rate of a 2048x2048 float32 matrix product. That product is timed before, between and after the repeats,
on the same threads, so that a machine that is busy or slows down shows in both.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

_MATMUL_SIDE = 2048
_REPEATS = 5


@dataclass(frozen=True)
class Workload:
    """Something to be timed."""

    name: str
    """What it is, with its batch size."""
    unit: str
    """``items/s``, or ``ms`` for the time of one call."""
    items: int
    """Items that one call deals with."""
    call: Callable[[], object]
    """Does it once."""
    counted: bool = True
    """Whether its operations are counted. A counter slows down compiled code for good, and sees nothing of others."""


@dataclass(frozen=True)
class Measurement:
    """One row of the table; rates are in GFLOP/s."""

    threads: int
    """CPU threads."""
    name: str
    """Name of the workload."""
    unit: str
    """Unit of the next two: ``.../s``, or ``ms`` for the time of one call."""
    median: float
    """Over the repeats."""
    best: float
    """The same of the fastest repeat."""
    gflop_per_call: float
    """Operations counted in one call, in billions."""
    rate: float
    """Floating-point rate of the median repeat."""
    matmul_rate: float
    """Median rate of the matrix products around the repeats."""
    matmul_rate_best: float
    """Rate of the fastest of them."""
    share: float
    """``rate / matmul_rate``."""
    share_best: float
    """The same of the fastest repeat and the fastest product."""


def measure(workload: Workload, threads: int, device: str, seconds: float) -> Measurement:
    """Times a workload between matrix products."""
    workload.call()
    with FlopCounterMode(display=False) if workload.counted else nullcontext() as counter:
        workload.call()
    gflop = counter.get_total_flops() / 1e9 if counter is not None else 0.0
    once = timed(workload.call, 1, device)
    num_calls = max(1, round(seconds / _REPEATS / once))
    left, right = torch.randn(2, _MATMUL_SIDE, _MATMUL_SIDE, device=device)
    matmul_gflop = 2 * _MATMUL_SIDE**3 / 1e9
    # A GPU's product takes microseconds: as many as fill a repeat's time.
    product: Callable[[], object] = lambda: left @ right  # noqa: E731
    product()
    num_products = max(1, round(min(seconds / _REPEATS, 0.1) / timed(product, 1, device)))
    products, calls = [timed(product, num_products, device)], []
    for _ in range(_REPEATS):
        calls.append(timed(workload.call, num_calls, device))
        products.append(timed(product, num_products, device))
    typical, best = median(calls), min(calls)
    matmul_rate, matmul_rate_best = matmul_gflop / median(products), matmul_gflop / min(products)
    speeds = [1e3 * call if workload.unit == "ms" else workload.items / call for call in (typical, best)]
    return Measurement(
        threads=threads,
        name=workload.name,
        unit=workload.unit,
        median=speeds[0],
        best=speeds[1],
        gflop_per_call=gflop,
        rate=gflop / typical,
        matmul_rate=matmul_rate,
        matmul_rate_best=matmul_rate_best,
        share=gflop / typical / matmul_rate,
        share_best=gflop / best / matmul_rate_best,
    )


def timed(call: Callable[[], object], num_calls: int, device: str) -> float:
    """Seconds that a call takes, averaged over a few in a row."""
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(num_calls):
        call()
    synchronise(device)
    return (time.perf_counter() - begun) / num_calls


def synchronise(device: str) -> None:
    """Waits for what a GPU still has to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
