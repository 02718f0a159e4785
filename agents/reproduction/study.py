"""Studies: a table of cases, measured of trained runs, and a page about it.

A `Case` is a run with every seed, and what else tells its rows from others. Measuring it gives more columns of the row
of a seed, or several rows. Results are kept on disk:

RUNS/SCALE/measured/KEY.json    what was measured, of which weights and with which settings, and the rows
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from ..jobs.job import Job
from ..pages import Page, number, table
from ..training.files import read_json, write_results
from .experiment import Experiment
from .scales import Scale

MEASURED_FOLDER = "measured"

Metrics = Mapping[str, object]
"""Column -> number, text or nested list of numbers; NaN where undefined."""
Progress = Callable[[int, str], object]


class Case:
    """A row of a study's table for every seed, or several.

    Args:
        run: Name of a run; `Scale.recipe` has the names.
        num_seeds: How many of the seeds are measured; by default all.
        about: Columns that tell the rows from others.
    """

    def __init__(self, run: str, num_seeds: int | None = None, **about: object) -> None:
        self.run, self.num_seeds, self.about = run, num_seeds, about

    def __getitem__(self, column: str) -> str:
        return str(self.about[column])


@dataclass(frozen=True)
class Measurement:
    """What is measured of some cases."""

    cases: Iterable[Case]
    """The cases."""
    measure: Callable[[Job, Case, Experiment], Metrics | Sequence[Metrics]]
    """Metrics of a case's finished run, or a sequence of them for as many rows; depends on nothing else."""
    settings: Metrics = field(default_factory=dict)
    """Constants that the metrics depend on, beyond the case and the scale."""


@dataclass(frozen=True)
class Study:
    """A figure of the paper."""

    title: str
    """Title of its page."""
    measurements: Callable[[Scale], Iterable[Measurement]]
    """What is measured at a scale; the rows, one below the other, are the study's table."""
    tables: Callable[[pd.DataFrame], dict[str, str]]
    """The tables of the page in Markdown by name, from what the CSV file has of the study's table."""
    write: Callable[[Page, pd.DataFrame, Experiment], None]
    """Fills the page."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Module -> the extra that installs it."""
    text_columns: tuple[str, ...] = ()
    """Columns of digits that are no numbers."""

    def jobs(self, experiment: Experiment) -> list[Job]:
        """The runs of all cases: all with the first seed, then with the second, ..."""
        runs = dict.fromkeys((case.run, seed) for _, case, seed in self.cases(experiment))
        return [experiment.job(*run) for run in sorted(runs, key=lambda run: experiment.seeds.index(run[1]))]

    def cases(self, experiment: Experiment) -> list[tuple[Measurement, Case, int]]:
        """All cases, each with its measurement and a seed, in the order of the table."""
        measurements = self.measurements(experiment.scale)
        cases = [(measurement, case) for measurement in measurements for case in measurement.cases]
        return [(*both, seed) for both in cases for seed in experiment.seeds[: both[1].num_seeds]]

    def measure(self, experiment: Experiment, progress: Progress = lambda done, what: None) -> pd.DataFrame:
        """The study's table; what is known is read from disk.

        Args:
            experiment: Its runs are finished.
            progress: Called before each case with the number of those that are done, and its run; and at the end.

        Raises:
            OSError: Results cannot be written.
        """
        rows: list[Metrics] = []
        cases = self.cases(experiment)
        fingerprints = {job.name: job.fingerprint() for job in self.jobs(experiment)}
        for done, (measurement, case, seed) in enumerate(cases):
            job = experiment.job(case.run, seed)
            progress(done, job.name)
            about = {"run": job.name, **case.about, "seed": seed}
            found = _measured(measurement, job, case, about, experiment, fingerprints[job.name])
            rows += [{**about, **metrics} for metrics in found]
        progress(len(cases), "")
        return pd.DataFrame(rows)

    def how_it_was_made(self, name: str, experiment: Experiment) -> str:
        """The command, the scale, the seeds, and what the trainings took and where, in Markdown."""
        jobs, seeds = self.jobs(experiment), list(map(str, experiment.seeds))
        data = ["--data-dir D"] if any(job.recipe.scene == "multi_mnist" for job in jobs) else []
        command = ["air-env reproduce", name, "--scale", experiment.scale_name, "--seeds", *seeds, *data]
        return "\n\n".join(
            [
                f"```bash\n{' '.join(command)}\n```",
                f"Scale `{experiment.scale_name}`: {experiment.scale.title}. Seeds {', '.join(seeds)}.",
                _minutes(jobs),
                _machines(jobs),
            ]
        )

    def read(self, path: Path) -> pd.DataFrame:
        """The study's table as its CSV file has it."""
        return pd.read_csv(path, dtype=dict.fromkeys(self.text_columns, str))


def scalars(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that hold no lists: those of the CSV file."""
    return table[[name for name in table if not table[name].map(lambda value: isinstance(value, list)).any()]]


def _measured(
    measurement: Measurement, job: Job, case: Case, about: Metrics, experiment: Experiment, weights: str
) -> list[Metrics]:
    """Rows of a case: read, or measured and written."""
    scale = {name: value for name, value in asdict(experiment.scale).items() if name != "title"}
    signature = {"weights": weights, "case": about, "scale": scale, "settings": measurement.settings}
    # Through JSON, so that what is new and what is read make the same page.
    signature = json.loads(json.dumps(signature))
    digest = hashlib.sha256(json.dumps(signature["case"], sort_keys=True).encode()).hexdigest()[:10]
    key = f"{measurement.measure.__name__}-{about['run']}-{digest}"
    path = experiment.directory / MEASURED_FOLDER / f"{key}.json"
    try:
        known = read_json(path)
        if known["of"] == signature:
            return known["rows"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # Nothing was measured, or the file is damaged.
    found = measurement.measure(job, case, experiment)
    found = json.loads(json.dumps([found] if isinstance(found, Mapping) else found))
    write_results(path, {"of": signature, "rows": found})
    return found


def _minutes(jobs: Sequence[Job]) -> str:
    runs = pd.DataFrame(
        {"run": job.kind, "iterations": job.recipe.max_steps, "minutes": job.evaluation()["minutes"] or 0.0}
        for job in jobs
    )
    rows = [
        [f"`{kind}`", len(own), f"{own.iterations.iloc[-1]:,}", number(own.minutes.median(), 1), _sum(own)]
        for kind, own in runs.groupby("run", sort=False)
    ]
    rows.append(["all", len(jobs), "", "", _sum(runs)])
    return table(["runs", "seeds", "iterations", "median minutes", "minutes in all"], rows)


def _sum(runs: pd.DataFrame) -> str:
    return number(runs.minutes.sum(), 1)


def _machines(jobs: Sequence[Job]) -> str:
    machines = {
        f"{m['cpu'] if m['device'] == 'cpu' else m['device']}, {m['threads']} thread(s) each, torch {m['torch']}, "
        f"commit {m['commit'] or 'unknown'}"
        for m in (job.machine() for job in jobs)
        if m
    }
    return f"Trained on: {'; '.join(sorted(machines)) or 'unknown'}."
