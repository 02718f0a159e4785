"""A study: counts of rings and discs, by AIR without a label and by brightness with all labels."""

import pandas as pd

from air_agents.jobs.job import Job
from air_agents.pages import Page, show
from air_agents.reproduction.experiment import Experiment
from air_agents.reproduction.study import Case, Measurement, Metrics, Study

_TITLES = {"model": "model", "seed": "seed", "accuracy": "count accuracy"}


# Both models; a run's name is that of its recipe.
CASES = (
    Case("rings", model="AIR", metric="count_accuracy"),
    Case("brightness", model="brightness", metric="accuracy"),
)


def measure(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """Held-out count accuracy, as the run measured it at its end."""
    return {"accuracy": job.evaluation()[case["metric"]]}


def tables(table: pd.DataFrame) -> dict[str, str]:
    """A line for each run."""
    return {"accuracy": show(table, _TITLES)}


def write(page: Page, table: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    page.add("Rings and discs, counted in held-out images.", tables(table)["accuracy"])


STUDY = Study("Counting rings", lambda scale: [Measurement(CASES, measure)], tables, write)
