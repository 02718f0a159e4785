"""Measurements of trained runs, kept on disk: a killed command goes on, and a second one measures nothing again.

RUNS/SCALE/measured/KEY.json    what was measured, of which weights, and the figures
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..jobs.job import Job
from ..training.files import write_text_atomically

MEASURED_FOLDER = "measured"

Figures = dict[str, Any]
"""What is measured: numbers, and lists of them."""
Results = dict[str, Figures]
"""Key -> what was measured."""


@dataclass(frozen=True)
class Measurement:
    """Something to be measured."""

    key: str
    """Its name, which is its file's."""
    jobs: tuple[Job, ...]
    """The runs that it is measured of."""
    compute: Callable[[], Figures]
    """Measures it; floats may be NaN."""
    settings: Figures = field(default_factory=dict)
    """What else the figures depend on."""

    def signature(self) -> Figures:
        """All that the figures depend on, as JSON has it."""
        signature = {"runs": {job.name: job.fingerprint() for job in self.jobs}, "settings": self.settings}
        return json.loads(json.dumps(signature))


def measure_all(
    measurements: Sequence[Measurement], directory: Path, progress: Callable[[int, str], object] = lambda n, key: None
) -> Results:
    """The results of all measurements, of which those that are known are read.

    Args:
        measurements: What to measure, of runs that are finished.
        directory: That holds the runs.
        progress: Called before each measurement with the number of those that are done, and its key; and at the end.

    Raises:
        OSError: The results cannot be written.
    """
    results: Results = {}
    for number, measurement in enumerate(measurements):
        path = directory / MEASURED_FOLDER / f"{measurement.key}.json"
        signature = measurement.signature()
        progress(number, measurement.key)
        figures = _read(path, signature)
        if figures is None:
            # Through JSON, so that what is new and what is read make the same page.
            figures = json.loads(json.dumps(_defined(measurement.compute())))
            write_text_atomically(path, json.dumps({"of": signature, "figures": figures}) + "\n")
        results[measurement.key] = figures
    progress(len(measurements), "")
    return results


def _read(path: Path, signature: Figures) -> Figures | None:
    """What was measured of the same; None where nothing was, or the file is damaged."""
    try:
        known = json.loads(path.read_text())
        return known["figures"] if known["of"] == signature else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _defined(value: Any) -> Any:
    """JSON has no NaN: what is not defined is None."""
    if isinstance(value, dict):
        return {name: _defined(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(part) for part in value]
    return None if isinstance(value, float) and value != value else value
