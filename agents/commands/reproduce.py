"""Makes Figure 3, 4, 5, 6 or 7 of the paper: trains what is missing, measures it, and writes a page with every seed.

    air-env reproduce figure3 --data-dir D              # learning to count; hours on one core
    air-env reproduce figure4 --data-dir D --workers 2  # more digits than in training: AIR, DAIR, DRAW
    air-env reproduce figure5 --data-dir D --seeds 0    # data efficiency of representations
    air-env reproduce figure5_search --data-dir D --seeds 0  # settings of the models it compares
    air-env reproduce figure6 --workers 2               # kinds and poses of objects; needs OpenGL
    air-env reproduce figure7 --workers 2               # crockery on tables, a camera; needs OpenGL
    air-env reproduce figure3 --scale smoke             # one to five minutes, to see that it works

Runs are kept in RUNS/SCALE/NAME-SEED, and studies share them. Finished ones are used, interrupted ones continue, and
what was measured is kept in RUNS/SCALE/measured (delete it to measure again): the same command continues what was
stopped.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from . import shell, terminal

if TYPE_CHECKING:
    import pandas as pd

    from ..jobs.job import Job
    from ..reproduction.experiment import Experiment
    from ..reproduction.study import Study

RESULTS = Path("docs/results")
"""Folder of the pages in a checkout."""


@dataclass(frozen=True)
class Arguments:
    """Makes a figure of the paper: trains what is missing, measures, writes the page."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """figure3, figure4, figure5, figure5_search, figure6, figure7, or a study of a plug-in."""
    scale: str = "cpu"
    """smoke, cpu or full: one to five minutes in all, minutes per run on one core, or longer."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each is a run of every model: its images, initial weights and noise."""
    runs_dir: Path = Path("runs/paper")
    """Folder of the runs, with a folder for each scale."""
    output_dir: Path | None = None
    """Folder for STUDY.md, STUDY.csv and the pictures; default: docs/results, and RUNS/smoke/pages for a smoke test."""
    workers: int = 1
    """Trainings at a time; more than one are processes with one thread each."""
    only_train: bool = False
    """Trains only."""
    machine: terminal.OnMachine = terminal.MACHINE

    @property
    def folder(self) -> Path:
        """Folder of the page.

        Raises:
            ValueError: A smoke test would overwrite results.
        """
        if self.scale != "smoke":
            return self.output_dir or RESULTS
        folder = self.output_dir or self.runs_dir / self.scale / "pages"
        if folder.resolve() == RESULTS.resolve():
            raise ValueError(f"a smoke test must not overwrite {RESULTS}; choose another --output-dir")
        return folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return terminal.run("reproduce", Arguments, work, __doc__, argv)


def work(arguments: Arguments) -> None:
    """Trains, measures and writes; prints the paths that were written."""
    import torch

    torch.set_flush_denormal(True)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    with shell.continued_by(shell.SAME_COMMAND), shell.patient() as interrupted:
        paths = reproduce(arguments, interrupted)
    print("\n".join(f"wrote {path}" for path in paths))


def reproduce(arguments: Arguments, interrupted: Callable[[], bool]) -> list[Path]:
    """Trains, measures and writes; returns the paths that were written.

    Raises:
        KeyboardInterrupt: It was interrupted, and all is saved.
    """
    from ..jobs.devices import pick_device
    from ..pages import Page
    from ..reproduction.experiment import Experiment
    from ..reproduction.studies import STUDIES
    from ..reproduction.study import scalars

    study, folder = STUDIES.find(arguments.study), arguments.folder
    for module, extra in study.needs.items():
        terminal.require(extra, module)
    data_dir = arguments.machine.data_dir
    experiment = Experiment(
        arguments.scale,
        arguments.seeds,
        arguments.runs_dir,
        None if data_dir is None else str(data_dir.resolve()),
        pick_device(arguments.machine.device),
    )
    jobs = study.jobs(experiment)
    _train(jobs, experiment, arguments.workers, interrupted)
    if arguments.only_train:
        return [job.directory for job in jobs]
    table = _measure(study, experiment, interrupted)
    page = Page(folder, arguments.study)
    page.add(f"# {study.title}")
    study.write(page, table, experiment)
    page.add_table(scalars(table))
    return page.write()


def _train(jobs: "list[Job]", experiment: "Experiment", workers: int, interrupted: Callable[[], bool]) -> None:
    from air_env.scenes import make_scene

    from ..jobs.schedule import train_all

    # Data that are missing are missed by every training: better now than after the first hour.
    for job in {job.recipe.scene: job for job in jobs}.values():
        make_scene(job.recipe.scene, data_dir=job.data_dir, **job.recipe.scene_options).dataset("test", 1)
    with terminal.progress_bar(len(jobs), "run", desc="training", bar_format=_bar(2)) as bar:

        def show(done: float, what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        train_all(jobs, experiment.directory, workers=workers, interrupted=interrupted, progress=show)
    if interrupted():
        raise KeyboardInterrupt


def _measure(study: "Study", experiment: "Experiment", interrupted: Callable[[], bool]) -> "pd.DataFrame":
    with terminal.progress_bar(len(study.cases(experiment)), desc="measuring", bar_format=_bar(0)) as bar:

        def show(done: int, what: str) -> None:
            if interrupted():
                raise KeyboardInterrupt
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        return study.measure(experiment, show)


def _bar(digits: int) -> str:
    return f"{{desc}} {{percentage:3.0f}}%|{{bar}}| {{n:.{digits}f}}/{{total}} [{{elapsed}}<{{remaining}}{{postfix}}]"
