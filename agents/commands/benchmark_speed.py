"""How fast training, explanation, the environments and the 3D renderers are, and how far from what the machine can do.

    air-env benchmark-speed
    air-env benchmark-speed --threads 1 --only training --seconds 5

Beside each speed stands the floating-point rate it reaches in GFLOP/s: the operations of one call (matrix products and
convolutions, forward and backward, as `torch.utils.flop_counter` counts them) over its time, and its share of the rate
of a 2048x2048 float32 matrix product. That product is timed before, between and after the repeats of each measurement,
on the same threads. `median` is over the repeats, `best` the fastest; where they are far apart, the machine was busy
with something else.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import terminal

if TYPE_CHECKING:
    import pandas as pd

    from ..jobs.timing import Measurement

_SHOWN = ["median", "best", "unit", "rate", "matmul_rate", "share", "share_best"]


@dataclass(frozen=True)
class Arguments:
    """Measures the speed of training, explanation, the environments and the renderers of 3D scenes."""

    threads: tuple[int, ...] = ()
    """Numbers of CPU threads; default: 1 and all cores."""
    device: terminal.Device = "auto"
    seconds: float = 2.0
    """Time spent on each measurement, not counting the matrix products and the warm-up."""
    only: str = ""
    """Leaves out benchmarks whose name does not contain this."""
    json: bool = False
    """Prints one JSON object instead of the table."""
    output_dir: Path | None = None
    """Folder to write speed.json and speed.csv to; default: writes nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env benchmark-speed`; returns the exit status."""
    return terminal.run("benchmark-speed", Arguments, report, __doc__, argv)


def report(arguments: Arguments) -> None:
    """Measures, prints, and writes where that is asked for."""
    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be positive, got {arguments.seconds}")
    terminal.at_least(1, threads=min(arguments.threads, default=None))

    import pandas as pd
    import torch

    from ..jobs.devices import pick_device
    from ..training.files import write_text_atomically

    device = pick_device(arguments.device)
    rows = pd.DataFrame(list(measurements(arguments, device)))
    about = {
        "device": torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"{device}, {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": str(torch.__version__),
    }
    text = json.dumps(about | {"measurements": rows.to_dict("records")}, indent=2)
    heading = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in about.items())
    print(text if arguments.json else f"{heading}\n\n{table(rows)}")
    if arguments.output_dir is not None:
        write_text_atomically(arguments.output_dir / "speed.json", text + "\n")
        write_text_atomically(arguments.output_dir / "speed.csv", rows.to_csv(index=False))
        print(f"\nwrote speed.json and speed.csv to {arguments.output_dir}", file=sys.stderr)


def measurements(arguments: Arguments, device: str) -> "Iterator[Measurement]":
    """Measures every benchmark, for every number of threads."""
    import torch

    from ..jobs.timing import measure
    from .workloads import BENCHMARKS, Setting

    setting, before = Setting.on(device), torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        for threads in arguments.threads or sorted({1 if device.startswith("cpu") else cores, cores}):
            torch.set_num_threads(threads)
            workloads = [w for function in BENCHMARKS for w in function(setting) if arguments.only in w.name]
            if not workloads:
                raise ValueError(
                    f"no benchmark's name contains {arguments.only!r}; try training, explain, environment, pyrender"
                )
            for workload in terminal.progress_bar(iterable=workloads, desc=f"threads: {threads}", leave=False):
                yield measure(workload, threads, device, arguments.seconds)
    finally:
        torch.set_num_threads(before)


def table(rows: "pd.DataFrame") -> str:
    """The measurements as lines of text, and how many times as fast one benchmark is as another."""
    from .workloads import RATIOS

    shown = rows.set_index(["threads", "name"])[_SHOWN]
    lines = [shown.to_string(float_format=lambda value: f"{value:,.{0 if value >= 100 else 2}f}"), ""]
    medians = rows.pivot(index="name", columns="threads", values="median")
    for fast, slow in RATIOS:
        if fast in medians.index and slow in medians.index:
            times = ", ".join(f"{ratio:.1f}" for ratio in medians.loc[fast] / medians.loc[slow])
            lines.append(f"{fast} take {times} times as many steps as {slow}")
    return "\n".join(lines)
