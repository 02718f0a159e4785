"""Judging estimators on all frozen problems, one process for each core."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context

import torch

from ..estimators import ESTIMATORS
from ..estimators.testing import check_estimator
from ..jobs.cluster import signals_kept
from .cut import Cut, measure_cut
from .frozen import SCENES, STAGES, load_frozen
from .properties import Properties, measure
from .scaling import Point, points
from .specs import absolute, load_estimator

SCALED = (
    "half_critic",
    "stop_now",
    "nvil",
    "reinforce",
    "reinforce_whole_return",
    "rloo",
    "trajectory_balance",
    "disarm",
    "straight_through",
    "reinmax",
    "muprop",
    "rebar",
)
"""Registered estimators in the figure of N, saturation and likelihood: one of each kind, so that it can be read."""

_SCALED_SCENE, _SCALED_STAGE = "digits", "converged"


def judge(
    specs: Sequence[str],
    scenes: Sequence[str],
    *,
    workers: int,
    scaling: bool = True,
    cut: bool = True,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> tuple[list[Properties], list[Point], list[Cut]]:
    """Measures estimators on all stages of the frozen problems of some scenes.

    Args:
        specs: Registered names, or ``name=path.py:ClassName``.
        scenes: Of `SCENES`.
        workers: Processes at a time, each with one thread.
        scaling: Whether to make the points of the figure.
        cut: Whether to measure what the cut through the canvas costs the agents that read it.
        progress: Called with how much is done, and of how much.

    Returns:
        The properties, scene by scene, stage by stage, in the order of the estimators; and the points of the figure;
        and the cost of the cut.

    Raises:
        ValueError: An estimator or scene is unknown, or an estimator does not keep what it promises.
    """
    names = [load_estimator(spec) for spec in specs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"estimator {', '.join(sorted(twice))} is given twice; leave one out")
    own = [name for name, spec in zip(names, specs, strict=True) if name != spec]
    for name in own:
        try:
            check_estimator(ESTIMATORS[name])
        except AssertionError as error:
            raise ValueError(f"estimator {name!r} does not pass the checks of estimators: {error}") from error
    for scene in scenes:
        load_frozen(scene)
        if not any(_fits(name, scene) for name in names):
            raise ValueError(
                f"none of {', '.join(names)} can be judged on {scene}: several samples of categories have no "
                "reference there; leave the scene out, or add an estimator of one sample"
            )
    with signals_kept():
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, ([absolute(spec) for spec in specs],))
        judged = [
            pool.submit(_judge, scene, stage, [name for name in names if _fits(name, scene)])
            for scene in scenes
            for stage in range(len(STAGES))
        ]
        cuts = [pool.submit(_cut, scene) for scene in SCENES if cut]
        scaled = [pool.submit(_scale, name) for name in names if scaling and name in (*SCALED, *own)]
    with pool:
        everything: list[Future] = [*judged, *cuts, *scaled]
        try:
            for done, future in enumerate(as_completed(everything), 1):
                future.result()
                progress(done, len(everything))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise
    return (
        [row for one in judged for row in one.result()],
        [point for one in scaled for point in one.result()],
        [row for one in cuts for row in one.result()],
    )


def _fits(name: str, scene: str) -> bool:
    """Categories are summed out on one path: several samples of them have no reference there."""
    return scene != "sprites" or ESTIMATORS[name].num_particles == 1


def _prepare(specs: Sequence[str]) -> None:
    """Makes a worker ready."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for spec in specs:
        load_estimator(spec)


def _judge(scene: str, stage: int, names: Sequence[str]) -> list[Properties]:
    return list(measure(load_frozen(scene)[stage], names))


def _cut(scene: str) -> list[Cut]:
    return [cut for frozen in load_frozen(scene) for cut in measure_cut(frozen)]


def _scale(name: str) -> list[Point]:
    frozen = next(agent for agent in load_frozen(_SCALED_SCENE) if agent.stage == _SCALED_STAGE)
    return list(points(frozen, [name]))
