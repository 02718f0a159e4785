"""What the world expects before it sees the image: priors over the count and over the latents.

A count prior is a table ``log p(n)``, n = 0..N. An episode spends it one step at a time, through the
hazards

    p(z_pres_i = 1 | i - 1) = P(n >= i) / P(n >= i - 1),    p(z_pres = 0 | i) = p(n = i) / P(n >= i),

whose product over an episode is p(n) again (paper, Section 2: "p_N(n)", Figure 2: "n ~ Geom").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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

COUNT_PRIORS: dict[str, Callable[[int, float], Tensor]] = {
    "geometric": truncated_geometric,
    "binomial": binomial,
    "uniform": uniform,
}
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
        if self.name not in COUNT_PRIORS:
            raise ValueError(f"count prior {self.name!r} is unknown; choose one of {', '.join(COUNT_PRIORS)}")
        for parameter in (self.parameter, self.initial_parameter):
            if parameter is not None and not 0 < parameter < 1:
                raise ValueError(f"a count prior's parameter must lie in (0, 1), got {parameter}")
        if not isinstance(self.anneal_steps, Integral) or self.anneal_steps < 0:
            raise ValueError(f"anneal_steps must be a whole number of at least 0, got {self.anneal_steps!r}")

    def log_p(self, num_steps: int, iteration: int | None = None) -> Float[Tensor, "counts"]:
        """The table ``log p(n)`` in float64 at an iteration of training; None means the final one."""
        return COUNT_PRIORS[self.name](num_steps, self.parameter_at(iteration))

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


def gaussian_log_prob(value: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, summed over the last axis; nats."""
    z = (value - mean) / sd
    return -(0.5 * z.square() + sd.log()).sum(-1) - 0.5 * math.log(2 * math.pi) * value.shape[-1]


class GaussianPrior(nn.Module):
    """A diagonal Gaussian with fixed mean and standard deviation."""

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: tuple[float, ...], sd: tuple[float, ...]) -> None:
        super().__init__()
        self.event_shape = (len(mean),)
        self._exact = {"mean": torch.tensor(mean, dtype=torch.float64), "sd": torch.tensor(sd, dtype=torch.float64)}
        for name, value in self._exact.items():
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GaussianPrior":
        super()._apply(fn, recurse)
        # Double precision is more than single precision with zeros behind it.
        for name, value in self._exact.items():
            getattr(self, name).copy_(value)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.mean.dtype

    def log_prob(self, value: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats."""
        return gaussian_log_prob(value, self.mean, self.sd)

    def kl(self, mean: Float[Tensor, "*batch dim"], sd: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence from it of a diagonal Gaussian, in nats."""
        ratio = sd / self.sd
        deviation = (mean - self.mean) / self.sd
        return 0.5 * (ratio.square() + deviation.square() - 1 - 2 * ratio.log()).sum(-1)

    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*batch dim"]:
        """Draws values of shape ``[*shape, dim]``."""
        noise = torch.randn(*shape, len(self.mean), generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + self.sd * noise


class PosePrior(GaussianPrior):
    """A position ``(x, y)`` on a plane, normal around its origin, and a yaw in radians, of which none is preferred.

    Where scales are wanted, the yaw's standard deviation is a third of pi: three of them are half a turn.

    Args:
        position_sd: Standard deviation of x and y.
    """

    def __init__(self, position_sd: float) -> None:
        super().__init__((0.0, 0.0, 0.0), (position_sd, position_sd, math.pi / 3))

    def log_prob(self, value: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats; turns by whole circles are the same yaw."""
        position = gaussian_log_prob(value[..., :2], self.mean[:2], self.sd[:2])
        return position - math.log(2 * math.pi)

    def kl(self, mean: Float[Tensor, "*batch 3"], sd: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Kullback-Leibler divergence from it in nats; of a yaw on the line, which bounds that on the circle."""
        ratio, deviation = sd[..., :2] / self.sd[:2], (mean[..., :2] - self.mean[:2]) / self.sd[:2]
        position = 0.5 * (ratio.square() + deviation.square() - 1 - 2 * ratio.log()).sum(-1)
        return position + 0.5 * math.log(2 * math.pi / math.e) - sd[..., 2].log()

    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*batch 3"]:
        """Draws poses; yaws lie in [-pi, pi)."""
        position = super().sample(*shape, generator=generator)[..., :2]
        yaw = torch.rand(*shape, 1, generator=generator, dtype=position.dtype, device=position.device)
        return torch.cat([position, (2 * yaw - 1) * math.pi], -1)


class CategoricalPrior(nn.Module):
    """Every category is equally probable."""

    log_p: Tensor
    dtype: ClassVar[torch.dtype] = torch.long

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.event_shape = ()
        self.num_categories = num_categories
        self.register_buffer("log_p", torch.tensor(-math.log(num_categories)), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CategoricalPrior":
        super()._apply(fn, recurse)
        self.log_p.fill_(-math.log(self.num_categories))
        return self

    def log_prob(self, value: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Log-probability in nats."""
        return self.log_p.expand(value.shape)

    def sample(self, *shape: int, generator: torch.Generator | None = None) -> Int[Tensor, "*batch"]:
        """Draws categories."""
        return torch.randint(self.num_categories, shape, generator=generator, device=self.log_p.device)


Prior = GaussianPrior | CategoricalPrior
"""Of one object's latent: ``event_shape`` is that of a value, ``dtype`` its type."""
