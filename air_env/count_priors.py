"""What the world expects of the count before it sees the image.

A count prior is a table ``log p(n)``, n = 0..N. An episode spends it one step at a time, through the
hazards

    p(z_pres_i = 1 | i - 1) = P(n >= i) / P(n >= i - 1),    p(z_pres = 0 | i) = p(n = i) / P(n >= i),

whose product over an episode is p(n) again (paper, Section 2: "p_N(n)", Figure 2: "n ~ Geom").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.reading import is_between, keep_whole
from air_env.registry import Registry


def truncated_geometric(num_steps: int, ratio: float) -> Float[Tensor, "counts"]:
    """``log p(n)`` with p(n) proportional to ``ratio ** n``; a small ratio makes objects expensive."""
    return torch.log_softmax(torch.arange(num_steps + 1, dtype=torch.float64) * math.log(ratio), 0)


def binomial(num_steps: int, probability: float) -> Float[Tensor, "counts"]:
    """``log p(n)`` of ``num_steps`` slots, each filled with the given probability."""
    probs = torch.tensor(probability, dtype=torch.float64)
    counts = torch.arange(num_steps + 1, dtype=torch.float64)
    return torch.distributions.Binomial(num_steps, probs).log_prob(counts)


def uniform(num_steps: int, parameter: float = 0.0) -> Float[Tensor, "counts"]:
    """``log p(n)`` equal for all n; the parameter is not used."""
    return torch.full((num_steps + 1,), -math.log(num_steps + 1), dtype=torch.float64)


DEFAULT_PARAMETERS = {"geometric": 1e-5, "binomial": 0.5}
"""Name -> parameter, where none is given; 0.5 for the others."""

COUNT_PRIORS: Registry[Callable[[int, float], Tensor]] = Registry(
    "count prior", {"geometric": truncated_geometric, "binomial": binomial, "uniform": uniform}
)
"""Name -> function of ``(num_steps, parameter)`` that returns ``log p(n)`` ``[num_steps + 1]``."""


@dataclass(frozen=True)
class CountPrior:
    """A count prior that may be annealed, geometrically in its parameter."""

    name: str = "geometric"
    """One of `COUNT_PRIORS`."""
    parameter: float | None = None
    """Ratio of the geometric, probability of the binomial; in (0, 1). None is its own in `DEFAULT_PARAMETERS`."""
    initial_parameter: float | None = None
    """The parameter at iteration 0; None does not anneal."""
    anneal_steps: int = 0
    """Iterations until the parameter is reached."""

    def __post_init__(self) -> None:
        COUNT_PRIORS.find(self.name)
        for parameter in (self.parameter, self.initial_parameter):
            if parameter is not None and not is_between(parameter, 0, 1):
                raise ValueError(f"a count prior's parameter must lie in (0, 1), got {parameter!r}")
        keep_whole(self, 0, "anneal_steps")

    def log_p(self, num_steps: int, iteration: int | None = None) -> Float[Tensor, "counts"]:
        """The table ``log p(n)`` in float64 at an iteration of training; None means the final one."""
        return COUNT_PRIORS.find(self.name)(num_steps, self.parameter_at(iteration))

    def parameter_at(self, iteration: int | None) -> float:
        """The parameter at an iteration of training; None means the final one."""
        final = DEFAULT_PARAMETERS.get(self.name, 0.5) if self.parameter is None else self.parameter
        if iteration is None or self.initial_parameter is None or iteration >= self.anneal_steps:
            return final
        fraction = iteration / self.anneal_steps
        return self.initial_parameter ** (1 - fraction) * final**fraction


def hazards(log_p: Float[Tensor, "counts"]) -> tuple[Float[Tensor, "steps"], Float[Tensor, "counts"]]:
    """Splits ``log p(n)`` into the log-probabilities of going on and of stopping.

    Returns:
        ``go [N]`` with ``go[i] = log P(n >= i + 1 | n >= i)`` and ``stop [N + 1]`` with
        ``stop[i] = log P(n = i | n >= i)``; ``stop[N] = 0``.

    Example:
        >>> go, stop = hazards(uniform(1))
        >>> go.exp(), stop.exp()
        (tensor([0.5000], dtype=torch.float64), tensor([0.5000, 1.0000], dtype=torch.float64))
    """
    tail = log_p.flip(0).logcumsumexp(0).flip(0)
    return tail[1:] - tail[:-1], log_p - tail
