"""Estimators of the gradient of the stop action."""

from air_env.registry import Registry

from .antithetic import ARM, DisARM
from .balance import ExactWake, TrajectoryBalance
from .base import Estimator
from .control_variates import REBAR, RELAX, MuProp
from .exact import Exact
from .multi_sample import OVIS, VIMCO
from .ppo import PPO
from .problem import CategoryValues, StopProblem
from .relaxed import Concrete, RaoBlackwellSTGumbel, STGumbel
from .score_function import NVIL, HalfCritic, MovingAverage, Reinforce, ReinforceWholeReturn, StopNow
from .several_counts import RLOO, VarGrad
from .straight_through import ReinMax, StraightThrough
from .thermodynamic import TVO
from .wake_sleep import Defensive, WakeSleep, WakeWake

ESTIMATORS: Registry[type[Estimator]] = Registry(
    "estimator",
    {
        "half_critic": HalfCritic,
        "stop_now": StopNow,
        "nvil": NVIL,
        "reinforce": Reinforce,
        "reinforce_whole_return": ReinforceWholeReturn,
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
    },
)
"""Name -> class; all are constructed from the number of context features."""


def make_estimator(name: str, context_dim: int) -> Estimator:
    """Makes a registered estimator."""
    return ESTIMATORS.find(name)(context_dim)


__all__ = ["ESTIMATORS", "CategoryValues", "Estimator", "StopProblem", "make_estimator"]
