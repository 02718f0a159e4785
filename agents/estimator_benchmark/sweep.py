"""A sweep: every estimator with every seed, each cell a run of its own.

    OUTPUT/sweep.json             what all cells share, and which there are (`agents/estimator_benchmark/record.py`)
    OUTPUT/ESTIMATOR-SEED/        the cells (`agents/estimator_benchmark/cell.py`)
    OUTPUT/jobs/                  what the jobs that train them print

Finished cells are skipped and half-finished ones resumed, so that a killed sweep goes on with the same command. The
grid may grow; other settings in the same directory are refused, so that all its cells can be compared.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from air_env.scenes import make_scene

from ..jobs.cluster import Cluster
from ..jobs.machine import describe_machine
from ..training.recipes import Recipe
from ..training.run import Probe
from ..training.serialisation import to_json
from ..training.trainer import Trainer
from .cell import FAILED, TO_BE_TRAINED, Cell, train_cell
from .record import Record, keep_record
from .specs import Spec

_LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Sweep:
    """What is compared."""

    recipe: Recipe
    """What all cells share; its estimator and seed are the cells' own."""
    estimators: tuple[str, ...]
    """Specifications: ``name``, or ``name=path.py:ClassName``."""
    seeds: tuple[int, ...]
    """Of the recipe: each decides images, initial weights and noise."""
    max_minutes: float | None = None
    """Budget of each cell."""
    threads: int = 1
    """Of torch, in each cell."""
    data_dir: str | None = None
    """Folder of the data files, for scenes that need some."""

    def specs(self) -> list[Spec]:
        """The estimators, which are from then on registered in this process.

        Raises:
            ValueError: There is none, one does not exist, or a name is given twice.
        """
        specs = [Spec.parse(text) for text in self.estimators]
        for kind, given in (("estimator", [spec.name for spec in specs]), ("seed", [str(seed) for seed in self.seeds])):
            if not given:
                raise ValueError(f"there is no {kind} to train; give at least one")
            if twice := {value for value in given if given.count(value) > 1}:
                raise ValueError(f"{kind} {', '.join(sorted(twice))} is given twice; leave one out")
        for spec in specs:
            spec.load()
        return specs

    def cells(self, directory: Path) -> list[Cell]:
        """All cells in the order of training: all estimators with the first seed, then with the second, ...

        Raises:
            ValueError: An estimator does not exist, or a setting makes no sense.
        """
        specs = self.specs()
        for name, value in (("max_minutes", self.max_minutes), ("threads", self.threads)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        return [
            Cell(
                directory=directory.resolve() / f"{spec.name}-{seed}",
                recipe=replace(self.recipe, estimator=spec.name, seed=seed),
                spec=str(spec),
                max_minutes=self.max_minutes,
                threads=self.threads,
                data_dir=self.data_dir,
            )
            for seed in self.seeds
            for spec in specs
        ]

    def check(self) -> None:
        """Sees to it that the data are there, and that every estimator can train by this recipe.

        Raises:
            ValueError: It cannot.
            OSError: The data are not there.
        """
        recipe = self.recipe
        scene = make_scene(recipe.scene, data_dir=self.data_dir, **recipe.scene_options)
        few = scene.dataset("train", recipe.batch_size, 0)
        for spec in self.specs():
            try:
                Trainer(replace(recipe, estimator=spec.name), few)
            except ValueError:
                raise
            except Exception as error:
                raise ValueError(f"estimator {spec.name!r} cannot be made ({error!r}); correct it") from error


def run_sweep(
    sweep: Sweep,
    directory: Path,
    cluster: Callable[[Path], Cluster],
    *,
    workers: int | None = None,
    probe: Probe | None = None,
    retry_failed: bool = False,
    progress: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """Trains all cells that are not finished; those that fail are left, and the others go on.

    Args:
        sweep: What is compared.
        directory: The sweep's, new or with a part of the same sweep.
        cluster: Makes where to train from the directory.
        workers: Cells at a time; by default all.
        probe: Gives further columns of metrics.
        retry_failed: Begins failed cells afresh.
        progress: Called with each cell that is over, be it finished, failed, or lost with its worker.

    Returns:
        All cells; `Cell.status` says what became of them.

    Raises:
        ValueError: Settings make no sense or differ from those in the directory, or the sweep is being run already.
        OSError: The directory cannot be written.
    """
    cells = sweep.cells(directory)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    sweep.check()
    with _alone(directory):
        again = [cell for cell in cells if retry_failed and cell.status() in FAILED]
        keep_record(_record(sweep, cells), directory, afresh={cell.name for cell in again})
        for cell in again:
            shutil.rmtree(cell.directory)
        place = cluster(directory)
        try:
            _train(cells, place, workers or len(cells), probe, progress)
        finally:
            place.close()
    return cells


def _train(
    cells: Sequence[Cell],
    cluster: Cluster,
    workers: int,
    probe: Probe | None,
    progress: Callable[[Cell], None],
) -> None:
    running = cluster.running()
    # What an earlier coordinator left to Slurm.
    begun = {cell.name: cell for cell in cells if cell.name in running and cell.status() in TO_BE_TRAINED}
    waiting: deque[Cell] = deque()
    for cell in cells:
        if cell.status() not in TO_BE_TRAINED:
            progress(cell)
        elif cell.name not in begun:
            waiting.append(cell)
    try:
        while waiting or begun:
            while waiting and len(begun) < workers:
                cell = waiting.popleft()
                # First noted, then started: what is interrupted in between is stopped, too.
                begun[cell.name] = cell
                cluster.submit(cell.name, train_cell, cell, probe, cluster.coordinator)
            running = cluster.running()
            for name in [name for name in begun if name not in running]:
                progress(begun.pop(name))
            if begun:
                time.sleep(cluster.poll_seconds)
    finally:
        if begun:
            cluster.stop()
        while begun and cluster.running():
            time.sleep(cluster.poll_seconds)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keeps other processes from running a sweep in the same directory; a killed one does not."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / _LOCK_FILE, blocking=False):
            yield
    except Timeout as error:
        raise ValueError(
            f"a sweep is being run in {directory} by another process; wait for its end, stop it, or choose another "
            "--output-dir"
        ) from error


def _record(sweep: Sweep, cells: Sequence[Cell]) -> Record:
    recipe = {name: value for name, value in to_json(sweep.recipe).items() if name not in ("estimator", "seed")}
    estimators = {spec.name: {"spec": str(spec), "fingerprint": spec.fingerprint()} for spec in sweep.specs()}
    names = [cell.name for cell in cells]
    return Record(recipe, sweep.max_minutes, sweep.threads, estimators, names, describe_machine())
