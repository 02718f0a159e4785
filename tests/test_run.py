"""Run directories: exact to resume, never half written, and wary of what is in them."""

import csv
import io
import itertools
import json
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
import traceback
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_checkpoints import Bomb, small_disk
from tiny import FEW, SCENE_OPTIONS, SIDE, assert_equal
from tiny import RECIPE as TINY

from air_agents import load_agent
from air_agents.comparisons import AutoencoderConfig, ComparisonRecipe
from air_agents.evaluation.metrics import evaluate
from air_agents.inference.cores import CORES
from air_agents.jobs.job import FAILED_FILE, MACHINE_FILE, Job
from air_agents.training import run as run_module
from air_agents.training import trainer as trainer_module
from air_agents.training.checkpoints import AGENT_FILE, load_recipe
from air_agents.training.directory import CONFIG_FILE, EVALUATION_FILE, METRICS_FILE, RESUME_FILE
from air_agents.training.files import read_json
from air_agents.training.run import TrainingRun
from air_agents.training.settings import TrainingSettings
from air_agents.training.trainer import Trainer
from air_env.explanation import Explanation
from air_env.frames import Frame
from air_env.priors import CountPrior
from air_env.scenes import ComposedScene

RECIPE = replace(TINY, evaluate_every=4)
FIELDS = ("iteration", "minutes", "elbo", "count_accuracy", "learning_rate")


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / METRICS_FILE).open() as file:
        return list(csv.DictReader(file))


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def edit_config(directory: Path, **changes: object) -> None:
    """Changes settings of config.json; None takes one out."""
    config = json.loads((directory / CONFIG_FILE).read_text())
    (directory / CONFIG_FILE).write_text(json.dumps(changed(config, changes)))


def edit_state(directory: Path, **changes: object) -> None:
    """Changes parts of resume.pt; None takes one out."""
    state = torch.load(directory / RESUME_FILE, weights_only=True)
    torch.save(changed(state, changes), directory / RESUME_FILE)


def changed(values: dict, changes: dict) -> dict:
    kept = {name: value for name, value in values.items() if name not in changes}
    return kept | {name: value for name, value in changes.items() if value is not None}


def poison(trainer: Trainer, iteration: int) -> None:
    """Makes the trainer diverge in an iteration."""
    step = trainer.step

    def step_and_diverge(progress=None):
        elbo = step(progress)
        if trainer.iteration == iteration:
            with torch.no_grad():
                for parameter in trainer.agent.parameters():
                    parameter.fill_(math.nan)
        return elbo

    trainer.step = step_and_diverge


def test_a_new_run_is_usable_at_once(tmp_path):
    TrainingRun.start(tmp_path / "a" / "b", RECIPE)
    assert load_agent(tmp_path / "a" / "b").model.config == RECIPE.model
    assert load_recipe(tmp_path / "a" / "b").max_steps == RECIPE.max_steps
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert TrainingRun.resume(tmp_path / "a" / "b").trainer.iteration == 0


def test_a_finished_run_holds_what_was_promised(tmp_path):
    directory = tmp_path / "run"
    finished = TrainingRun.start(directory, RECIPE)
    finished.train()
    metrics = finished.finish()
    assert next(iter(metrics)) == "count_accuracy"
    assert {path.name for path in directory.iterdir()} == {
        CONFIG_FILE, METRICS_FILE, RESUME_FILE, AGENT_FILE, EVALUATION_FILE, "pictures", "tensorboard"
    }  # fmt: skip
    # JSON has no NaN: what is undefined, as the IoU where no count is right, is null.
    defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    assert read_json(directory / EVALUATION_FILE) == defined
    assert metrics["iterations"] == 12
    rows = rows_of(directory)
    assert tuple(rows[0]) == FIELDS
    assert [int(row["iteration"]) for row in rows] == [4, 8, 12]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    pictures = sorted(path.name for path in (directory / "pictures").iterdir())
    assert pictures[0] == "count_accuracy.png"
    assert len(pictures) > 2
    assert any((directory / "tensorboard").iterdir())
    assert json.loads((directory / CONFIG_FILE).read_text())["batch_size"] == RECIPE.batch_size


def recipe_of_comparison() -> ComparisonRecipe:
    model = AutoencoderConfig(SIDE, code=4, channels=(4, 4), hidden=8)
    return ComparisonRecipe(model, scene="digits", scene_options=SCENE_OPTIONS, max_steps=2, num_train=64, **FEW)


def recipe_of_policy() -> TrainingSettings:
    settings = pytest.importorskip("air_agents.sb3").make_settings("ppo", num_envs=16, num_train=32, **FEW)
    return replace(settings, max_steps=640, evaluate_every=320)


@pytest.mark.parametrize("make_recipe", [lambda: RECIPE, recipe_of_comparison, recipe_of_policy])
def test_rows_and_pictures_are_of_validation_scenes_and_test_scenes_are_made_at_the_end(
    tmp_path, monkeypatch, make_recipe
):
    asked, make = [], ComposedScene.dataset
    # It asks for scenes of its own, where none is kept yet.
    monkeypatch.setattr("air_agents.training.trainer.find_reader", lambda *_: None)
    monkeypatch.setattr(ComposedScene, "dataset", lambda scene, *args: asked.append(args) or make(scene, *args))
    recipe = make_recipe()
    run = TrainingRun.start(tmp_path / "run", replace(recipe, evaluate_every=recipe.max_steps // 2))
    seen = {name: [] for name in ("measure", "picture", "evaluate")}
    for name, calls in seen.items():
        look = getattr(run.trainer, name)
        monkeypatch.setattr(
            run.trainer, name, lambda scenes, *args, calls=calls, look=look: calls.append(scenes) or look(scenes, *args)
        )
    run.train()
    wanted = {("train", recipe.num_train, recipe.seed), ("validation", recipe.num_validation, recipe.seed)}
    assert set(asked) == wanted
    validation = run.scene.dataset("validation", recipe.num_validation, recipe.seed).images
    assert len(seen["measure"]) == len(run.rows) == 2
    assert all(torch.equal(scenes.images, validation) for scenes in seen["measure"])
    run.finish()
    assert set(asked) - wanted == {("test", recipe.num_final, recipe.seed + 1)}
    ((scenes,), test) = seen["evaluate"], run.scene.dataset("test", recipe.num_final, recipe.seed + 1)
    assert_equal(scenes.images, test.images)
    known = {image.tobytes() for image in validation.numpy()}
    assert len(seen["picture"]) == 4
    assert all(image.tobytes() in known for scenes in seen["picture"] for image in scenes.images.numpy())


def test_the_logged_elbo_is_the_mean_since_the_last_row(tmp_path):
    started = TrainingRun.start(tmp_path / "run", RECIPE)
    step, elbos = started.trainer.step, []

    def record(progress=None):
        elbos.append(step(progress))
        return elbos[-1]

    started.trainer.step = record
    started.train()
    logged = [float(row["elbo"]) for row in rows_of(tmp_path / "run")]
    assert logged == pytest.approx([torch.stack(elbos[i : i + 4]).mean().item() for i in (0, 4, 8)], rel=1e-5)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("stop_at", [8, 6], ids=["at a row", "between rows"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop_at, core):
    recipe = replace(RECIPE, agent=replace(RECIPE.agent, core=core))
    whole = TrainingRun.start(tmp_path / "whole", recipe)
    whole.train()
    TrainingRun.start(tmp_path / "parts", recipe).train(stop_at=stop_at)
    resumed = TrainingRun.resume(tmp_path / "parts")
    assert resumed.trainer.iteration == stop_at
    resumed.train()
    assert_equal(resumed.trainer.state_dict(), whole.trainer.state_dict())
    agents = [dict(load_agent(tmp_path / name).state_dict()) for name in ("whole", "parts")]
    assert_equal(agents[1], agents[0])
    rows = [[{**row, "minutes": None} for row in rows_of(tmp_path / name)] for name in ("whole", "parts")]
    assert rows[1] == rows[0]
    figures = [{**finished.finish(), "minutes": None} for finished in (whole, resumed)]
    assert figures[1] == pytest.approx(figures[0], nan_ok=True, abs=0)


def test_rows_written_after_the_last_checkpoint_are_not_repeated(tmp_path):
    directory = tmp_path / "run"
    first = TrainingRun.start(directory, RECIPE)
    first.train(stop_at=4)
    # Killed after a row, before the next checkpoint.
    first.save = lambda: None
    first.train(stop_at=8)
    assert [int(row["iteration"]) for row in rows_of(directory)] == [4, 8]
    TrainingRun.resume(directory).train()
    assert [int(row["iteration"]) for row in rows_of(directory)] == [4, 8, 12]


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path):
    first = TrainingRun.start(tmp_path / "run", RECIPE)
    first.train()
    second = TrainingRun.resume(tmp_path / "run")
    assert second.finished() is None
    figures = second.finish()
    assert second.finished() == pytest.approx(figures, nan_ok=True)
    second.train()
    assert_equal(second.trainer.state_dict(), first.trainer.state_dict())


def test_a_run_is_extended(tmp_path):
    """To the numbers of one that was as long from the beginning, where the learning rate is the same."""
    long = replace(RECIPE, decay=0.0, max_steps=16)
    whole = TrainingRun.start(str(tmp_path / "whole"), long)
    whole.train()
    short = TrainingRun.start(str(tmp_path / "short"), replace(long, max_steps=12))
    short.train()
    short.finish()
    extended = TrainingRun.resume(str(tmp_path / "short"), max_steps=16)
    assert extended.finished() is None
    assert extended.recipe == TrainingRun.resume(tmp_path / "short").recipe == long
    extended.train()
    assert_equal(extended.trainer.state_dict(), whole.trainer.state_dict())
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="max_steps 8 is less than the 16 iterations"):
        TrainingRun.resume(tmp_path / "short", max_steps=8)
    assert files_of(tmp_path) == before


def test_minutes_are_those_of_the_whole_run(tmp_path):
    first = TrainingRun.start(tmp_path / "run", RECIPE)
    first.train(stop_at=4)
    first.minutes = 7.0
    first.save()
    second = TrainingRun.resume(tmp_path / "run", max_minutes=7.0)
    second.train()
    assert second.trainer.iteration == 4, "its minutes were used up"
    third = TrainingRun.resume(tmp_path / "run", max_minutes=100)
    third.train()
    assert third.trainer.iteration == 12
    assert third.minutes >= 7


def test_a_resumed_run_keeps_its_budget_and_so_its_schedule(tmp_path, monkeypatch):
    # Every look at the clock costs half a minute: the learning rate follows the tighter budget, minutes.
    clock = itertools.count(step=30.0)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    TrainingRun.start(tmp_path / "run", RECIPE, max_minutes=7.0)
    resumed = TrainingRun.resume(tmp_path / "run")
    assert resumed.max_minutes == 7.0
    resumed.train()
    assert resumed.trainer.iteration < 12
    assert TrainingRun.resume(tmp_path / "run").minutes >= 7
    TrainingRun.resume(tmp_path / "run", max_minutes=9.0).train()
    assert TrainingRun.resume(tmp_path / "run").max_minutes == 9.0


def test_a_probe_gives_further_columns_and_its_time_is_not_trainings(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def train(started: TrainingRun, stop_at: int | None = None) -> None:
        step = started.trainer.step

        def step_in_a_minute(progress=None):
            clock[0] += 60
            return step(progress)

        started.trainer.step = step_in_a_minute
        started.train(stop_at=stop_at)

    def probe(trainer: Trainer) -> dict[str, float]:
        clock[0] += 600
        return {"doubled": 2 * trainer.iteration, "tensor": torch.tensor(0.5)}  # type: ignore[dict-item]

    train(TrainingRun.start(tmp_path / "run", RECIPE, probe=probe), stop_at=8)
    resumed = TrainingRun.resume(tmp_path / "run", probe=probe)
    train(resumed)
    rows = rows_of(tmp_path / "run")
    assert tuple(rows[0]) == (*FIELDS, "doubled", "tensor")
    assert [(float(row["doubled"]), float(row["tensor"])) for row in rows] == [(8, 0.5), (16, 0.5), (24, 0.5)]
    assert [float(row["minutes"]) for row in rows] == [4, 8, 12]
    assert resumed.minutes == 12


def test_rows_from_before_there_was_a_probe_stay(tmp_path):
    TrainingRun.start(tmp_path / "run", RECIPE).train(stop_at=8)
    TrainingRun.resume(tmp_path / "run", probe=lambda trainer: {"one": 1.0}).train()
    assert [row["one"] for row in rows_of(tmp_path / "run")] == ["", "", "1.0"]


def test_runs_from_before_settings_were_in_the_checkpoint_are_resumed(tmp_path):
    TrainingRun.start(tmp_path / "run", RECIPE)
    edit_config(tmp_path / "run", evaluate_every=None)
    edit_state(tmp_path / "run", recipes=None, threads=None)
    resumed = TrainingRun.resume(tmp_path / "run")
    assert resumed.recipe.evaluate_every == 250
    resumed.train()
    # From now on they are.
    edit_config(tmp_path / "run", evaluate_every=4)
    with pytest.raises(ValueError, match="evaluate_every is 4, was 250"):
        TrainingRun.resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("value", "message"), [(0, "must be positive, got 0"), (2.5, "must be a whole number, got 2.5")]
)
def test_evaluations_come_every_few_whole_iterations(value, message):
    with pytest.raises(ValueError, match=f"evaluate_every {message}"):
        replace(RECIPE, evaluate_every=value)


def test_a_budget_that_makes_no_sense_leaves_nothing_behind(tmp_path):
    for max_minutes in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"max_minutes must be positive, got {max_minutes}"):
            TrainingRun.start(tmp_path / "run", RECIPE, max_minutes=max_minutes)
        assert not list(tmp_path.iterdir())
    TrainingRun.start(tmp_path / "run", RECIPE)
    with pytest.raises(ValueError, match=r"^max_minutes must be positive"):
        TrainingRun.resume(tmp_path / "run", max_minutes=0)


def test_an_interruption_waits_for_the_end_of_the_iteration_and_is_saved(tmp_path):
    first = TrainingRun.start(tmp_path / "run", RECIPE)
    first.train(interrupted=lambda: first.trainer.iteration == 5)
    second = TrainingRun.resume(tmp_path / "run")
    assert_equal(second.trainer.state_dict(), first.trainer.state_dict())
    assert second.trainer.iteration == 5
    assert second.minutes == first.minutes > 0


def test_training_is_reported_without_exploration(tmp_path, monkeypatch):
    counts = []

    def count(images: object, z: Explanation) -> Frame:
        counts.append(z.count)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(trainer_module, "scenes_beside_reconstructions", count)
    started = TrainingRun.start(tmp_path / "run", replace(RECIPE, learning_rate=1e-9, exploration_steps=100))
    # By itself it finds nothing; the exploration mixed in is all but certain of an object.
    torch.nn.init.constant_(started.trainer.agent.presence.bias, -20.0)
    started.train(stop_at=4)
    assert len(counts) == 2
    assert all((count == 0).all() for count in counts)
    empty = (started.validation.count == 0).float().mean().item()
    assert float(rows_of(tmp_path / "run")[0]["count_accuracy"]) == pytest.approx(empty)
    assert started.trainer.agent.exploration.weight > 0.9, "it goes on exploring"


def test_the_final_figures_are_those_of_the_saved_agent(tmp_path):
    # The training ends before the count prior and the exploration have come to rest.
    prior = CountPrior("geometric", 1e-4, initial_parameter=0.5, anneal_steps=100)
    recipe = replace(RECIPE, model=replace(RECIPE.model, count_prior=prior), exploration_steps=100)
    finished = TrainingRun.start(tmp_path / "run", recipe)
    finished.train()
    scenes = finished.final_scenes()
    generator = torch.Generator().manual_seed(RECIPE.seed + 1)
    saved = evaluate(load_agent(tmp_path / "run"), scenes, generator=generator)
    figures = finished.finish()
    assert {name: figures[name] for name in saved} == pytest.approx(saved, nan_ok=True, rel=1e-6)


@pytest.mark.parametrize(("content", "message"), [(CONFIG_FILE, "a run"), ("notes.txt", "something")])
def test_a_directory_that_holds_something_is_refused(tmp_path, content, message):
    (tmp_path / content).write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match=rf"already holds {message}; .*--resume.*--output-dir"):
        TrainingRun.start(tmp_path, RECIPE)
    assert files_of(tmp_path) == before


def test_a_second_run_in_the_same_directory_is_refused(tmp_path):
    TrainingRun.start(tmp_path / "run", RECIPE)
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match="already holds a run"):
        TrainingRun.start(tmp_path / "run", replace(RECIPE, seed=1))
    assert files_of(tmp_path) == before


def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"\. is the folder you are in; name one .*--output-dir"):
        TrainingRun.start(Path(), RECIPE)
    assert not list(tmp_path.iterdir())


def test_an_empty_directory_is_taken(tmp_path):
    TrainingRun.start(tmp_path, RECIPE)
    assert (tmp_path / AGENT_FILE).is_file()


@pytest.mark.parametrize("missing", [CONFIG_FILE, RESUME_FILE, None])
def test_a_directory_without_a_run_cannot_be_resumed(tmp_path, missing):
    if missing is not None:
        TrainingRun.start(tmp_path, RECIPE)
        (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"holds no run to resume .*{missing or CONFIG_FILE} is missing"):
        TrainingRun.resume(tmp_path)


def test_a_damaged_run_is_refused(tmp_path):
    TrainingRun.start(tmp_path, RECIPE)
    for file, damage in (
        *((RESUME_FILE, lambda content, share=share: content[: int(share * len(content))]) for share in (0, 0.5, 0.99)),
        (RESUME_FILE, lambda content: b"not a checkpoint"),
        (RESUME_FILE, lambda content: bytes(len(content))),
        (CONFIG_FILE, lambda content: content[:50]),
        (CONFIG_FILE, lambda content: b"\xff\xfe"),
        (CONFIG_FILE, lambda content: b"[]"),
        (CONFIG_FILE, lambda content: b"{}"),
        (CONFIG_FILE, lambda content: content.replace(b'"num_train"', b'"future_setting"')),
        (CONFIG_FILE, lambda content: content.replace(b'"half_critic"', b'"quarter_critic"')),
        (CONFIG_FILE, lambda content: content.replace(b'"hidden": 8', b'"hidden": 9')),
    ):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(damage(content))
        assert (tmp_path / file).read_bytes() != content
        with pytest.raises(ValueError, match=rf"(?s)run in {re.escape(str(tmp_path))} cannot be resumed"):
            TrainingRun.resume(tmp_path)
        (tmp_path / file).write_bytes(content)


@pytest.mark.parametrize(("begun", "device"), [("cuda", None), ("cuda", "cpu"), ("cpu", "cuda"), ("cpu", "meta")])
def test_a_run_is_resumed_only_on_the_device_it_was_trained_on(tmp_path, monkeypatch, begun, device):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    TrainingRun.start(tmp_path, RECIPE)
    state = torch.load(tmp_path / RESUME_FILE, weights_only=True)
    assert state["device"] == "cpu"
    state["device"] = begun
    if begun == "cuda":
        # The state of a CUDA generator is its seed and its offset.
        state["trainer"]["noise"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, tmp_path / RESUME_FILE)
    with pytest.raises(ValueError, match=rf"was trained on {begun}.* resume it with --device {begun}"):
        TrainingRun.resume(tmp_path, device=device)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    TrainingRun.start(tmp_path, RECIPE)
    for state in ({}, [1, 2], {"trainer": {}, "minutes": 0.0, "rows": []}, torch.zeros(3)):
        torch.save(state, tmp_path / RESUME_FILE)
        with pytest.raises(ValueError, match="cannot be resumed"):
            TrainingRun.resume(tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    for seed in (0, 1):
        TrainingRun.start(tmp_path / str(seed), replace(RECIPE, seed=seed))
    before = (tmp_path / "0" / RESUME_FILE).read_bytes()
    (tmp_path / "0" / RESUME_FILE).write_bytes((tmp_path / "1" / RESUME_FILE).read_bytes())
    with pytest.raises(ValueError, match=r"config\.json .* is not the one that .*: seed is 0, was 1; undo"):
        TrainingRun.resume(tmp_path / "0")
    (tmp_path / "0" / RESUME_FILE).write_bytes(before)
    for name, value in (("seed", 2), ("batch_size", 4), ("learning_rate", 0.5), ("max_steps", 13), ("decay", math.nan)):
        edit_config(tmp_path / "0", **{name: value})
        with pytest.raises(ValueError, match=rf"{name} (is {value}, was|must be a share from 0 to 1, got nan)"):
            TrainingRun.resume(tmp_path / "0")
        edit_config(tmp_path / "0", **{name: getattr(replace(RECIPE, seed=0), name)})
    assert TrainingRun.resume(tmp_path / "0").recipe == RECIPE


def test_a_run_that_is_killed_while_it_is_extended_is_extended(tmp_path, monkeypatch):
    TrainingRun.start(tmp_path / "run", RECIPE)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_json_atomically", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            TrainingRun.resume(tmp_path / "run", max_steps=16)
    assert json.loads((tmp_path / "run" / CONFIG_FILE).read_text())["max_steps"] == 12
    assert TrainingRun.resume(tmp_path / "run").recipe.max_steps == 16
    assert json.loads((tmp_path / "run" / CONFIG_FILE).read_text())["max_steps"] == 16


def test_a_checkpoint_with_wrong_types_in_it_is_refused(tmp_path):
    TrainingRun.start(tmp_path, RECIPE).train(stop_at=4)
    whole = (tmp_path / RESUME_FILE).read_bytes()
    trainer = torch.load(tmp_path / RESUME_FILE, weights_only=True)["trainer"]
    moments = {0: trainer["optimizer"]["state"][0] | {"exp_avg": torch.zeros(1, 1, 1)}}
    weights = {name: tensor.half() for name, tensor in trainer["agent"].items()}
    for changes in (
        {"device": 7},
        {"minutes": "long"},
        {"minutes": math.nan},
        {"max_minutes": "long"},
        {"threads": 0},
        {"threads": "two"},
        {"rows": 5},
        {"rows": [5]},
        {"elbo_sum": 0.0},
        {"recipes": 3},
        {"recipes": [3]},
        {"trainer": [1]},
        {"trainer": trainer | {"iteration": "ten"}},
        {"trainer": trainer | {"permutation": trainer["permutation"].float()}},
        {"trainer": trainer | {"noise": "noise"}},
        {"trainer": trainer | {"order": torch.zeros(3, dtype=torch.uint8)}},
        {"trainer": trainer | {"agent": weights}},
        {"trainer": trainer | {"agent": {name: tensor * math.nan for name, tensor in trainer["agent"].items()}}},
        {"trainer": trainer | {"optimizer": trainer["optimizer"] | {"state": moments}}},
        {"trainer": trainer | {"optimizer": {"state": {}, "param_groups": []}}},
    ):
        edit_state(tmp_path, **changes)
        before = files_of(tmp_path)
        message = rf"(?s)run in {re.escape(str(tmp_path))} cannot be resumed: .*{RESUME_FILE}"
        with pytest.raises(ValueError, match=message):
            TrainingRun.resume(tmp_path)
        assert files_of(tmp_path) == before
        (tmp_path / RESUME_FILE).write_bytes(whole)
    TrainingRun.resume(tmp_path).train()


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    TrainingRun.start(tmp_path, RECIPE)
    whole = (tmp_path / RESUME_FILE).read_bytes()
    with zipfile.ZipFile(tmp_path / RESUME_FILE) as archive:
        parts = [(part.header_offset + 400, part.file_size) for part in archive.infolist()]
    for position in [start for start, size in parts if size > 1_000]:
        (tmp_path / RESUME_FILE).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=rf"{RESUME_FILE} is damaged"):
            TrainingRun.resume(tmp_path)


def test_torchs_advice_to_load_unsafely_is_not_passed_on(tmp_path):
    TrainingRun.start(tmp_path, RECIPE)
    with tarfile.open(tmp_path / "old.tar", "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name))
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"archive/{name}", b"3\n")
    protocol = pickle.dumps({"trainer": {}}, protocol=4)
    for content in (script.getvalue(), (tmp_path / "old.tar").read_bytes(), protocol):
        (tmp_path / RESUME_FILE).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{RESUME_FILE} is damaged or no checkpoint") as caught:
            TrainingRun.resume(tmp_path)
        assert "weights_only" not in "".join(traceback.format_exception(caught.value))


def test_a_resumed_run_has_the_threads_that_it_was_begun_with(tmp_path, caplog):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        started = TrainingRun.start(tmp_path, RECIPE)
        torch.set_num_threads(1)
        resumed, threads, step = TrainingRun.resume(tmp_path), [], started.trainer.step
        assert "goes on with the 2 threads it was begun with, not 1" in caplog.text
        resumed.train(stop_at=2, progress=lambda row: threads.append(torch.get_num_threads()))
        assert (threads, torch.get_num_threads(), step) == ([2, 2], 1, started.trainer.step)
    finally:
        torch.set_num_threads(before)


HOLDER = """
import sys, time
from air_agents.training.run import TrainingRun
run = TrainingRun.resume(sys.argv[1])
run.train(progress=lambda row: (print("training", flush=True), time.sleep(60)))
"""


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path):
    directory = tmp_path / "run"
    first = TrainingRun.start(directory, RECIPE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"training\n"
        for attempt in (first.train, first.finish, lambda: TrainingRun.resume(directory, max_steps=20)):
            with pytest.raises(BlockingIOError, match=r"is being trained by another process; wait for it or stop it"):
                attempt()
    finally:
        holder.kill()
        holder.communicate()
    # The lock is gone with its process.
    TrainingRun.resume(directory).train()
    with pytest.raises(BlockingIOError, match=r"was trained on by another process; --resume it anew"):
        first.train()
    assert not list(directory.glob(".*"))


def test_what_killed_processes_left_over_is_removed_and_in_nobodys_way(tmp_path):
    directory = tmp_path / "run"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getpid()):
        (tmp_path / f".run.{process}.tmp" / "pictures").mkdir(parents=True)
    TrainingRun.start(directory, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    left = [f".{RESUME_FILE}.{gone.pid}.tmp", f"pictures/.a.png.{gone.pid}.tmp", f".{AGENT_FILE}.{os.getpid()}.tmp"]
    others = [f".{RESUME_FILE}.{os.getppid()}.tmp", ".notes.tmp"]
    for name in (*left, *others):
        (directory / name).write_text("half")
    TrainingRun.resume(directory).train(stop_at=1)
    assert {name for name in (*left, *others) if (directory / name).exists()} == set(others)


def test_damaged_notes_of_a_job_are_refused_by_name(tmp_path):
    job = Job(tmp_path / "tiny-0", RECIPE)
    TrainingRun.start(job.directory, RECIPE)
    for name, read in (
        (FAILED_FILE, lambda: job.status),
        (MACHINE_FILE, job.machine),
        (EVALUATION_FILE, job.evaluation),
    ):
        for content in ("{", "[]", "[" * 100_000, "\0"):
            (job.directory / name).write_text(content)
            with pytest.raises(ValueError, match=rf"{name} is damaged .*delete it"):
                read()
        (job.directory / name).unlink()
    (job.directory / AGENT_FILE).write_bytes((job.directory / AGENT_FILE).read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{AGENT_FILE} is damaged"):
        job.fingerprint()
    (job.directory / AGENT_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        job.fingerprint()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_in_the_place_of_a_checkpoint_is_not_executed(tmp_path, zipped):
    TrainingRun.start(tmp_path / "run", RECIPE)
    bomb = {"trainer": Bomb(tmp_path / "boom"), "minutes": 0.0, "rows": []}
    torch.save(bomb, tmp_path / "run" / RESUME_FILE, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="cannot be resumed") as caught:
        TrainingRun.resume(tmp_path / "run")
    assert not (tmp_path / "boom").exists()
    # Torch's own message explains how to load the file nevertheless.
    assert "weights_only" not in str(caught.value)


def test_a_full_disk_is_a_clear_error_and_leaves_the_last_checkpoint(tmp_path):
    directory = tmp_path / "run"
    TrainingRun.start(directory, RECIPE).train(stop_at=4)
    saved = TrainingRun.resume(directory).trainer.state_dict()
    before = {name: (directory / name).read_bytes() for name in (RESUME_FILE, AGENT_FILE)}
    started = TrainingRun.resume(directory)
    with small_disk(5_000), pytest.raises(OSError, match=r"could not write .*free some space"):
        started.train(stop_at=8)
    assert {name: (directory / name).read_bytes() for name in before} == before
    assert not list(directory.glob(".*"))
    assert_equal(TrainingRun.resume(directory).trainer.state_dict(), saved)
    load_agent(directory)


@pytest.mark.parametrize("failing", ["torch.save", "pathlib.Path.write_bytes", "pathlib.Path.replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch, failing):
    started = TrainingRun.start(tmp_path / "run", RECIPE)
    saved = {name: value.clone() for name, value in load_agent(tmp_path / "run").state_dict().items()}

    def fail(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(OSError, match=r"could not write .*Read-only file system.*make the folder writable"):
            started.train(stop_at=2)
    assert_equal(dict(load_agent(tmp_path / "run").state_dict()), saved)
    TrainingRun.resume(tmp_path / "run").train()


def test_a_run_directory_that_cannot_be_made_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"could not make the run directory .*choose another --output-dir"):
        TrainingRun.start(tmp_path / "file" / "run", RECIPE)

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match=r"could not make the run directory .*Permission denied.*choose another"):
        TrainingRun.start(tmp_path / "run", RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_cannot_begin_on_a_full_disk_leaves_nothing(tmp_path):
    with small_disk(5_000), pytest.raises(OSError, match="could not make the run directory"):
        TrainingRun.start(tmp_path / "run", RECIPE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("iteration", [5, 8, 11], ids=["between rows", "before a row", "after the last row"])
def test_divergence_names_the_iteration_and_leaves_a_good_checkpoint(tmp_path, iteration):
    directory = tmp_path / "run"
    started = TrainingRun.start(directory, replace(RECIPE, max_steps=11))
    started.train(stop_at=4)
    poison(started.trainer, iteration)
    with pytest.raises(
        FloatingPointError, match=r"iteration (8|12|11) with estimator half_critic: .*diverged.*lower the learning rate"
    ):
        started.train()
    assert all(value.isfinite().all() for value in load_agent(directory).state_dict().values())
    assert TrainingRun.resume(directory).trainer.iteration == 4


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from air_agents import load_agent
from air_agents.training.run import TrainingRun
from air_env.scenes.digits import load_digits
from tiny import RECIPE
from dataclasses import replace

# Once, not in every child.
load_digits("train"), load_digits("test")
TrainingRun.save_every = 0.0
recipe = replace(RECIPE, max_steps=100_000, evaluate_every=1, num_validation=4, num_pictured=1)
directory, rng, found = Path(sys.argv[1]), random.Random(0), []

def wait_for(condition):
    while not condition():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.001)

for kill in range(6):
    child = os.fork()
    if child == 0:
        (TrainingRun.resume(directory) if directory.exists() else TrainingRun.start(directory, recipe)).train()
        os._exit(1)
    if kill > 1:
        # The later kills find a run that has saved something.
        before = directory.exists() and (directory / "resume.pt").stat().st_mtime_ns
        wait_for(lambda: directory.exists() and (directory / "resume.pt").stat().st_mtime_ns != before)
    time.sleep(rng.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "it ended by itself"
    if directory.exists():
        agent = load_agent(directory)
        assert all(value.isfinite().all() for value in agent.state_dict().values())
        found.append(TrainingRun.resume(directory).trainer.iteration)
print(found)
"""


def test_a_killed_run_can_be_used_and_resumed_or_was_never_there(tmp_path):
    tests = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(tests)]
    environment = os.environ | {"PYTHONPATH": str(tests.parent), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    iterations = json.loads(result.stdout)
    assert len(iterations) >= 4
    assert iterations == sorted(iterations)
    assert iterations[-1] > 0
