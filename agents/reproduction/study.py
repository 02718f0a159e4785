"""Studies: a table of cases, measured of trained runs, and a page about it.

A `Case` is a run with a seed, and what else tells its row from others. Measuring it gives more columns of that row, or
several rows. Results are kept on disk:

RUNS/SCALE/measured/KEY.json    what was measured, of which weights and with which settings, and the rows
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from ..jobs.job import Job
from ..pages import Page
from ..training.files import read_json, write_results
from .experiment import Experiment

MEASURED_FOLDER = "measured"

Metrics = Mapping[str, object]
"""Column -> number, text or nested list of numbers; NaN where undefined."""
Progress = Callable[[int, str], object]


class Case:
    """A row of a study's table, or several.

    Args:
        run: Name of a run; `Scale.recipe` has the names.
        seed: Its seed.
        about: Columns that tell the row from others.
    """

    def __init__(self, run: str, seed: int, **about: object) -> None:
        self.run, self.seed, self.about = run, seed, about

    def __getitem__(self, column: str) -> str:
        return str(self.about[column])


@dataclass(frozen=True)
class Measurement:
    """What is measured of some cases."""

    cases: Callable[[Experiment], Iterable[Case]]
    """The cases."""
    measure: Callable[[Job, Case, Experiment], Metrics | Sequence[Metrics]]
    """Metrics of a case whose run is finished, or a sequence of them for as many rows; depends on nothing else."""
    settings: Metrics = field(default_factory=dict)
    """Constants that the metrics depend on, beyond the case and the scale."""


@dataclass(frozen=True)
class Study:
    """A figure of the paper."""

    title: str
    """Title of its page."""
    measurements: tuple[Measurement, ...]
    """Their rows, one below the other, are the study's table."""
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
        runs = dict.fromkeys((case.run, case.seed) for _, case in self.cases(experiment))
        return [experiment.job(*run) for run in sorted(runs, key=lambda run: experiment.seeds.index(run[1]))]

    def cases(self, experiment: Experiment) -> list[tuple[Measurement, Case]]:
        """All cases, each with its measurement, in the order of the table."""
        return [(measurement, case) for measurement in self.measurements for case in measurement.cases(experiment)]

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
        for done, (measurement, case) in enumerate(cases):
            job = experiment.job(case.run, case.seed)
            progress(done, job.name)
            about = {"run": job.name, **case.about, "seed": case.seed}
            found = _measured(measurement, case, about, experiment, fingerprints[job.name])
            rows += [{**about, **metrics} for metrics in found]
        progress(len(cases), "")
        return pd.DataFrame(rows)

    def read(self, path: Path) -> pd.DataFrame:
        """The study's table as its CSV file has it."""
        return pd.read_csv(path, dtype=dict.fromkeys(self.text_columns, str))


def scalars(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that hold no lists: those of the CSV file."""
    return table[[name for name in table if not table[name].map(lambda value: isinstance(value, list)).any()]]


def _measured(
    measurement: Measurement, case: Case, about: Metrics, experiment: Experiment, weights: str
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
    found = measurement.measure(experiment.job(case.run, case.seed), case, experiment)
    found = json.loads(json.dumps(_without_nan([found] if isinstance(found, Mapping) else found)))
    write_results(path, {"of": signature, "rows": found})
    return found


def _without_nan(value: object) -> object:
    """The value with None in place of NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and value != value else value
