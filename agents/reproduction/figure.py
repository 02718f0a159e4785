"""A figure of the paper: the runs it needs, what is measured of them, and its page."""

from typing import Protocol

from ..jobs.job import Job
from .experiment import Experiment
from .measurements import Measurement, Results
from .page import Page


class Figure(Protocol):
    """One of `FIGURES`."""

    @property
    def title(self) -> str:
        """Of its page."""
        ...

    def jobs(self, experiment: Experiment) -> list[Job]:
        """The runs that it needs."""
        ...

    def measurements(self, experiment: Experiment) -> list[Measurement]:
        """What is measured of them, once they are finished."""
        ...

    def write(self, experiment: Experiment, results: Results, page: Page) -> None:
        """Fills its page."""
        ...
