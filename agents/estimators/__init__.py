"""Estimators of the gradient of the stop action."""

from agents.estimators.antithetic import ARM, DisARM
from agents.estimators.balance import ExactWake, TrajectoryBalance
from agents.estimators.base import Estimator
from agents.estimators.control_variates import REBAR, RELAX, MuProp
from agents.estimators.exact import Exact
from agents.estimators.multi_sample import OVIS, VIMCO
from agents.estimators.ppo import PPO
from agents.estimators.problem import CategoryValues, StopProblem
from agents.estimators.relaxed import Concrete, RaoBlackwellSTGumbel, STGumbel
from agents.estimators.score_function import NVIL, HalfCritic, MovingAverage, Reinforce, StopNow
from agents.estimators.several_counts import RLOO, VarGrad
from agents.estimators.straight_through import ReinMax, StraightThrough
from agents.estimators.thermodynamic import TVO
from agents.estimators.wake_sleep import Defensive, WakeSleep, WakeWake

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
    "vimco": VIMCO,
    "ovis": OVIS,
    "rws_wake_wake": WakeWake,
    "rws_wake_sleep": WakeSleep,
    "rws_defensive": Defensive,
    "tvo": TVO,
    "ppo": PPO,
    "arm": ARM,
    "disarm": DisARM,
    "straight_through": StraightThrough,
    "reinmax": ReinMax,
    "concrete": Concrete,
    "st_gumbel": STGumbel,
    "rao_blackwell_st_gumbel": RaoBlackwellSTGumbel,
    "muprop": MuProp,
    "rebar": REBAR,
    "relax": RELAX,
}
"""Name -> class; all are constructed from the number of context features."""


def make_estimator(name: str, context_dim: int) -> Estimator:
    """Makes a registered estimator."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name](context_dim)


__all__ = ["ESTIMATORS", "CategoryValues", "Estimator", "StopProblem", "make_estimator"]
