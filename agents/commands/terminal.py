"""What commands share: parsing, checks of arguments, progress bars, settings of the machine.

A command imports torch and the packages in the functions that do its work, so that ``--help`` is quick and needs no
extra.
"""

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from .shell import SUCCESS, SettingsError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

A = TypeVar("A")

AgentName = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="AGENT",
        help="A run directory, also of train-sb3, a file of weights in it, or the name of a shipped agent (digits).",
    ),
]


PLAIN = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
"""How tyro shows plain arguments: None is no value to give, and switches have one name."""

Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, ...; auto takes a GPU if there is one.")]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a command finds data and computes."""

    data_dir: Path | None = None
    """Folder with the data files (mnist/...); default: AIR_DATA_DIR, else a cached download."""
    device: Device = "auto"


OnMachine = Annotated[Machine, tyro.conf.arg(name="")]
"""`Machine` as a part of a command's arguments, without a prefix; its default is `MACHINE`."""
MACHINE = Machine()


def run(
    name: str,
    arguments: "TypeForm[A]",
    work: Callable[[A], int | None],
    description: str | None,
    argv: Sequence[str] | None,
) -> int:
    """Runs a command.

    Args:
        name: The command's name.
        arguments: The dataclass, or the union of them, that its arguments fill.
        work: What it does; returns the exit status, or None for success.
        description: Text of ``--help`` above the arguments; lines that begin with a space stay lines.
        argv: The arguments; by default those of the process.

    Returns:
        The exit status.
    """
    return work(parse(name, arguments, description, argv)) or SUCCESS


def parse(
    name: str,
    arguments: "TypeForm[A]",
    description: str | None,
    argv: Sequence[str] | None,
    registry: ConstructorRegistry | None = None,
    config: tuple[object, ...] = PLAIN,
) -> A:
    """Parses a command's arguments; ``--help`` and wrong usage end the process."""
    return tyro.cli(
        arguments,
        prog=f"air-env {name}",
        description=examples(description),
        args=argv,
        registry=registry or tidy_registry(),
        config=config,
    )


def examples(description: str | None) -> str:
    """The text of ``--help``, with examples that tyro leaves on lines of their own."""
    return re.sub("^ +air-env", "    $ air-env", description or "", flags=re.MULTILINE)


def at_least(smallest: int, **values: int | None) -> None:
    """Checks arguments that have a smallest value.

    Raises:
        ValueError: One is smaller.
    """
    for name, value in values.items():
        if value is not None and value < smallest:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {smallest}, got {value}")


def require(extra: str, *modules: str, instead: str = "") -> None:
    """Checks that an extra is installed, before any work.

    Raises:
        ValueError: It is not.
    """
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        raise ValueError(
            f'{", ".join(missing)} is not installed; install the extra: pip install "air-env[{extra}]" '
            f'(in a checkout: pip install -e ".[{extra}]"){instead}'
        )


def progress_bar(total: float | None = None, unit: str = "it", **options) -> tqdm:
    """A progress bar as wide as the terminal."""
    return tqdm(total=total, unit=unit, dynamic_ncols=True, **options)


@contextmanager
def news() -> Iterator[None]:
    """What the agents' package says of its progress is told, above a progress bar if there is one."""
    logger = logging.getLogger("air_agents")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        logger.setLevel(level)


def tidy_registry(plain: bool = True) -> ConstructorRegistry:
    """Rules for tyro: help texts without the line breaks of docstrings, and errors of settings as `SettingsError`."""
    registry = ConstructorRegistry()
    inside: list[object] = []

    @registry.struct_rule
    def settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not is_dataclass(info.type) or info.type in inside:
            return None
        inside.append(info.type)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside.pop()
        if not isinstance(spec, StructConstructorSpec):
            return None
        return StructConstructorSpec(_refusing(spec.instantiate), tuple(_tidy(field, plain) for field in spec.fields))

    return registry


def _tidy(field: StructFieldSpec, plain: bool) -> StructFieldSpec:
    original = field.helptext() if callable(field.helptext) else field.helptext
    text = " ".join((original or "").split())
    # Where None is no value to give, "(default: None)" explains nothing.
    silent = field.default is None and (plain or "default:" in text)
    hint = tyro.conf.arg(help_behavior_hint="") if silent else None
    return replace(field, helptext=text or None, type=field.type if hint is None else Annotated[field.type, hint])


def _refusing(make: Callable[..., A]) -> Callable[..., A]:
    def instantiate(**values) -> A:
        try:
            return make(**values)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    return instantiate
