"""The search for the comparisons' settings: a fair grid, resumed where it stopped, that never sees the test split."""

from dataclasses import replace

import pandas as pd
import pytest

from air_agents.comparisons import COMPARISONS, ComparisonRecipe
from air_agents.comparisons.searches import NUM_TRIES, SEARCHES, SHARE, TRIED, changed, settings_of
from air_agents.jobs.schedule import train_all
from air_agents.reproduction import search
from air_agents.reproduction.experiment import VALIDATION, Experiment
from air_env.scenes import SceneDataset
from air_env.scenes.base import Split


@pytest.fixture
def experiment(tmp_path):
    return Experiment("smoke", (0,), tmp_path)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_tries_the_recipe_and_as_many_others_as_every_search(name):
    recipe, choices = COMPARISONS[name], SEARCHES[name].choices
    tries = [TRIED[f"{name}_try{k}"] for k in range(NUM_TRIES)]
    points = [settings_of(tried, choices) for tried in tries]
    assert points[0] == settings_of(recipe, choices)
    assert all(point[setting] in values for point in points for setting, values in choices.items())
    assert all(one != other for k, one in enumerate(points) for other in points[:k])
    for tried, point in zip(tries, points, strict=True):
        assert tried.max_steps == round(SHARE * recipe.max_steps)
        same = {name: getattr(tried, name) for name in ("max_steps", "num_train", "scene_options")}
        assert changed(recipe, {**same, **point}) == tried, "nothing else differs"
        tried.model.make()


def test_a_setting_belongs_to_the_recipe_or_to_its_model():
    recipe: ComparisonRecipe = COMPARISONS["draw"]
    found = changed(recipe, {"learning_rate": 0.5, "model.hidden": 7})
    assert found == replace(recipe, learning_rate=0.5, model=replace(recipe.model, hidden=7))


def test_a_search_that_was_stopped_goes_on_and_writes_a_row_for_every_try(experiment):
    jobs = [experiment.job(f"{name}_try{k}", 0) for name in ("autoencoder", "cnn_sum") for k in range(2)]
    asked = iter([False] * 15)
    train_all(jobs, experiment.directory, interrupted=lambda: next(asked, True))
    finished = [job for job in jobs if job.finished]
    assert 0 < len(finished) < len(jobs)
    before = {job.name: (job.directory / "evaluation.json").stat().st_mtime_ns for job in finished}
    train_all(jobs, experiment.directory)
    assert all(job.finished for job in jobs)
    assert all((job.directory / "evaluation.json").stat().st_mtime_ns == before[job.name] for job in finished)
    for job in jobs:
        row = search.measure(job, search.Case(job.kind, comparison=job.kind.rpartition("_")[0]), experiment)
        assert {"accuracy", "parameters", "learning_rate", "model.hidden", "minutes", "cpu", "commit"} <= set(row)
        assert row["iterations"] == job.recipe.max_steps


def test_a_search_chooses_by_validation_scenes_alone(experiment, monkeypatch):
    job, seen = experiment.job("autoencoder_try0", 0), []
    train_all([job], experiment.directory)
    held_out = Experiment.held_out

    def noted(self: Experiment, num_scenes: int, split: Split = "test", **options: object) -> SceneDataset:
        seen.append(split)
        return held_out(self, num_scenes, split, **options)

    monkeypatch.setattr(Experiment, "held_out", noted)
    search.measure(job, search.Case("autoencoder_try0", comparison="autoencoder"), experiment)
    assert set(seen) == {VALIDATION}


def test_the_best_comes_first():
    rows = pd.DataFrame(
        {
            "comparison": ["autoencoder"] * 4 + ["cnn_sum"],
            "tried": [0, 0, 1, 1, 0],
            "seed": [0, 1, 0, 1, 0],
            "model.code": [53.0, 53.0, 106.0, 106.0, None],
            "accuracy": [0.5, 0.1, 0.4, 0.3, 0.9],
            "parameters": 10.0,
        }
    )
    assert search.best_first(rows, "autoencoder")["model.code"].tolist() == [106, 53]
    assert search.tables(rows)["autoencoder"].splitlines()[2:] == [
        "| 1 | 106 | 0.350 | 10 |",
        "| 0 | 53 | 0.300 | 10 |",
    ]
