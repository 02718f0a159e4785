"""How fast training, explanation, the environments and the 3D renderers are, and how far from what the machine can do.

    air-env benchmark-speed
    air-env benchmark-speed --threads 1 --only training --seconds 5

Beside each speed stands the floating-point rate it reaches: the operations of one call (matrix products and
convolutions, forward and backward, as `torch.utils.flop_counter` counts them) over its time, as a share of the rate of
a 2048x2048 float32 matrix product. That product is timed before, between and after the repeats of each measurement, on
the same threads. `median` is over the repeats, `best` the fastest; where they are far apart, the machine was busy with
something else.
"""

import csv
import io
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import terminal

if TYPE_CHECKING:
    from ..jobs.timing import Measurement


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
    from ..training.files import write_text_atomically

    about, rows = benchmark(arguments)
    values = [asdict(row) for row in rows]
    text = json.dumps(about | {"measurements": values}, indent=2)
    print(text if arguments.json else table(about, rows))
    if arguments.output_dir is not None:
        sheet = io.StringIO(newline="")
        writer = csv.DictWriter(sheet, list(values[0]))
        writer.writeheader()
        writer.writerows(values)
        write_text_atomically(arguments.output_dir / "speed.json", text + "\n")
        write_text_atomically(arguments.output_dir / "speed.csv", sheet.getvalue())
        print(f"\nwrote speed.json and speed.csv to {arguments.output_dir}", file=sys.stderr)


def benchmark(arguments: Arguments) -> tuple[dict[str, object], list["Measurement"]]:
    """The machine, and the measurements for every number of threads."""
    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be positive, got {arguments.seconds}")
    if any(threads < 1 for threads in arguments.threads):
        raise ValueError(f"--threads must be at least 1, got {arguments.threads}")

    import torch

    from ..jobs.devices import pick_device
    from ..jobs.timing import measure
    from .workloads import BENCHMARKS, Setting

    device = pick_device(arguments.device)
    setting, rows, before = Setting.on(device), [], torch.get_num_threads()
    try:
        for threads in arguments.threads or default_threads(device):
            torch.set_num_threads(threads)
            workloads = [w for function in BENCHMARKS for w in function(setting) if arguments.only in w.name]
            if not workloads:
                raise ValueError(
                    f"no benchmark's name contains {arguments.only!r}; try training, explain, environment, pyrender"
                )
            for workload in terminal.progress_bar(iterable=workloads, desc=f"threads: {threads}", leave=False):
                rows.append(measure(workload, threads, device, arguments.seconds))
    finally:
        torch.set_num_threads(before)
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    about: dict[str, object] = {
        "device": gpu or f"{device}, {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average": load,
    }
    return about | {"torch": str(torch.__version__)}, rows


def default_threads(device: str) -> list[int]:
    """1 and all cores; all cores where a GPU does the work."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, cores}) if device.startswith("cpu") else [cores]


def table(about: Mapping[str, object], rows: Sequence["Measurement"]) -> str:
    """The measurements as lines of text."""
    lines = [
        f"{about['device']}, {about['cores']} cores, torch {about['torch']}, load average {about['load_average']}",
        "",
        f"{'':47s}{'':>12s}{'':>12s}{'':10s}{'GFLOP/s':>9s}{'matmul':>9s}{'share of matmul':>17s}",
        f"{'threads':9s}{'benchmark':38s}{'median':>12s}{'best':>12s}{'':10s}{'median':>9s}{'median':>9s}"
        f"{'median':>9s}{'best':>8s}",
    ]
    for row in rows:
        digits = 2 if row.unit == "ms" else 0
        lines.append(
            f"{row.threads:<9d}{row.name:38s}{row.median:12,.{digits}f}{row.best:12,.{digits}f} {row.unit:9s}"
            f"{row.rate:9.1f}{row.matmul_rate:9.1f}{row.share:9.2f}{row.share_best:8.2f}"
        )
    return "\n".join([*lines, "", *ratios(rows)])


def ratios(rows: Sequence["Measurement"]) -> list[str]:
    """How many times as fast one benchmark is as another, where both were measured."""
    from .workloads import RATIOS

    medians = {(row.threads, row.name): row.median for row in rows}
    return [
        f"threads {threads}: {fast} take {median / medians[threads, slow]:.1f} times as many steps as {slow}"
        for (threads, name), median in medians.items()
        for fast, slow in RATIOS
        if name == fast and (threads, slow) in medians
    ]
