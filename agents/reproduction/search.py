"""The search for the settings of the models that AIR is compared with (Figure 5), as a study: its runs, its table."""

from collections.abc import Iterable

import pandas as pd

from ..comparisons.model import ImageModel
from ..comparisons.representations import codes
from ..comparisons.searches import NUM_TRIES, SEARCHES, SHARE, settings_of
from ..jobs.job import Job
from ..pages import Page, show
from .bounds import compared
from .experiment import VALIDATION, Experiment
from .figure5 import judge_head
from .study import Case, Measurement, Metrics, Study

_TASK, _LABELS = "sum", 10_000
_METRICS = {
    "accuracy": "accuracy",
    "elbo_best_sd": "ELBO at best sd",
    "best_sd": "best sd",
    "sampled_error": "squared error",
    "parameters": "parameters",
    "minutes": "minutes",
}
_DIGITS = {"learning_rate": 4, "elbo_best_sd": 1, "sampled_error": 1, "minutes": 1}

_DEVIATIONS = "- The paper mentions no search; the grids are ours."


def measure(job: Job, case: Case, experiment: Experiment) -> Metrics:
    """The settings of a try, and how good it is on validation scenes."""
    scale, model, machine, own = experiment.scale, job.load(), job.machine(), job.evaluation()
    two = experiment.held_out(scale.num_test, VALIDATION, counts=(2,))
    if isinstance(model, ImageModel):
        scenes = experiment.held_out(scale.num_bound, VALIDATION, counts=(0, 1, 2))
        num_labels, seed = min(_LABELS, max(scale.labels)), job.recipe.seed
        train = scale.make_scene(experiment.data_dir, counts=(2,)).dataset("train", num_labels, seed)
        known, asked = (codes(model, train), train), (codes(model, two), two)
        head = judge_head("plain", _TASK, known, asked, seed, scale.fitting)
        found = {**compared(model, scenes, scenes), "accuracy": head["accuracy"]}
    else:
        found = model.measure(two)
    settings = settings_of(job.recipe, SEARCHES[case["comparison"]].choices)  # type: ignore[arg-type]
    return {
        **{name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in settings.items()},
        **found,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **{name: own[name] for name in ("iterations", "minutes")},
        **{name: machine[name] for name in ("device", "cpu", "threads", "torch", "commit")},
    }


def best_first(table: pd.DataFrame, comparison: str) -> pd.DataFrame:
    """The tries of a comparison, means over seeds, from the best to the worst."""
    search = SEARCHES[comparison]
    own = table[table.comparison == comparison].dropna(axis=1, how="all")
    keys = ["tried", *(name for name in search.choices if name in own)]
    metrics = [name for name in _METRICS if name in own]
    means = own.groupby(keys, sort=False)[metrics].mean().reset_index().astype({"parameters": int})
    # Where other comparisons leave gaps, whole numbers have become floats.
    means[keys] = means[keys].convert_dtypes()
    return means.sort_values(search.judged_by, ascending=False, kind="stable")


def tables(table: pd.DataFrame) -> dict[str, str]:
    """The tries of each comparison, the best one first."""
    found = {}
    for comparison in table.comparison.unique():
        rows = best_first(table, comparison)
        titles = {name: _METRICS.get(name, name.removeprefix("model.").replace("_", " ")) for name in map(str, rows)}
        found[comparison] = show(rows, titles, _DIGITS)
    return found


def write(page: Page, table: pd.DataFrame, experiment: Experiment) -> None:
    """Fills the page."""
    page.add(
        f"{NUM_TRIES} settings of each model that AIR is compared with, drawn from a grid of its own; try 0 is the "
        f"recipe as it is. Each is trained for {SHARE:.0%} of the recipe's iterations, and judged on validation "
        "scenes, of objects that neither training nor any other page shows. Accuracy is of the sum of two digits: of a "
        f"plain head on the codes of up to {_LABELS:,} labelled scenes, or of the network itself. Bounds are in nats, "
        "at the pixel standard deviation that suits each model best.",
        STUDY.how_it_was_made(page.name, experiment),
    )
    for comparison, text in tables(table).items():
        judged_by = _METRICS[SEARCHES[comparison].judged_by]
        page.add(f"## `{comparison}`", f"From the best to the worst by {judged_by}, means over seeds.", text)
    page.add("## Deviations from the paper", _DEVIATIONS)


def _measurements(scale: object) -> Iterable[Measurement]:
    del scale
    cases = [Case(f"{name}_try{k}", comparison=name, tried=k) for name in SEARCHES for k in range(NUM_TRIES)]
    return [Measurement(cases, measure)]


STUDY = Study("Search for the settings of the comparisons", _measurements, tables, write)
