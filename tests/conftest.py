"""Settings of the test session: one thread, shapes checked against their annotations, no chance in hypothesis.

The packages must not be imported here, or their annotations would go unchecked; tiny models are in `tiny`.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from beartype import beartype
from data_files import data_dir_of
from hypothesis import settings
from jaxtyping import AbstractArray, install_import_hook

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in background jobs of a shell, whose children ignore it, too; tests interrupt commands by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("air", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("air")


def check_shapes(function: Any) -> Any:
    """Checks the tensors that a function takes and returns, but not whether an int was given for a float."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _holds_array(hint)}
    return beartype(function)


def _holds_array(hint: Any) -> bool:
    is_array = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return is_array or any(_holds_array(part) for part in get_args(hint))


install_import_hook(["air_env", "air_agents"], "conftest.check_shapes")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips the tests of OpenGL where there is none, or fails them where there has to be (`.ci/run` says so)."""
    if item.get_closest_marker("opengl") is not None:
        from air_env.renderers.backends import why_no_opengl

        if (reason := why_no_opengl()) is not None:
            (pytest.fail if os.environ.get("AIR_ENV_REQUIRE_OPENGL") else pytest.skip)(reason)


@pytest.fixture
def air_env_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the entry point as the command line does; returns its exit status, standard output and errors."""
    from air_agents.commands.main import main

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # of --help and of wrong usage
            status = int(exit_.code or 0)
        return status, *capsys.readouterr()

    yield run
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where the MNIST files are; the test is skipped if they are not there."""
    folder = data_dir_of("multi_mnist")
    assert folder is not None
    return folder


@pytest.fixture
def no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets AIR_DATA_DIR and refuses downloads, so that no test depends on the machine or the network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("tests do not download")

    monkeypatch.delenv("AIR_DATA_DIR", raising=False)
    monkeypatch.setattr("pooch.retrieve", refuse)
