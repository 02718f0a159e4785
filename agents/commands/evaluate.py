"""Measures a trained agent on held-out scenes, made of objects that no agent was trained on.

    air-env evaluate digits
    air-env evaluate runs/multi_mnist-half_critic-0 --counts 3 4 --num-steps 6
    air-env evaluate runs/multi_mnist-half_critic-0 --difficulty touching --by distance size overlap number
    air-env evaluate runs/multi_mnist-half_critic-0 --json

The table and the JSON hold the metrics of `air_agents.evaluation.metrics.evaluate`; of a policy of Stable-Baselines3
those of `air_agents.sb3.evaluate_policy`, which has no bounds. `--by` adds tables of count accuracy, with exact 95 %
intervals: by the distance of the two nearest centres, the size of the smallest object, the largest overlap of two boxes
and the number of objects. Among more objects some are nearer and smaller: `--counts 2` keeps that apart. With
`--output-dir` the tables are written as breakdown_SCENE.md, .csv and .png, too.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import terminal
from .training import short

if TYPE_CHECKING:
    import pandas as pd

Metrics = Mapping[str, float | str | None]

_LINES = (
    ("explained share", "explained"),
    ("mean count", "mean_count"),
    ("count accuracy", "count_accuracy"),
    ("  of scenes not empty", "count_accuracy_nonempty"),
    ("  of sampled counts", "count_accuracy_sampled"),
    ("identity accuracy", "identity_accuracy"),
    ("identity agreement", "identity_agreement"),
    ("  of the originals", "identity_agreement_originals"),
    ("position error", "position_error"),
    ("rotation error", "rotation_error"),
    ("  of cubes", "rotation_error_cube"),
    ("  of cylinders", "rotation_error_cylinder"),
    ("box IoU, tight", "box_iou_tight"),
    ("  median", "box_iou_tight_median"),
    ("  of square windows", "box_iou"),
    ("return", "return"),
    ("ELBO", "elbo"),
    ("  log p(x | z)", "log_likelihood"),
    ("  KL of z_where", "kl_where"),
    ("  KL of z_what", "kl_what"),
    ("  KL of the count", "kl_count"),
    ("IWAE bound", "iwae"),
)


@dataclass(frozen=True)
class Arguments:
    """Measures a trained agent on held-out scenes."""

    agent: terminal.AgentName
    scene: str | None = None
    """digits, multi_mnist, ..., or path.py:my_scene; default: the scene and the options of training."""
    num_scenes: int = 5_000
    """Number of scenes."""
    seed: int | None = None
    """Decides the scenes and all samples; default: one more than the seed of training, as at its end."""
    num_samples: int = 20
    """Samples of the importance-weighted bound (IWAE)."""
    counts: tuple[int, ...] | None = None
    """Numbers of objects, equally probable; default: the scene's."""
    difficulty: str | None = None
    """How objects are sized and placed, in scenes of digits or sprites: published, small, touching, close, overlapping,
    or path.py:MINE; default: as in training."""
    by: tuple[str, ...] = ()
    """Breaks count accuracy down by distance, size, overlap or number, one or several; default: does not."""
    num_steps: int | None = None
    """Largest number of objects that the agent may infer; default: that of training."""
    json: bool = False
    """Prints one JSON object instead of the tables; it is flat, but for the rows of --by."""
    output_dir: Path | None = None
    """Folder to write evaluation_SCENE.json and the files of --by to; default: writes nothing."""
    machine: terminal.OnMachine = terminal.MACHINE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env evaluate`; returns the exit status."""
    return terminal.run("evaluate", Arguments, report, __doc__, argv)


def report(arguments: Arguments) -> None:
    """Measures, prints, and writes where that is asked for."""
    metrics, rows = measure(arguments)
    everything = metrics if rows is None else {**metrics, "breakdown": rows.to_dict("records")}
    text = json.dumps(everything, indent=2, allow_nan=False)
    if arguments.json:
        print(text)
    else:
        print(table(metrics))
        if rows is not None:
            from ..pages import breakdown

            print("\n" + breakdown.tables(rows))
    if arguments.output_dir is not None:
        written = "\n".join(f"wrote {path}" for path in write(arguments.output_dir, metrics, rows, text))
        print(f"\n{written}", file=sys.stderr)


def measure(arguments: Arguments) -> "tuple[Metrics, pd.DataFrame | None]":
    """The metrics of `evaluate`, then what was measured; undefined ones are None. And the breakdown, if any."""
    terminal.at_least(
        1, num_scenes=arguments.num_scenes, num_samples=arguments.num_samples, num_steps=arguments.num_steps
    )
    terminal.at_least(0, seed=arguments.seed)

    import torch

    from air_env.scenes import make_scene

    from ..evaluation.metrics import evaluate
    from ..inference.agent import Agent
    from ..jobs.devices import pick_device
    from ..pages.breakdown import PROPERTIES, breakdown
    from ..training.readers import find_reader
    from .trained import load_trained, scene_of_trained

    for by in arguments.by:
        PROPERTIES.find(by)
    device = pick_device(arguments.machine.device)
    agent = load_trained(arguments.agent, device, arguments.machine.data_dir)
    if arguments.num_steps is not None:
        agent = agent.with_num_steps(arguments.num_steps)
    name, options, seed = scene_of_trained(arguments.agent, agent, arguments.scene)
    scene = make_scene(name, data_dir=arguments.machine.data_dir, **changed(options, arguments))
    seed = seed + 1 if arguments.seed is None else arguments.seed
    with terminal.news(), terminal.progress_bar(arguments.num_scenes, "scene", delay=1) as bar:
        scenes = scene.dataset("test", arguments.num_scenes, seed)
        if isinstance(agent, Agent):
            generator, samples = torch.Generator(device).manual_seed(seed), {"num_samples": arguments.num_samples}
            reader = find_reader(agent.model, scene)
            metrics = evaluate(agent, scenes, generator=generator, reader=reader, progress=bar.update, **samples)
        else:
            # It has no bounds: nobody knows its posterior.
            metrics, samples = agent.evaluate(scenes, seed=seed, progress=bar.update), {}
    difficulty = {} if arguments.difficulty is None else {"difficulty": arguments.difficulty}
    setting = {"scene": name, **difficulty, "num_scenes": len(scenes), "seed": seed, **samples}
    metrics = {name: value if math.isfinite(value) else None for name, value in metrics.items()} | setting
    return metrics, breakdown(agent, scenes, arguments.by) if arguments.by else None


def changed(options: Mapping[str, object], arguments: Arguments) -> dict[str, object]:
    """The scene's options in training, with what is asked for here: a difficulty replaces all that it may decide."""
    from air_env.scenes.arrangement import arrangement_options

    options = dict(options)
    if arguments.difficulty is not None:
        options = {name: value for name, value in options.items() if name not in arrangement_options()}
        options["difficulty"] = arguments.difficulty
    if arguments.counts is not None:
        options["counts"] = arguments.counts
    return options


def write(folder: Path, metrics: Metrics, rows: "pd.DataFrame | None", text: str) -> list[Path]:
    """Writes the JSON, and where there is a breakdown its page with table and picture; returns their paths."""
    from ..training.files import write_text_atomically

    name = "_".join(short(str(metrics[part])) for part in ("scene", "difficulty") if part in metrics)
    path = folder / f"evaluation_{name}.json"
    write_text_atomically(path, text + "\n")
    if rows is None:
        return [path]
    from ..pages import Page, breakdown

    page = Page(folder, f"breakdown_{name}")
    page.add(f"# {name}", summary(metrics), breakdown.tables(rows))
    page.add_table(rows)
    page.add_picture("", breakdown.panels(rows), "Count accuracy with 95 % intervals; numbers of scenes in grey")
    return [path, *page.write()]


def summary(metrics: Metrics) -> str:
    """What was measured on."""
    difficulty = f", {metrics['difficulty']}" if "difficulty" in metrics else ""
    unknown = "" if "count_accuracy" in metrics else "; there is no truth about them, so there are no accuracies"
    return (
        f"{metrics['num_scenes']:,} held-out scenes of {metrics['scene']}{difficulty}, seed {metrics['seed']}{unknown}"
    )


def table(metrics: Metrics) -> str:
    """The metrics as lines of text."""
    radians = dict.fromkeys((name for _, name in _LINES if name.startswith("rotation")), "rad")
    units = radians | {"return": "nats", "elbo": "nats", "iwae": f"nats, {metrics.get('num_samples')} samples"}
    lines = [summary(metrics), ""]
    for label, name in _LINES:
        if name in metrics:
            lines.append(f"{label:24s}{number(metrics[name]):>10s}  {units.get(name, '')}".rstrip())
    return "\n".join([*lines, *confusion_grid(metrics)])


def confusion_grid(metrics: Metrics) -> Iterator[str]:
    """One line for each true count: the shares of its scenes that were counted as 0, 1, 2, ...; none if unknown."""
    cells = {tuple(map(int, name.split("_")[1:])): metrics[name] for name in metrics if name.startswith("confusion_")}
    cells |= {(i, i): metrics[f"count_accuracy_{i}"] for i, _ in cells}
    # More objects than N are never counted as so many: of these there are no confusions.
    columns = sorted({j for _, j in cells})
    if not cells:
        return
    yield ""
    yield "true count | counted as" + "".join(f"{j:8d}" for j in columns)
    for i in sorted({i for i, _ in cells}):
        yield f"{i:10d} |{'':11s}" + "".join(f"{number(cells.get((i, j), 0.0)):>8s}" for j in columns)


def number(value: float | str | None) -> str:
    """A metric with as many digits as mean something."""
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
