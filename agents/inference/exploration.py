"""What is mixed into q's discrete choices while an agent is trained."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .posteriors import Categorical, Posterior


@dataclass(frozen=True)
class Exploration:
    """Fixed probabilities that are mixed into q's discrete choices, whatever the network thinks.

    Deviation: the paper's q is the network's alone.

        q(z_pres_i = 1) = (1 - weight) sigmoid(logit_i) + weight * presence
        q(z_what_i)     = (1 - share) softmax(logits_i) + share / number of categories,  share = weight * categories

    Training starts with weight 1, so that every count is explained before the agent may choose among them, and
    ends with 0: a choice that is never sampled is never learned, and what is not learned is never chosen. It is
    part of q, so that every estimator stays what it is.
    """

    weight: float = 0.0
    """Share of the fixed probability in q, from 0 to 1."""
    presence: float = 0.75
    """The fixed probability of going on (our choice)."""
    categories: float = 0.2
    """Share of the uniform distribution over categories at weight 1 (our choice): without it some category is given up
    before the windows are any good; with more of it the wrong ones drive the windows out of the image."""

    def mix_presence(self, logit: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The logit of the mixture."""
        if self.weight == 0:
            return logit
        go, stop = (
            _mix(F.logsigmoid(signed), fixed, self.weight)
            for signed, fixed in ((logit, self.presence), (-logit, 1 - self.presence))
        )
        return go - stop

    def mix_categories(self, what: Posterior) -> Posterior:
        """The mixture, if it is over categories."""
        share = self.weight * self.categories
        if share == 0 or not isinstance(what, Categorical):
            return what
        return Categorical(_mix(what.log_q, 1 / what.log_q.shape[-1], share))


def _mix(log_q: Tensor, fixed: float, weight: float) -> Tensor:
    """``log((1 - weight) q + weight * fixed)``; in logarithms, so that saturated probabilities stay finite."""
    own = math.log1p(-weight) if weight < 1 else -math.inf
    return torch.logaddexp(torch.full_like(log_q, math.log(weight * fixed)), own + log_q)
