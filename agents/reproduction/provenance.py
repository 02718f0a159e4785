"""How a page was made: the command, the scale, the seeds, and what the trainings took and where."""

from collections.abc import Sequence

import pandas as pd

from ..jobs.job import Job
from ..pages import number, table
from .experiment import Experiment


def how_it_was_made(name: str, experiment: Experiment, jobs: Sequence[Job]) -> str:
    """Command, scale, seeds, minutes and machines of a study's runs, in Markdown."""
    command = ["air-env reproduce", name, "--scale", experiment.scale_name, "--seeds", *map(str, experiment.seeds)]
    if any(job.recipe.scene == "multi_mnist" for job in jobs):
        command += ["--data-dir", "D"]
    parts = [
        f"```bash\n{' '.join(command)}\n```",
        f"Scale `{experiment.scale_name}`: {experiment.scale.title}. Seeds {', '.join(map(str, experiment.seeds))}.",
        _minutes(jobs),
        _machines(jobs),
    ]
    return "\n\n".join(parts)


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
