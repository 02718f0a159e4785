"""What `train` and `train-sb3` share: every setting as an argument, runs that are begun or continued, their bars."""

import inspect
import re
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar, cast, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from . import shell, terminal

if TYPE_CHECKING:
    from ..training.run import TrainingRun
    from ..training.settings import TrainingSettings

_OWN = re.compile(r"((?:--[\w.-]+=)?(?:\w+=)?)([^=]+\.py)(:\w+)")
"""Something in a file of one's own: path.py:X, name=path.py:X, --flag=path.py:X."""


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """What is asked of a run, beside its settings."""

    output_dir: Path | None = None
    """The run directory to make; default: a folder of runs/ named after the settings."""
    resume: Path | None = None
    """Continues the run in this directory, with its own settings; --max-steps extends it; default: begins one."""
    config: Path | None = None
    """Repeats a run: takes all settings from its config.json; default: those of the recipe."""
    max_minutes: float | None = None
    """Stops training after so many minutes; default: none, and for a resumed run its own."""
    evaluation: bool = True
    """Whether the finished run is measured on test scenes."""
    machine: terminal.OnMachine = terminal.MACHINE


A = TypeVar("A", bound=RunArguments)


@dataclass(frozen=True)
class Command(Generic[A]):
    """A command line that takes all settings of a run."""

    name: str
    """The command."""
    description: str | None
    """Text of ``--help``."""
    arguments: type[A]
    """What is asked beside the settings."""
    common: type[A]
    """The same, with the settings that are often changed: what ``--help`` shows unless it is asked for all."""
    find: "Callable[[Namespace], TrainingSettings]"
    """The settings to change, from those arguments that decide which these are: recipe, algorithm."""

    def parse(self, argv: Sequence[str] | None) -> tuple[A, "TrainingSettings | None"]:
        """The arguments and the settings; None where a run is resumed, or there is something else to do.

        Raises:
            ValueError: The settings are unknown, or are not those of the run to be resumed.
        """
        # Absolute paths are found wherever the run is continued.
        argv = [_OWN.sub(_absolute, text) for text in (sys.argv[1:] if argv is None else argv)]
        first = _first(argv)
        asked = not argv or (first.recipe or first.config or first.algorithm) is not None
        if first.resume is not None or first.list or ({"-h", "--help"} & set(argv) and not asked):
            arguments, others = tyro.cli(
                self.common,
                prog=f"air-env {self.name}",
                description=terminal.examples(self.description),
                args=argv,
                return_unknown_args=True,
                registry=terminal.tidy_registry(),
                config=terminal.PLAIN,
            )
            if first.resume is not None:
                self._refuse_changes(arguments, others)
            return arguments, None
        arguments, settings = self._parse_all(first, argv)
        later = getattr(arguments, "recipe", None)
        if later not in (None, first.recipe):
            # It came after other arguments.
            first.recipe = later
            return self._parse_all(first, argv)
        return arguments, settings

    def _parse_all(self, first: Namespace, argv: Sequence[str]) -> tuple[A, "TrainingSettings"]:
        from ..training.files import read_json
        from ..training.serialisation import from_json
        from ..training.settings import TrainingSettings

        if first.config is None:
            settings = self.find(first)
        else:
            settings = from_json(TrainingSettings, read_json(Path(first.config)))
        scene = first.scene or settings.scene
        # Its fields take no prefix: --seed, --model.num-steps.
        part = ("settings", Annotated[type(settings), tyro.conf.arg(name="")], field(default_factory=lambda: settings))
        both = make_dataclass(self.arguments.__name__, [part], bases=(self.arguments,), frozen=True, kw_only=True)
        registry = _scene_registry(scene, {} if scene == settings.scene else settings.scene_options)
        name = " ".join(filter(None, (self.name, first.recipe)))
        config = (tyro.conf.AvoidSubcommands,)
        parsed = terminal.parse(name, both, self.description, argv, registry, config)
        return cast(A, parsed), parsed.settings

    def _refuse_changes(self, arguments: A, others: Sequence[str]) -> None:
        allowed = {"resume", "max_minutes", "evaluation", "machine", "max_steps"}
        given = [f.name for f in fields(arguments) if getattr(arguments, f.name) != f.default]
        given = [name for name in given if name not in allowed]
        flags = [f"--{name.replace('_', '-')}" for name in given if name != "recipe"]
        flags += [other.partition("=")[0] for other in others if other.startswith("--")]
        if refused := (["RECIPE"] if "recipe" in given and not flags else []) + flags:
            raise ValueError(
                f"--resume continues a run with its own settings, and cannot change {', '.join(refused)}: leave it out"
            )


def _first(argv: Sequence[str]) -> Namespace:
    """What must be known before all arguments are."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--resume", "--config", "--scene", "--algorithm", "--data-dir", "--channels", "--invert"):
        parser.add_argument(name, nargs="?")
    parser.add_argument("--max-objects", type=int, nargs="?")
    parser.add_argument("--object-size", type=float, nargs="*")
    parser.add_argument("--list", action="store_true")
    first, _ = parser.parse_known_args(argv)
    first.recipe = argv[0] if argv and not argv[0].startswith("-") else None
    return first


def _absolute(match: re.Match[str]) -> str:
    return f"{match[1]}{Path(match[2]).expanduser().resolve()}{match[3]}"


def _scene_registry(scene: str, dropped: Mapping[str, object]) -> ConstructorRegistry:
    """Rules for tyro, by which the dict of scene options has the options of the scene as fields.

    Args:
        scene: Name of the scene.
        dropped: Options of another scene, which go where this one does not have them.
    """
    from air_env.scenes import SCENES, ComposedScene, scene_options

    known = {name: p for name, p in scene_options(scene).items() if name != "data_dir"}
    texts = "\n".join(inspect.getdoc(part) or "" for part in (ComposedScene, SCENES.find(scene)))
    helps = dict(re.findall(r"^\s+(\w+): (.+)", texts, re.MULTILINE))
    registry = terminal.tidy_registry(plain=False)

    @registry.struct_rule
    def options(info: StructTypeInfo) -> StructConstructorSpec | None:
        if get_origin(info.type) is not dict:
            return None
        own = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in info.default.items()
            if name in known or name not in dropped
        }
        if unknown := own.keys() - known.keys():
            raise ValueError(f"scene {scene!r} has no option {', '.join(unknown)}; choose from {', '.join(known)}")
        shown = {name: own.get(name, parameter.default) for name, parameter in known.items()}
        parts = [
            StructFieldSpec(name, parameter.annotation, shown[name], helps.get(name, ""))
            for name, parameter in known.items()
        ]

        def changed(**given: object) -> dict[str, object]:
            return own | {name: value for name, value in given.items() if value != shown[name]}

        return StructConstructorSpec(changed, tuple(parts))

    return registry


def execute(
    command: str,
    arguments: RunArguments,
    recipe: "TrainingSettings | None",
    name: str,
    printed: Sequence[str],
) -> None:
    """Begins a run, or continues one, with a progress bar; measures it, unless that is done, and prints what it is.

    Args:
        command: The command that continues the run.
        arguments: What is asked of the run.
        recipe: What to compute; None continues the run in ``arguments.resume``.
        name: What the run directory is called, before the seed, unless another one is asked for.
        printed: Metrics to print.
    """
    import torch

    from ..jobs.devices import pick_device
    from ..training.run import TrainingRun

    torch.set_flush_denormal(True)
    machine, max_minutes = arguments.machine, arguments.max_minutes
    device = None if machine.device == "auto" and recipe is None else pick_device(machine.device)
    if recipe is not None:
        directory = arguments.output_dir or Path("runs", f"{name}-{recipe.seed}")
        run = TrainingRun.start(
            directory, recipe, data_dir=machine.data_dir, device=device or "cpu", max_minutes=max_minutes
        )
    else:
        steps = getattr(arguments, "max_steps", None)
        run = TrainingRun.resume(
            arguments.resume or "", data_dir=machine.data_dir, device=device, max_minutes=max_minutes, max_steps=steps
        )
    data = [] if machine.data_dir is None else ["--data-dir", str(machine.data_dir)]
    again = shlex.join(["air-env", command, "--resume", str(run.directory), *data])
    with shell.continued_by(f"continue: {again}"):
        _train(run)
        metrics = _measured(run) if arguments.evaluation else None
    if metrics is not None:
        print(f"\ntest scenes, {run.minutes:.1f} minutes of training:")
        for metric in printed:
            if metric in metrics:
                print(f"  {metric:24s}{metrics[metric]:10.4f}")
    files = sorted(path.name + "/" * path.is_dir() for path in run.directory.iterdir() if path.name[0] != ".")
    print(f"\n{run.directory}/ holds {', '.join(files)}")


def _train(run: "TrainingRun") -> None:
    """Trains to the end, or to the iteration in which it is told to stop.

    Raises:
        KeyboardInterrupt: It was told to, and all is saved.
    """
    with terminal.progress_bar(run.recipe.max_steps, "it", initial=run.trainer.iteration) as bar:

        def show(row: Mapping[str, float]) -> None:
            bar.update(run.trainer.iteration - bar.n)
            digits = {run.trainer.objective: 1, "count_accuracy": 3, "explained": 3, "mean_count": 2}
            bar.set_postfix({n: f"{row[n]:.{d}f}" for n, d in digits.items() if n in row}, refresh=False)

        with shell.patient() as interrupted:
            run.train(interrupted=interrupted, progress=show)
        if interrupted():
            raise KeyboardInterrupt


def _measured(run: "TrainingRun") -> Mapping[str, float]:
    """The run's final metrics, which are measured unless they have been."""
    if (metrics := run.finished()) is not None:
        return metrics
    with terminal.news(), terminal.progress_bar(run.recipe.num_final, "scene", desc="evaluation") as bar:
        return run.finish(progress=bar.update)


def short(name: str) -> str:
    """The name of something for a folder: of ``mine=path.py:X`` mine, of ``path.py:X`` X."""
    return name.partition("=")[0] if "=" in name else name.rpartition(":")[2]
