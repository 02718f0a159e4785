"""Settings as JSON: each dataclass is an object, and members of a family carry their ``kind``.

    {"kind": "agent", "scene": "digits", "model": {"renderer": {"kind": "patch", ...}}, "agent": {"kind": "air", ...}}

A family is a base class of settings with a registry of its kinds. Whoever defines one adds it to `FAMILIES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, cast

import dacite

from air_env.registry import Registry
from air_env.renderers import RENDERERS, RendererSettings

from ..inference import AGENTS, AgentSettings
from .settings import Options, TrainingSettings

T = TypeVar("T")

RECIPE_KINDS: Registry[type[TrainingSettings]] = Registry("kind of run")
"""Kind -> class of recipes; `recipe_kind` also finds those that are not imported yet."""
_WHERE = {"agent": ".recipes", "comparison": "..comparisons", "sb3": "..sb3"}

FAMILIES: dict[type, Registry[Any]] = {
    RendererSettings: RENDERERS,
    AgentSettings: AGENTS,
    TrainingSettings: RECIPE_KINDS,
}
"""Base class of settings -> registry of its kinds."""


def to_json(settings: object) -> Any:
    """Plain JSON values of settings, which `from_json` reads."""
    if is_dataclass(settings):
        kind = {"kind": getattr(settings, "kind")} if isinstance(settings, tuple(FAMILIES)) else {}  # noqa: B009
        return kind | {field.name: to_json(getattr(settings, field.name)) for field in fields(settings)}
    if isinstance(settings, list | tuple):
        return [to_json(value) for value in settings]
    if isinstance(settings, Mapping):
        return {name: to_json(value) for name, value in settings.items()}
    return settings


def from_json(cls: type[T], values: object) -> T:
    """Settings from what `to_json`, or an older version of this package, made of them.

    Args:
        cls: Their class, or the base class of their family.
        values: The JSON values; lists become tuples.

    Raises:
        ValueError: The values do not fit.
    """
    try:
        if isinstance(values, dict):
            values = upgraded(values)
            if cls is TrainingSettings:
                recipe_kind(values.get("kind"))
        return _read(cls, values)
    except RecursionError as error:
        raise ValueError("settings are nested too deeply") from error


def recipe_kind(kind: object) -> type[TrainingSettings]:
    """The class of recipes of a kind.

    Raises:
        ValueError: There is none.
    """
    if (module := _WHERE.get(str(kind))) is not None:
        # By name: what trains comparisons or Stable-Baselines3 builds on this package, not the other way round.
        try:
            import_module(module, __package__)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"a run of kind {kind!r} needs {error.name}; install it: pip install 'air-env[{kind}]'"
            ) from error
    return RECIPE_KINDS.find(str(kind))


def upgraded(values: Options) -> Options:
    """Settings in today's form, of files from before settings said their kind, or by their former names.

    A kind is then the first whose settings have all the names that there are, as it was when the files were written.
    """
    values = {name: upgraded(value) if isinstance(value, dict) else value for name, value in values.items()}
    if "algorithm" in values and "total_steps" in values:
        steps = values.pop("total_steps")
        values |= {"kind": "sb3", "max_steps": steps, "evaluate_every": max(1, steps // 50), "num_validation": 500}
    elif "kind" not in values and "max_steps" in values:
        values["kind"] = "agent" if {"agent", "estimator"} & values.keys() else "comparison"
    if "num_test" in values and "max_steps" in values:
        values["num_validation"] = values.pop("num_test")
    families = {"renderer": RENDERERS, "agent": AGENTS}
    if values.get("kind") == "comparison":
        recipe_kind("comparison")
        families["model"] = next(known for known in FAMILIES.values() if known.noun == "comparison model")
    for name, registry in families.items():
        part = values.get(name)
        if isinstance(part, dict) and "kind" not in part:
            fitting = (kind for kind, cls in registry.items() if part.keys() <= {field.name for field in fields(cls)})
            values[name] = {"kind": next(fitting, None)} | part
    return values


def _read(cls: type[T], values: object) -> T:
    if not isinstance(values, dict):
        raise ValueError(f"settings must be a JSON object, got {values!r}")
    if cls in FAMILIES:
        known, kind = FAMILIES[cls], values.get("kind")
        if not isinstance(kind, str):
            raise ValueError(
                f"{known.noun} settings must name their kind, one of {', '.join(known.names())}; got {values}"
            )
        cls = cast(type[T], known.find(kind))
    if issubclass(cls, tuple(FAMILIES)):
        wanted, kind = getattr(cls, "kind"), values.get("kind")  # noqa: B009
        if kind not in (None, wanted):
            raise ValueError(f"settings must be of kind {wanted!r}, got {kind!r}")
        values = {name: value for name, value in values.items() if name != "kind"}
    members = {member for family, registry in FAMILIES.items() for member in (family, *registry.values())}
    hooks: dict[object, Callable[[object], object]] = {member: partial(_read, member) for member in members}
    if issubclass(cls, TrainingSettings):
        hooks[Options] = _tuples
    try:
        return dacite.from_dict(cls, values, dacite.Config(strict=True, cast=[tuple, float], type_hooks=hooks))  # type: ignore[type-var]
    except (dacite.DaciteError, TypeError, OverflowError) as error:
        raise ValueError(f"settings do not fit {cls.__name__}: {error}") from error


def _tuples(options: object) -> object:
    """Options with tuples in the place of lists, as options are written."""
    if isinstance(options, list):
        return tuple(_tuples(value) for value in options)
    return {name: _tuples(value) for name, value in options.items()} if isinstance(options, dict) else options
