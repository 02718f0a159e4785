"""What an agent says of an object, of a scene, and along a path of modes."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation

from .posteriors import Gaussian, Posterior


@dataclass(frozen=True)
class Latents:
    """An object: where and what it is.

    There may be more rows than images, where several categories of each are looked at: ``z_what``, and what is inferred
    after it, then have a row for each.

    Attributes:
        where: Posterior of ``z_where``.
        what: Posterior of ``z_what``.
        z_where: What was chosen of the one.
        z_what: And of the other.
        values: ``[image, category]``, what each category was found to gain before one was chosen, in nats; without
            gradient. None where that is not known.
    """

    where: Gaussian
    what: Posterior
    z_where: Float[Tensor, "row where"]
    z_what: Tensor
    values: Tensor | None = None

    @property
    def log_q(self) -> Float[Tensor, "row"]:
        """Log-probability of what was chosen."""
        return self.where.log_prob(self.z_where) + self.what.log_prob(self.z_what)


@dataclass(frozen=True)
class ModePath:
    """N steps that all draw an object, each the most probable one given those before.

    Attributes:
        logits: ``[batch, step]``, presence logits.
        where: Posterior ``[batch, step]`` of ``z_where``.
        what: Posterior ``[batch, step]`` of ``z_what``.
        z: The latents.
        log_q: ``[batch, count]``, ``log q(z_1..n | x)`` of the first n objects, n = 0..N, in nats.
    """

    logits: Float[Tensor, "batch step"]
    where: Gaussian
    what: Posterior
    z: Explanation
    log_q: Float[Tensor, "batch count"]


@dataclass(frozen=True)
class SceneLatent:
    """The posterior ``[batch]`` of ``z_scene``, and what was chosen of it."""

    posterior: Gaussian
    z_scene: Float[Tensor, "batch scene"]
