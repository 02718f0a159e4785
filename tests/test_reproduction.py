"""`air-env reproduce` and `air_agents.reproduction`: studies from trainings to pages, and scanning policies."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from air_agents.commands import reproduce as command
from air_agents.commands.summarise import table as summary
from air_agents.comparisons.representations import REPRESENTATIONS
from air_agents.jobs.job import Job
from air_agents.jobs.schedule import train_all
from air_agents.pages import Page, means, number, pivot, show
from air_agents.reproduction import figure4, study
from air_agents.reproduction.experiment import Experiment
from air_agents.reproduction.policy import blend, first_attended, heat_maps, predictability
from air_agents.reproduction.scales import SCALES
from air_agents.reproduction.studies import STUDIES
from air_agents.reproduction.study import Case, Measurement, Study
from air_agents.training.files import read_json
from air_agents.training.run import TrainingRun
from air_env import geometry
from air_env.explanation import DrawnExplanation, Explanation
from air_env.scenes import SceneDataset, make_scene

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    """Shared by the tests, as it is by the studies."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def reproduce(air_env_command, runs_dir, tmp_path):
    """Runs the command with one seed at the smallest scale; answers with its status and errors."""

    def call(*arguments: object) -> tuple[int, str]:
        folders = ["--runs-dir", runs_dir, "--output-dir", tmp_path / "pages", "--device", "cpu"]
        status, _, errors = air_env_command("reproduce", "--scale", "smoke", "--seeds", 0, *folders, *arguments)
        return status, errors

    return call


@pytest.fixture
def experiment(tmp_path):
    return Experiment("smoke", (0,), tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished_at(directory: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.rglob("evaluation.json")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.opengl] * bool(STUDIES[name].needs)) for name in STUDIES]
)
def test_a_study_is_made_from_training_to_page_and_made_again_from_what_is_there(
    name, reproduce, runs_dir, tmp_path, monkeypatch
):
    before, folder = finished_at(runs_dir), tmp_path / "pages"
    assert reproduce(name)[0] == 0
    made = files(folder)
    page = made[f"{name}.md"].decode()
    assert f"air-env reproduce {name} --scale smoke --seeds 0" in page
    assert "numbers mean nothing" in page
    assert "Deviations from the paper" in page
    for picture in re.findall(r"\]\((\S+\.png)\)", page):
        assert len(made[picture]) < 300_000
        with Image.open(folder / picture) as opened:
            opened.verify()
    # Every table of the page is a function of the CSV file.
    tables = STUDIES[name].tables(STUDIES[name].read(folder / f"{name}.csv"))
    assert all(text in page for text in tables.values())
    first = finished_at(runs_dir)
    # What an earlier study trained was not trained again.
    assert before.items() <= first.items()

    monkeypatch.setattr(TrainingRun, "train", None)
    monkeypatch.setattr(study, "write_results", None)
    assert reproduce(name)[0] == 0
    assert finished_at(runs_dir) == first
    assert files(folder) == made


@pytest.mark.parametrize("name", ["figure3", "figure4", "figure5", "figure6", "figure7"])
def test_the_tables_of_a_committed_page_are_rebuilt_from_its_csv_file(name):
    page, table = (RESULTS / f"{name}.md").read_text(), STUDIES[name].read(RESULTS / f"{name}.csv")
    tables = STUDIES[name].tables(table)
    assert tables
    for part, text in tables.items():
        assert text in page, part


def test_a_smoke_test_never_overwrites_results(reproduce, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, errors = reproduce("figure3", "--output-dir", "docs/results")
    assert status == 1
    assert "error: a smoke test must not overwrite docs/results; choose another --output-dir" in errors
    smoke = command.Arguments("figure3", "smoke", runs_dir=Path("mine"))
    assert smoke.folder == Path("mine/smoke/pages")
    assert replace(smoke, scale="cpu").folder == Path("docs/results")


def test_a_missing_extra_is_reported_before_any_training(reproduce, tmp_path, monkeypatch):
    monkeypatch.setitem(STUDIES, "figure6", replace(STUDIES["figure6"], needs={"no_such_module": "opengl"}))
    status, errors = reproduce("figure6", "--runs-dir", tmp_path / "none")
    assert status == 1
    assert "no_such_module is not installed; install the extra" in errors
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("figure9",), "study 'figure9' is unknown; choose one of figure3, figure4, figure5"),
        (("figure3", "--scale", "huge"), "scale 'huge' is unknown; choose one of smoke, cpu, full"),
        (("figure3", "--workers", 0), "workers must be at least 1, got 0"),
        (("figure3", "--seeds", 1, 1), "seeds must differ, got 1, 1"),
    ],
)
def test_impossible_requests_are_refused(arguments, message, reproduce):
    status, errors = reproduce(*arguments)
    assert status == 1
    assert f"error: {message}" in errors


@pytest.mark.usefixtures("no_data_dir")
def test_missing_data_are_reported_before_any_training(reproduce, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, errors = reproduce(
        "figure3", "--scale", "cpu", "--runs-dir", tmp_path / "runs", "--data-dir", tmp_path / "none"
    )
    assert status == 1
    assert re.search(r"error: .*mnist", errors)
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_training_is_resumed_to_the_same_numbers(experiment, tmp_path):
    job, other = experiment.job("air_012", 0), replace(experiment, runs_dir=tmp_path / "other").job("air_012", 0)
    asked = iter([False] * 5)
    train_all([job], experiment.directory, interrupted=lambda: next(asked, True))
    assert not job.finished
    assert (job.directory / "resume.pt").exists()
    seen: list[tuple[float, str]] = []
    train_all([job], experiment.directory, progress=lambda done, what: seen.append((done, what)))
    assert job.finished
    begun = [what for _, what in seen if "/" in what]
    assert begun[0] > f"{job.name} 1/{job.recipe.max_steps}"
    assert seen[-1][0] == 1
    train_all([other], other.directory.parent)
    assert job.fingerprint() == other.fingerprint()


def test_a_run_with_other_settings_is_refused(experiment):
    job = experiment.job("cnn_sum_20", 0)
    train_all([job], experiment.directory)
    changed = replace(job, recipe=replace(job.recipe, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"cnn_sum_20-0 has other settings: learning_rate is .*, wanted 0.5; delete"):
        train_all([changed], experiment.directory)
    (job.directory / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json does not fit .* delete .* or choose another --runs-dir"):
        train_all([job], experiment.directory)


def test_trainings_that_fail_are_named_and_the_others_finish(experiment, monkeypatch):
    bad, good = experiment.job("cnn_order_20", 0), experiment.job("cnn_sum_20", 0)
    train = Job._train

    def diverge(job: Job, *arguments: Callable) -> None:
        if job.name == bad.name:
            raise FloatingPointError("the loss is not finite")
        train(job, *arguments)

    monkeypatch.setattr(Job, "_train", diverge)
    with pytest.raises(ChildProcessError, match="1 of 2 trainings failed: cnn_order_20-0: FloatingPointError"):
        train_all([bad, good], experiment.directory)
    assert good.finished
    assert not bad.finished


@pytest.mark.slow
def test_workers_train_what_one_process_trains(experiment, tmp_path):
    other = replace(experiment, runs_dir=tmp_path / "other")
    names = ("cnn_order_20", "cnn_sum_20")
    train_all([experiment.job(name, 0) for name in names], experiment.directory, workers=2)
    train_all([other.job(name, 0) for name in names], other.directory)
    for there, here in zip(
        [experiment.job(name, 0) for name in names], [other.job(name, 0) for name in names], strict=True
    ):
        assert there.fingerprint() == here.fingerprint()


def test_measurements_are_kept_until_what_they_measure_changes(experiment):
    train_all([experiment.job("cnn_sum_20", 0)], experiment.directory)
    calls: list[str] = []

    def count_calls(job: Job, case: Case, experiment: Experiment) -> list[dict[str, object]]:
        calls.append(job.name)
        return [{"accuracy": float("nan"), "maps": [1.0]}, {"accuracy": 0.5, "maps": [2.0]}]

    def table(**settings: int) -> pd.DataFrame:
        measurement = Measurement([Case("cnn_sum_20", task="sum")], count_calls, settings)
        return Study("title", lambda scale: [measurement], lambda table: {}, lambda *_: None).measure(experiment)

    expected = pd.DataFrame(
        {"run": "cnn_sum_20-0", "task": "sum", "seed": 0, "accuracy": [np.nan, 0.5], "maps": [[1.0], [2.0]]}
    )
    for scenes, number_of_calls in ((1, 1), (1, 1), (2, 2)):
        pd.testing.assert_frame_equal(table(scenes=scenes), expected)
        assert len(calls) == number_of_calls
    (kept,) = (experiment.directory / "measured").iterdir()
    for damage in (lambda text: "{", lambda text: text.replace('"weights": "', '"weights": "0')):
        kept.write_text(damage(kept.read_text()))
        pd.testing.assert_frame_equal(table(scenes=2), expected)
    assert len(calls) == 4


def test_tables_are_pivots_of_tidy_rows(tmp_path):
    rows = pd.DataFrame({"model": ["b", "b", "a", "a"], "seed": [1, 0, 1, 0], "accuracy": [0.25, 0.75, np.nan, 1234.5]})
    assert pivot(rows, {"model": "name"}, "seed", "accuracy", "seed {}") == (
        "| name | seed 1 | seed 0 |\n| --- | --- | --- |\n| b | 0.250 | 0.750 |\n| a | - | 1,234.500 |"
    )
    assert means(rows, {"model": "model"}, {"accuracy": "mean"}, 1).endswith("| b | 0.5 |\n| a | 1,234.5 |")
    assert show(rows[:1], {"seed": "s", "accuracy": "x"}, {"accuracy": 2}).endswith("| 1 | 0.25 |")
    assert (number(None), number(float("nan")), number(2.0, 0)) == ("-", "-", "2")
    page = Page(tmp_path, "page")
    page.add("# Title", "")
    page.add_table(rows)
    assert page.write() == [tmp_path / "page.md", tmp_path / "page.csv"]
    assert (tmp_path / "page.md").read_text() == "# Title\n"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "page.csv"), rows)


def test_a_summary_has_the_median_and_the_worst_of_every_kind_of_run():
    rows = pd.DataFrame({"run": ["a"] * 3, "seed": [0, 1, 2], "minutes": [1.0, 2.0, 3.0], "elbo": [3.0, 9.0, None]})
    assert summary(rows).splitlines()[-3:] == [
        "| a | 2 | 3.0 | - |",
        "| **a** | **median** |  | 6.00 |",
        "| **a** | **worst** |  | 3.00 |",
    ]


def test_scales_keep_the_recipes_but_for_how_much_is_computed():
    cpu, full = SCALES.find("cpu"), SCALES.find("full")
    for name in ("air_013", "dair_013", "draw_013", "autoencoder_012", "cnn_count_012", "cnn_sum_100"):
        short, long = cpu.recipe(name, 3), full.recipe(name, 3)
        assert replace(short, max_steps=1) == replace(long, max_steps=1)
        assert short.seed == 3
        assert short.scene == "multi_mnist"
    assert cpu.recipe("air_013", 0).scene_options["counts"] == (0, 1, 3)
    assert cpu.recipe("cnn_sum_100", 0).num_train == 100
    assert full.recipe("draw_012", 0).max_steps == 10 * cpu.recipe("draw_012", 0).max_steps
    for scale in SCALES.values():
        assert scale.recipe("dair_012", 0).agent.core == "dair"


@pytest.mark.parametrize("name", SCALES)
def test_the_crowded_scenes_of_a_scale_fit(name, request):
    scale = SCALES[name]
    data_dir = str(request.getfixturevalue("data_dir")) if scale.scene == "multi_mnist" else None
    most = max(figure4.FAR_COUNTS)
    assert len(scale.make_scene(data_dir, counts=(most,), object_size=scale.small_objects).dataset("test", 20)) == 20
    for side, counts in scale.canvases.items():
        assert len(scale.make_scene(data_dir, counts=counts, image_size=side).dataset("test", 20)) == 20


@pytest.fixture(scope="module")
def pairs() -> SceneDataset:
    return make_scene("digits", counts=(2,)).dataset("test", 1_000)


def explanation(scenes: SceneDataset, first: np.ndarray) -> DrawnExplanation:
    """The truth, told in an order: object 0 first where ``first`` is 1."""
    squares = geometry.from_boxes(scenes.boxes, scenes.images.shape[-1])
    order = torch.from_numpy(np.stack([1 - first, first], 1))
    z_where = squares.gather(1, order[..., None].expand(-1, -1, 3))
    z_where = torch.cat([z_where, torch.zeros(len(z_where), 1, 3)], 1)
    z_pres = torch.tensor([1.0, 1.0, 0.0]).expand(len(z_where), 3).clone()
    z = Explanation.of_objects(z_pres, z_where, torch.zeros(len(z_where), 3, 4))
    windows = geometry.outlines(z.z_where)
    return DrawnExplanation(z.z_pres, z.z_where, z.z_what, z.z_scene, scenes.float_images(), windows, windows)


def test_a_policy_from_left_to_right_follows_from_position_alone(pairs):
    centres = (pairs.boxes[..., 0] + pairs.boxes[..., 2]).numpy()
    first = (centres[:, 0] < centres[:, 1]).astype(np.int64)
    found = predictability(explanation(pairs, first), pairs)
    assert found["position"] > 0.97
    assert found["identity"] == pytest.approx(0.5, abs=0.08)
    assert found["size"] == pytest.approx(0.5, abs=0.08)
    assert found["scenes"] == 1_000


def test_a_policy_by_identity_follows_from_identity_alone(pairs):
    scenes = pairs[pairs.labels[:, 0] != pairs.labels[:, 1]]
    first = (scenes.labels[:, 0] < scenes.labels[:, 1]).long().numpy()
    found = predictability(explanation(scenes, first), scenes)
    assert found["identity"] > 0.95
    assert found["position"] == pytest.approx(0.5, abs=0.08)


def test_a_policy_by_size_follows_from_size(pairs):
    sizes = (pairs.boxes[..., 2:] - pairs.boxes[..., :2]).amax(-1)
    first = (sizes[:, 0] > sizes[:, 1]).long().numpy()
    assert predictability(explanation(pairs, first), pairs)["size"] > 0.97


def test_who_is_attended_first_is_read_off_scenes_that_are_counted_right(pairs):
    first = np.random.default_rng(0).integers(2, size=len(pairs))
    z = explanation(pairs, first)
    z.z_pres[::2, 1] = 0
    scenes, found = first_attended(z, pairs)
    assert torch.equal(scenes.labels, pairs.labels[1::2])
    np.testing.assert_array_equal(found, first[1::2])


def test_nothing_is_said_of_a_policy_that_counts_nothing_right(pairs):
    z = explanation(pairs, np.zeros(len(pairs), np.int64))
    z.z_pres[:] = 0
    found = predictability(z, pairs)
    assert found.pop("scenes") == 0
    assert np.isnan(list(found.values())).all()


def test_heat_maps_show_where_each_step_looks(pairs):
    z = explanation(pairs, np.ones(len(pairs), np.int64))
    z.z_where[:, 0, 1:] = torch.tensor([-0.9, 0.5])
    z.z_pres[:, 1] = 0
    first, second = heat_maps(z)
    assert first.sum() == 1
    assert first[18, 1] == 1  # row of y = 0.5, column of x = -0.9
    assert not second.any()
    picture = blend(np.stack([first, second]))
    assert picture[18, 1].tolist() == [1, 0, 0]
    assert picture.max() == 1


def test_shrunk_images_keep_their_mean():
    images = torch.rand(2, 1, 60, 60, generator=torch.Generator().manual_seed(0))
    shrunk = figure4.shrink(images, 30)
    assert shrunk.shape == (2, 1, 30, 30)
    assert shrunk.mean().item() == pytest.approx(images.mean().item(), abs=0.01)


@pytest.mark.parametrize(("name", "looks"), [("AIR, inferred once", 1), ("AIR, inferred again", 8)])
def test_agents_are_described_step_by_step(experiment, name, looks):
    job = experiment.job("air_012", 0)
    train_all([job], experiment.directory)
    described = REPRESENTATIONS[name].describe(job.agent(), experiment.held_out(8, counts=(2,)))
    # Looks and steps; P(n >= step), which never rises; z_where; z_what.
    assert described.shape == (8, looks, 3, 1 + 3 + 4)
    assert (described[..., 0].diff(dim=2) <= 0).all()


def test_a_job_says_what_it_was_trained_with(experiment):
    job = experiment.job("autoencoder_012", 0)
    assert job.machine() == {}
    train_all([job], experiment.directory)
    assert job.machine()["device"] == "cpu"
    assert job.evaluation() == read_json(job.directory / "evaluation.json")
    assert (job.name, job.kind) == ("autoencoder_012-0", "autoencoder_012")
