"""Agents on disk: exact, atomic, and wary of what a person hands in."""

import json
import math
import os
import pickle
import re
import resource
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import RECIPE, SIDE, assert_equal, make_agent, make_images

from air_agents import AIR, load_agent, save_agent
from air_agents.inference.cores import CORES
from air_agents.training.checkpoints import AGENT_FILE, load_recipe
from air_agents.training.files import read_json, write_atomically, write_results
from air_agents.training.weights import read_tensors
from air_env.likelihoods import LIKELIHOODS
from air_env.priors import CountPrior


class Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@contextmanager
def small_disk(num_bytes: int):
    """No file may grow beyond this, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def agent() -> AIR:
    return make_agent().float()


@pytest.fixture
def path(agent, tmp_path) -> Path:
    path = tmp_path / AGENT_FILE
    save_agent(agent, path, RECIPE)
    return path


@pytest.mark.parametrize(("likelihood", "core"), [*product(LIKELIHOODS, ["air"]), *product(["gaussian"], CORES)])
def test_an_agent_survives_the_disk_bit_for_bit(likelihood, core, tmp_path):
    agent = make_agent(core=core, likelihood=likelihood, count_prior=CountPrior("binomial", 0.3)).float()
    save_agent(agent, tmp_path / AGENT_FILE, RECIPE)
    loaded = load_agent(tmp_path)
    assert (loaded.config, loaded.model.config) == (agent.config, agent.model.config)
    assert_equal(dict(loaded.state_dict()), dict(agent.state_dict()))
    images = make_images(20)
    for name in ("z_pres", "z_where", "z_what", "reconstruction"):
        assert_equal(getattr(loaded.explain(images), name), getattr(agent.explain(images), name))


def test_a_loaded_agent_is_for_use_and_knows_its_recipe(path):
    assert not load_agent(path).training
    recipe = load_recipe(path.parent)
    assert (recipe.scene, recipe.model, recipe.agent) == (RECIPE.scene, RECIPE.model, RECIPE.agent)


def test_a_loaded_agent_has_the_final_count_prior(tmp_path):
    prior = CountPrior("geometric", 1e-4, initial_parameter=0.5, anneal_steps=10)
    agent = make_agent(count_prior=prior).float()
    agent.model.anneal(0)
    save_agent(agent, tmp_path / AGENT_FILE)
    assert_equal(load_agent(tmp_path).model.log_p_count, prior.log_p(3).float())


def test_an_agent_that_does_not_exist_is_answered_with_what_to_name(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere", "digitz"):
        with pytest.raises(FileNotFoundError, match=rf"no agent at .*run directory .*{AGENT_FILE}.*shipped agent"):
            load_agent(source)


def test_an_agent_without_a_recipe_says_so(agent, tmp_path):
    save_agent(agent, tmp_path / AGENT_FILE)
    with pytest.raises(ValueError, match="does not say by which recipe"):
        load_recipe(tmp_path)


def test_truncated_agents_and_files_of_other_kinds_are_refused(path):
    whole = path.read_bytes()
    truncated = [whole[: int(share * len(whole))] for share in (0, 0.001, 0.3, 0.9, 0.9999)]
    for content in (*truncated, b"not an agent", b"\xff" * 1000, b"\x00" * 8):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged or not a safetensors .*train it"):
            load_agent(path)


def test_foreign_tensors_are_refused(path):
    for metadata in (None, {}, {"format": "pt"}, {"format": "air-env agent 999", "config": "{}"}):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        with pytest.raises(ValueError, match="is none of this package"):
            load_agent(path)


def test_an_agent_of_another_version_is_refused(agent, path):
    for config in (
        None,
        "{",
        "[]",
        "{}",
        '{"scene": {}, "agent": {}}',
        '{"scene": {"likelihood": "cauchy"}, "agent": {}}',
        '{"scene": {"image_size": "large"}, "agent": {}}',
        '{"scene": {"future_setting": 1}, "agent": {}}',
        '{"scene": 3, "agent": {}}',
    ):
        metadata = {"format": "air-env agent 1"} | ({} if config is None else {"config": config})
        save_file(dict(agent.state_dict()), path, metadata)
        with pytest.raises(ValueError, match=r"(?s)does not fit this version of the package .*train it again"):
            load_agent(path)


def test_a_recipe_of_another_version_is_refused(agent, path):
    for recipe in ("{", "[]", "{}", '{"scene": "digits", "max_steps": 1, "future_setting": 1}'):
        save_file(dict(agent.state_dict()), path, {"format": "air-env agent 1", "recipe": recipe})
        with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))} does not fit .*must be installed"):
            load_recipe(path)


def test_a_pickle_in_the_place_of_an_agent_is_not_executed(path, tmp_path):
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        load_agent(path)
    torch.save(Bomb(tmp_path / "boom"), path)
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        load_agent(path)
    assert not (tmp_path / "boom").exists()


def test_a_full_disk_leaves_the_last_agent_and_says_what_to_do(agent, path):
    before = path.read_bytes()
    with small_disk(1000), pytest.raises(OSError, match=r"could not write .*free some space.*is untouched"):
        save_agent(agent, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [AGENT_FILE]


def test_a_folder_that_cannot_be_written_is_a_clear_error(agent, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"could not write .*make the folder writable"):
        save_agent(agent, tmp_path / "file" / AGENT_FILE)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("enforce fail")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="could not write"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_metadata_of_an_agent_are_readable_without_this_package(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config["scene"]["image_size"] == SIDE


def as_before_checksums(path: Path, changes: dict[str, object], **tensors: torch.Tensor) -> None:
    """The file as older versions wrote it, with changed settings of the agent and changed tensors."""
    metadata, state = read_tensors(path)
    config = json.loads(metadata["config"])
    for name, value in changes.items():
        part, setting = name.split(".")
        config[part][setting] = value
    save_file(state | tensors, path, metadata | {"format": "air-env agent 1", "config": json.dumps(config)})


def test_agents_from_before_there_were_checksums_are_loaded(agent, path):
    as_before_checksums(path, {})
    assert_equal(dict(load_agent(path).state_dict()), dict(agent.state_dict()))
    assert load_recipe(path).scene == RECIPE.scene


def test_a_single_bit_that_changed_is_noticed(path):
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    seal = whole.index(b"sha256")
    for position in (0, 9, seal, seal + 5, seal + 7, seal + 70, header - 1, header, len(whole) - 1):
        for bit in (1, 2, 64):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is (damaged|none of this package)"):
                load_agent(path)


def test_weights_that_are_no_finite_numbers_of_the_agents_type_are_refused(agent, path):
    own = agent.state_dict()["presence.weight"]
    for wrong, message in (
        (torch.full_like(own, math.nan), "presence.weight is not finite"),
        (torch.full_like(own, -math.inf), "presence.weight is not finite"),
        (own.half(), r"must be of type torch.float32, got torch.float16"),
        (own.double(), r"must be of type torch.float32, got torch.float64"),
        (own.int(), r"must be of type torch.float32, got torch.int32"),
    ):
        as_before_checksums(path, {}, **{"presence.weight": wrong})
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))} does not fit .*{message}.*train it again"):
            load_agent(path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("agent.hidden", 30_000),
        ("agent.embedding", 10**9),
        ("agent.glimpse_size", 10**5),
        ("agent.hidden", 10**30),
        ("scene.num_steps", 10**7),
        ("scene.image_size", 10**6),
    ],
)
def test_an_agent_that_asks_for_gigabytes_is_refused_before_it_gets_them(path, setting, value):
    as_before_checksums(path, {setting: value})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))} does not fit .*train it again"):
        load_agent(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_json_that_is_nested_too_deeply_is_refused_by_name(tmp_path, path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is damaged"):
        read_json(tmp_path / "deep.json")
    nested: dict[str, object] = {}
    for _ in range(500):
        nested = {"scene": nested}
    metadata, state = read_tensors(path)
    for config in ("[" * 100_000, json.dumps(nested)):
        save_file(state, path, metadata | {"format": "air-env agent 1", "config": config})
        with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))} does not fit"):
            load_agent(path)


def test_results_have_a_checksum_and_older_ones_have_none(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, {"accuracy": 0.5})
    assert read_json(path) == {"accuracy": 0.5}
    path.write_text(path.read_text().replace("0.5", "0.7"))
    with pytest.raises(ValueError, match=r"results\.json is damaged .*does not match its checksum.*delete it"):
        read_json(path)
    path.write_text('{"accuracy": 0.7}')
    assert read_json(path) == {"accuracy": 0.7}
    for content in ("[]", "", '{"checksum": 1}', "\xff"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"results\.json is damaged"):
            read_json(path)
