"""Estimators of the gradient of the stop action."""

from agents.estimators.balance import ExactWake, TrajectoryBalance
from agents.estimators.base import Estimator
from agents.estimators.exact import Exact
from agents.estimators.problem import StopProblem
from agents.estimators.score_function import NVIL, HalfCritic, MovingAverage, Reinforce, StopNow
from agents.estimators.several_counts import RLOO, VarGrad

ESTIMATORS: dict[str, type[Estimator]] = {
    "half_critic": HalfCritic,
    "stop_now": StopNow,
    "nvil": NVIL,
    "reinforce": Reinforce,
    "moving_average": MovingAverage,
    "rloo": RLOO,
    "vargrad": VarGrad,
    "trajectory_balance": TrajectoryBalance,
    "exact": Exact,
    "exact_wake": ExactWake,
}
"""Name -> class; all are constructed from the number of context features."""


def make_estimator(name: str, context_dim: int) -> Estimator:
    """Makes a registered estimator."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name](context_dim)


__all__ = ["ESTIMATORS", "Estimator", "StopProblem", "make_estimator"]
