"""Registries: named things, to which plug-ins and files of one's own add others.

A registry is a dict. What it does not hold is looked for among plug-ins: installed distributions that name it in the
entry point group ``air_env.plugins``, as ``NOUN.NAME = module:attribute``. A plug-in is imported when something of it
is asked for by name, and not before:

    [project.entry-points."air_env.plugins"]
    "scene.rings" = "my_package.scene:rings"
    "estimator.midpoint" = "my_package.estimator:Midpoint"

A command line may also name something in a file, as ``path.py:attribute`` or ``name=path.py:attribute``.
"""

import hashlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

T = TypeVar("T")

PLUGINS = "air_env.plugins"
"""The entry point group of plug-ins."""


class Registry(dict[str, T]):
    """Name -> thing.

    Args:
        noun: What the things are, for error messages and entry points.
        entries: Those of this package.

    Example:
        >>> colours = Registry("colour", {"red": 0xFF0000})
        >>> colours["green"] = 0x00FF00
        >>> colours.find("blue")
        Traceback (most recent call last):
        ValueError: colour 'blue' is unknown; choose one of red, green
    """

    def __init__(self, noun: str, entries: dict[str, T] | None = None) -> None:
        super().__init__(entries or {})
        self.noun = noun

    def find(self, name: str) -> T:
        """The thing of a name: registered here, by a plug-in, or to be found in a file.

        Args:
            name: A registered name, ``path.py:attribute`` or ``name=path.py:attribute``.

        Raises:
            ValueError: There is none; the message lists the names there are. Or the plug-in or the file is broken.
        """
        if not isinstance(name, str):
            raise ValueError(f"{self.noun} must be a name, one of {', '.join(self.names())}; got {name!r}")
        if name not in self:
            if (plugin := _plugins(self.noun).get(name)) is not None:
                self[name] = cast(T, _from_plugin(self.noun, plugin))
            elif ".py:" in name:
                self[name] = cast(T, _from_file(self.noun, name))
            else:
                raise ValueError(f"{self.noun} {name!r} is unknown; choose one of {', '.join(self.names())}")
        return self[name]

    def names(self) -> tuple[str, ...]:
        """All names, with those of plug-ins, which are not imported for it."""
        return tuple(dict.fromkeys([*self, *_plugins(self.noun)]))


@cache
def _plugins(noun: str) -> dict[str, EntryPoint]:
    """Name -> entry point of what plug-ins call so."""
    prefix, found = f"{noun.replace(' ', '_')}.", {}
    for plugin in entry_points(group=PLUGINS):
        if plugin.name.startswith(prefix):
            found.setdefault(plugin.name.removeprefix(prefix), plugin)
    return found


def _from_plugin(noun: str, plugin: EntryPoint) -> object:
    try:
        return plugin.load()
    except Exception as error:
        package = "" if plugin.dist is None else f" of {plugin.dist.name}"
        raise ValueError(
            f"{noun}: the plug-in {plugin.value}{package} cannot be imported ({error!r}); correct or uninstall it"
        ) from error


def _from_file(noun: str, name: str) -> object:
    file, _, attribute = name.partition("=")[2].rpartition(":") if "=" in name else name.rpartition(":")
    module = load_file(Path(file).expanduser().resolve(), noun)
    if not hasattr(module, attribute):
        raise ValueError(f"{noun} {name!r}: {file} defines no {attribute}; check the name")
    return getattr(module, attribute)


def load_file(path: Path, noun: str = "file") -> ModuleType:
    """Imports a Python file by its path, once a process.

    Raises:
        ValueError: There is no such file, or it cannot be imported.
    """
    # A name that no other module has: dataclasses and pickle look modules up by it.
    name = f"_air_env_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        # Perhaps half-way: a file may name what it has defined above.
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{noun}: there is no Python file {path}; check the path")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{noun}: {path} cannot be imported ({error!r}); correct it") from error
    return module
