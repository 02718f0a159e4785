"""The parts of a reward."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class RewardTerms:
    """The parts of a reward in nats, each ``[batch]`` or ``[batch, step]``; 0 for finished episodes."""

    likelihood_gain: Float[Tensor, "*batch"]
    log_p_z_where: Float[Tensor, "*batch"]
    log_p_z_what: Float[Tensor, "*batch"]
    log_p_z_pres: Float[Tensor, "*batch"]
    log_p_z_scene: Float[Tensor, "*batch"]

    @property
    def parts(self) -> dict[str, Float[Tensor, "*batch"]]:
        """The parts by name."""
        # `dataclasses.asdict` would copy the tensors and cut their graph.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def log_p_x(self, black: Float[Tensor, "batch"], empty: Float[Tensor, "batch"]) -> Float[Tensor, "batch count"]:
        """``log p(x | c_n)`` of every prefix of N steps that all draw an object, n = 0..N.

        Args:
            black: ``log p(x | c_0)``, before the first action.
            empty: ``log p(x)`` of the scene without objects.
        """
        return torch.cat([empty[:, None], black[:, None] + self.likelihood_gain.cumsum(1)], 1)

    @property
    def total(self) -> Float[Tensor, "*batch"]:
        """The reward."""
        return sum(self.parts.values(), torch.zeros(()))
