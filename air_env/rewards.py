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

    @property
    def total(self) -> Float[Tensor, "*batch"]:
        """The reward."""
        return sum(self.parts.values(), torch.zeros(()))
