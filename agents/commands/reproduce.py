"""Makes Figure 3, 4, 5, 6 or 7 of the paper: trains what is missing, measures it, and writes a page with every seed.

    python scripts/reproduce_paper.py figure3 --data-dir D              # learning to count; hours on one core
    python scripts/reproduce_paper.py figure4 --data-dir D --workers 2  # more digits than ever seen: AIR, DAIR, DRAW
    python scripts/reproduce_paper.py figure5 --data-dir D --seeds 0    # how many labels a representation saves
    python scripts/reproduce_paper.py figure6 --workers 2               # kinds and poses of objects; needs OpenGL
    python scripts/reproduce_paper.py figure7 --workers 2               # crockery on tables, a camera; needs OpenGL
    python scripts/reproduce_paper.py figure3 --scale smoke             # seconds, to see that it works

Runs are kept in RUNS/SCALE/NAME-SEED, and figures share them. Finished ones are used, interrupted ones go on, and what
was measured is kept in RUNS/SCALE/measured (delete it to measure again): the same command continues what was stopped.
"""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from air_env.scenes import make_scene

from ..jobs.devices import pick_device
from ..jobs.schedule import train_all
from ..reproduction.experiment import Experiment
from ..reproduction.figures import FIGURES, get_figure
from ..reproduction.measurements import measure_all
from ..reproduction.page import Page
from ..reproduction.scales import SCALES

_FIGURE_HELP = f"One of {', '.join(FIGURES)}."
_SCALE_HELP = f"One of {', '.join(SCALES)}: seconds in all, minutes per run on one core, or longer."


@dataclass(frozen=True)
class Arguments:
    """Makes a figure of the paper, from training to page."""

    figure: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=_FIGURE_HELP)]
    scale: Annotated[str, tyro.conf.arg(help=_SCALE_HELP)] = "cpu"
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each is a run of every model: its images, initial weights and noise."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    runs_dir: Path = Path("runs/paper")
    """Folder of the runs, with a folder for each scale."""
    output_dir: Path = Path("docs/results")
    """Folder for FIGURE.md, FIGURE.csv and the pictures."""
    workers: int = 1
    """Trainings at a time; more than one are processes with one thread each."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one. A run is resumed on what it was begun on."""
    only_train: bool = False
    """Trains, and makes no page."""


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_flush_denormal(True)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        with patient_interrupt() as interrupted:
            paths = reproduce(arguments, interrupted)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was saved last is whole, and the same command continues")
    print("\n".join(f"wrote {path}" for path in paths))


def reproduce(arguments: Arguments, interrupted: Callable[[], bool]) -> list[Path]:
    """Trains, measures and writes; returns the paths that were written.

    Raises:
        KeyboardInterrupt: It was interrupted, and all is saved.
    """
    figure = get_figure(arguments.figure)
    experiment = Experiment(
        arguments.scale,
        arguments.seeds,
        arguments.runs_dir,
        None if arguments.data_dir is None else str(arguments.data_dir.resolve()),
        pick_device(arguments.device),
    )
    jobs = figure.jobs(experiment)
    # Data that are missing are missed by every training.
    for job in {job.recipe.scene: job for job in jobs}.values():
        make_scene(job.recipe.scene, data_dir=job.data_dir, **job.recipe.scene_options).dataset("test", 1)
    with tqdm(total=len(jobs), desc="training", unit="run", dynamic_ncols=True, bar_format=_bar(2)) as bar:

        def show_training(done: float, what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        train_all(
            jobs, experiment.directory, workers=arguments.workers, interrupted=interrupted, progress=show_training
        )
    if interrupted():
        raise KeyboardInterrupt
    if arguments.only_train:
        return [job.directory for job in jobs]
    measurements = figure.measurements(experiment)
    with tqdm(total=len(measurements), desc="measuring", dynamic_ncols=True, bar_format=_bar(0)) as bar:

        def show_measuring(done: int, what: str) -> None:
            if interrupted():
                raise KeyboardInterrupt
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        results = measure_all(measurements, experiment.directory, show_measuring)
    page = Page(arguments.output_dir, arguments.figure)
    figure.write(experiment, results, page)
    return page.write()


def _bar(digits: int) -> str:
    return f"{{desc}} {{percentage:3.0f}}%|{{bar}}| {{n:.{digits}f}}/{{total}} [{{elapsed}}<{{remaining}}{{postfix}}]"


@contextmanager
def patient_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait until all is saved; a second one does not wait.

    Yields:
        Whether one came.
    """
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        # It is ignored in background jobs, and stays so.
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield lambda: pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
