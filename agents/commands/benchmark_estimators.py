"""Benchmarks gradient estimators of the stop action.

    air-env benchmark-estimators properties                      # bias, variance and cost, in minutes
    air-env benchmark-estimators properties --estimators exact nvil mine=path.py:MyEstimator
    air-env benchmark-estimators train --estimators exact nvil rloo --seeds 0 1 2 --output-dir runs/benchmark
    air-env benchmark-estimators train objects3d --categories score_function --estimators half_critic rloo nvil
    air-env benchmark-estimators report runs/benchmark --output-dir docs/results --name estimators_digits
    air-env benchmark-estimators submit summary/estimator_properties.csv      # ranks one's own among the others
    air-env benchmark-estimators known-ground                                 # the literature's problems and orderings

`air-env benchmark-estimators COMMAND --help` shows the options of each.
"""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from . import shell, terminal

if TYPE_CHECKING:
    from ..estimator_benchmark.sweep import Sweep
    from ..jobs.cluster import Cluster
    from ..jobs.job import Job

_CHANGES = ("categories", "max_steps", "exploration_steps", "evaluate_every", "batch_size")
_LOCAL_WORKERS = 2
_ESTIMATORS_HELP = "half_critic, nvil, exact, ... (`air-env train --list` lists all), or name=path.py:ClassName."


@dataclass(frozen=True, kw_only=True)
class Train:
    """Trains every estimator with every seed; the same command continues what was stopped."""

    recipe: Annotated[str, tyro.conf.Positional] = "digits"
    """Named settings (agents/training/recipes.py): digits, multi_mnist, sprites, objects3d, ..."""
    estimators: Annotated[tuple[str, ...], tyro.conf.arg(help=_ESTIMATORS_HELP)]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the recipe; each is a run of every estimator."""
    categories: str | None = None
    """Gradient of the category, where z_what is one: score_function (by the estimator's baselines) or exact. Default:
    the recipe's."""
    max_steps: int | None = None
    """Iterations of each run; default: the recipe's."""
    exploration_steps: int | None = None
    """Iterations over which exploration fades; 0 does without. Default: the recipe's."""
    evaluate_every: int = 50
    """Iterations between evaluations, in which the estimator is measured, too."""
    batch_size: int | None = None
    """Images per iteration; default: the recipe's."""
    max_minutes: float | None = None
    """Budget of each run."""
    threads: int = 1
    """Threads of torch in each run."""
    workers: int | None = None
    """Runs at a time; default: 2 on this machine, all at once on Slurm."""
    cluster: Literal["local", "slurm"] = "local"
    """Where to train."""
    slurm_partition: str | None = None
    """Where to submit to; default: Slurm's."""
    slurm_minutes: int = 24 * 60
    """Time limit of a job; a run is saved shortly before, and continued by the same command."""
    slurm_options: tuple[str, ...] = ()
    """Further options of sbatch, such as account=mine qos=low mem=4G."""
    retry_failed: bool = False
    """Begins failed runs afresh."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    output_dir: Path = Path("runs/benchmark")
    """Folder of the sweep; each run is ESTIMATOR-SEED in it."""

    def run(self) -> int:
        """Trains, prints what came of it, and returns the exit status."""
        from ..estimator_benchmark.sweep import run_sweep, summary
        from ..jobs.job import FAILED, TO_BE_TRAINED

        # First of all: submitit may be missing.
        cluster, sweep = self.make_cluster(), self.sweep()
        num_cells, ended = len(sweep.estimators) * len(sweep.seeds), Counter[str]()
        with (
            shell.continued_by(shell.SAME_COMMAND),
            shell.patient() as interrupted,
            terminal.progress_bar(num_cells, "run") as bar,
        ):

            def show(job: "Job") -> None:
                ended[job.status] += 1
                bar.update()
                bar.set_postfix(ended)

            jobs = run_sweep(
                sweep,
                self.output_dir,
                cluster,
                workers=_LOCAL_WORKERS if self.workers is None and self.cluster == "local" else self.workers,
                retry_failed=self.retry_failed,
                interrupted=interrupted,
                progress=show,
            )
            if interrupted():
                raise KeyboardInterrupt
        print(f"\n{summary(jobs)}\n")
        for job in jobs:
            if job.status in FAILED:
                print(f"{job.name} {job.status}: {job.failure}")
            elif job.status in TO_BE_TRAINED:
                print(f"{job.name} was lost with its worker; see {job.notes}, and give the same command again")
        print(f"\n{self.output_dir}/ holds a run directory for each; report them with:")
        print(f"air-env benchmark-estimators report {self.output_dir}")
        return int(any(job.status not in ("finished", "diverged") for job in jobs))

    def sweep(self) -> "Sweep":
        """The runs to be compared."""
        from ..estimator_benchmark.probe import probe
        from ..estimator_benchmark.sweep import Sweep
        from ..training.recipes import RECIPES

        changes = {name: getattr(self, name) for name in _CHANGES if getattr(self, name) is not None}
        recipe = replace(RECIPES.find(self.recipe), **changes)
        data_dir = None if self.data_dir is None else str(self.data_dir.resolve())
        return Sweep(recipe, self.estimators, self.seeds, self.max_minutes, self.threads, data_dir, probe)

    def make_cluster(self) -> "Cluster":
        """The machine or the cluster to train on."""
        from ..jobs.cluster import LocalCluster, SlurmCluster

        if self.cluster == "local":
            return LocalCluster(self.output_dir)
        if wrong := [option for option in self.slurm_options if not option.partition("=")[2]]:
            raise ValueError(f"--slurm-options must be like account=mine, got {', '.join(wrong)}")
        return SlurmCluster(
            self.output_dir,
            partition=self.slurm_partition,
            minutes=self.slurm_minutes,
            cpus=self.threads,
            options=dict(option.split("=", 1) for option in self.slurm_options),
        )


@dataclass(frozen=True, kw_only=True)
class Properties:
    """Measures bias, variance and cost of estimators on frozen problems, against the enumerated gradient."""

    estimators: Annotated[tuple[str, ...], tyro.conf.arg(help=f"{_ESTIMATORS_HELP} Default: all.")] = ()
    scenes: tuple[str, ...] = ("digits", "multi_mnist", "sprites")
    """Scenes of the frozen agents on which estimators are judged."""
    workers: int = _LOCAL_WORKERS
    """Processes at a time, each with one thread."""
    scaling: bool = True
    """Whether to measure how variance depends on N, on saturation and on the likelihood."""
    cut: bool = True
    """Whether to measure what agents that read the canvas lose by cutting the gradient through it."""
    costs: bool = True
    """Whether to time training steps, one estimator beside the other."""
    device: terminal.Device = "auto"
    output_dir: Path = Path("summary")
    """Folder for NAME.md, NAME.csv and the figures."""
    name: str = "estimator_properties"
    """Name of the files, and title of the page."""
    note: str = ""
    """A sentence for the page."""

    def run(self) -> None:
        """Measures and writes the page."""
        import torch

        from ..estimator_benchmark.cost import measure_costs
        from ..estimator_benchmark.judging import judge
        from ..estimator_benchmark.properties_page import write_page
        from ..estimator_benchmark.specs import load_estimator
        from ..estimators import ESTIMATORS
        from ..jobs.devices import pick_device
        from ..jobs.machine import describe_machine

        estimators = self.estimators or tuple(ESTIMATORS)
        begun = time.monotonic()
        with terminal.progress_bar(unit="task", desc="problems") as bar:

            def show(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            properties, points, cuts = judge(
                estimators, self.scenes, workers=self.workers, scaling=self.scaling, cut=self.cut, progress=show
            )
        device, costs = pick_device(self.device), {}
        if self.costs:
            torch.set_num_threads(1)
            with terminal.progress_bar(unit="repeat", desc="timing") as bar:
                costs = measure_costs([load_estimator(spec) for spec in estimators], device, bar.update)
        machine = describe_machine()
        how = (
            f"`{shlex.join(['air-env', *sys.argv[1:]])}` in "
            f"{(time.monotonic() - begun) / 60:.1f} minutes, {self.workers} processes of one thread; "
            f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, commit {machine['commit']}. "
            f"Training steps were timed on {device}."
        )
        notes = [note for note in (self.note, how) if note]
        paths = write_page(properties, costs, points, cuts, self.output_dir, self.name, notes)
        print(f"wrote {', '.join(map(str, paths))}")


@dataclass(frozen=True, kw_only=True)
class KnownGround:
    """Measures estimators on the problems of the literature, and compares with the orderings published there."""

    data_dir: Path | None = None
    """Folder that holds mnist/; default: AIR_DATA_DIR, else a cached download."""
    output_dir: Path = Path("summary")
    """Folder for NAME.md and NAME.csv."""
    name: str = "estimators_known_ground"
    """Name of the files, and title of the page."""

    def run(self) -> None:
        """Measures and writes the page."""
        import torch

        from ..estimator_benchmark.known_ground import NAMES, BinarisedDigits, on_toy, on_vae, write_page

        torch.set_flush_denormal(True)
        with terminal.progress_bar(3 * len(NAMES), "estimator") as bar:
            digits = BinarisedDigits(self.data_dir)
            spreads = [*on_toy(progress=bar.update), *on_vae(digits, progress=bar.update)]
        note = f"`{shlex.join(['air-env', *sys.argv[1:]])}`"
        print(f"wrote {', '.join(map(str, write_page(spreads, self.output_dir, self.name, note)))}")


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Checks the results of one's own estimator and ranks them among those that are published."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS.csv...")]
    """Sheets that `properties` wrote."""
    published: Path = Path("docs/results/estimator_properties.csv")
    """The sheet of the registered estimators: the repository's, or one that `properties` wrote."""
    output_dir: Path = Path("summary")
    """Folder for NAME.md and NAME.csv."""
    name: str = "ranking"
    """Name of the files, and title of the page."""

    def run(self) -> None:
        """Writes the ranking."""
        from ..estimator_benchmark.submission import submit

        paths = submit(self.results, self.published, self.output_dir, self.name)
        print(f"wrote {', '.join(map(str, paths))}")


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Trains narrow agents and freezes them at four stages: how the shipped problems were made."""

    scene: Annotated[str, tyro.conf.Positional]
    """One of digits, multi_mnist, multi_mnist_dair, sprites."""
    max_steps: int | None = None
    """Iterations of training; default: the recipe's (of the shipped ones, sprites: 2000, multi_mnist_dair:
    1000)."""
    data_dir: Path | None = None
    """Folder that holds mnist/ and so on; default: AIR_DATA_DIR, else a cached download."""
    output_dir: Path = Path("frozen")
    """Folder for SCENE.safetensors and SCENE.png."""

    def run(self) -> None:
        """Trains and writes the files."""
        import torch

        from ..estimator_benchmark.frozen import capture

        path = self.output_dir / f"{self.scene}.safetensors"
        data_dir = None if self.data_dir is None else str(self.data_dir)
        torch.set_flush_denormal(True)
        with terminal.progress_bar(unit="look") as bar:

            def show(name: str, iteration: int, accuracy: float) -> None:
                bar.update()
                bar.set_postfix_str(f"{name}, iteration {iteration}, count accuracy {accuracy:.3f}")

            capture(self.scene, path, data_dir=data_dir, max_steps=self.max_steps, progress=show)
        print(f"wrote {path} and {path.with_suffix('.png')}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Makes a page, a sheet and figures of sweeps, in which failed runs count as failed."""

    sweeps: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP...")]
    """Directories that `train` made; each becomes a section."""
    output_dir: Path = Path("summary")
    """Folder for NAME.md, NAME.csv and NAME.png."""
    name: str = "estimators"
    """Name of the files, and title of the page."""
    note: str = ""
    """A sentence for the page."""

    def run(self) -> None:
        """Writes the files."""
        from ..estimator_benchmark.report import write_report

        paths = write_report(self.sweeps, self.output_dir, self.name, self.note)
        print(f"wrote {', '.join(map(str, paths))}")


Commands = Properties | Train | Report | Submit | KnownGround | Capture


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env benchmark-estimators`; returns the exit status."""
    return terminal.run("benchmark-estimators", Commands, lambda arguments: arguments.run(), __doc__, argv)
