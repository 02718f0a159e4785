"""Measures a trained agent on held-out scenes, made of objects that no agent was trained on.

    air-env evaluate digits
    air-env evaluate runs/multi_mnist-half_critic-0 --counts 3 4 --num-steps 6
    air-env evaluate runs/multi_mnist-half_critic-0 --json

The table and the JSON hold the metrics of `air_agents.evaluation.metrics.evaluate`; of a policy of Stable-Baselines3
those of `air_agents.sb3.evaluate_policy`, which has no bounds.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import terminal

Metrics = Mapping[str, float | str | None]

_LINES = (
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
    num_steps: int | None = None
    """Largest number of objects that the agent may infer; default: that of training."""
    json: bool = False
    """Prints one flat JSON object instead of the table."""
    output_dir: Path | None = None
    """Folder to write evaluation_SCENE.json to; default: writes nothing."""
    machine: terminal.OnMachine = terminal.MACHINE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env evaluate`; returns the exit status."""
    return terminal.run("evaluate", Arguments, report, __doc__, argv)


def report(arguments: Arguments) -> None:
    """Measures, prints, and writes where that is asked for."""
    metrics = measure(arguments)
    text = json.dumps(metrics, indent=2, allow_nan=False)
    print(text if arguments.json else table(metrics))
    if arguments.output_dir is not None:
        from ..training.files import write_text_atomically

        path = arguments.output_dir / f"evaluation_{metrics['scene']}.json"
        write_text_atomically(path, text + "\n")
        print(f"\nwrote {path}", file=sys.stderr)


def measure(arguments: Arguments) -> Metrics:
    """The metrics of `evaluate`, then what was measured; undefined ones are None."""
    terminal.at_least(
        1, num_scenes=arguments.num_scenes, num_samples=arguments.num_samples, num_steps=arguments.num_steps
    )
    terminal.at_least(0, seed=arguments.seed)

    import torch

    from air_env.scenes import make_scene

    from ..evaluation.metrics import evaluate
    from ..inference.agent import Agent
    from ..jobs.devices import pick_device
    from ..training.readers import find_reader
    from .trained import load_trained, scene_of_trained

    device = pick_device(arguments.machine.device)
    agent = load_trained(arguments.agent, device, arguments.machine.data_dir)
    if arguments.num_steps is not None:
        agent = agent.with_num_steps(arguments.num_steps)
    name, options, seed = scene_of_trained(arguments.agent, agent, arguments.scene)
    if arguments.counts is not None:
        options["counts"] = arguments.counts
    seed = seed + 1 if arguments.seed is None else arguments.seed
    scene = make_scene(name, data_dir=arguments.machine.data_dir, **options)
    with terminal.news(), terminal.progress_bar(arguments.num_scenes, "scene", delay=1) as bar:
        scenes = scene.dataset("test", arguments.num_scenes, seed)
        if isinstance(agent, Agent):
            generator, samples = torch.Generator(device).manual_seed(seed), {"num_samples": arguments.num_samples}
            reader = find_reader(agent.model, scene)
            metrics = evaluate(agent, scenes, generator=generator, reader=reader, progress=bar.update, **samples)
        else:
            # It has no bounds: nobody knows its posterior.
            metrics, samples = agent.evaluate(scenes, seed=seed, progress=bar.update), {}
    setting = {"scene": name, "num_scenes": len(scenes), "seed": seed, **samples}
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()} | setting


def table(metrics: Metrics) -> str:
    """The metrics as lines of text."""
    radians = dict.fromkeys((name for _, name in _LINES if name.startswith("rotation")), "rad")
    units = radians | {"return": "nats", "elbo": "nats", "iwae": f"nats, {metrics.get('num_samples')} samples"}
    lines = [f"{metrics['num_scenes']:,} held-out scenes of {metrics['scene']}, seed {metrics['seed']}", ""]
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
