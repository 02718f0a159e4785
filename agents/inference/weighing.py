"""The model judges what the network proposes: importance weights of explanations, refined by its gradient.

Explanations that begin in different places find different objects, and what the network says of an object in one pass
is close to the best, at times by less, at times by more nats than an object more or less is worth. A few steps along
the gradient, which the scene model has in all that is continuous, make proposals comparable (Kim et al., 2018:
semi-amortised inference).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation, Images
from air_env.model import SceneModel

from .posteriors import Gaussian, select

if TYPE_CHECKING:
    from .agent import Agent

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""The fractional parts of its multiples are spread evenly from 0 to 1, however many there are."""
_LEARNING_RATE, _BETAS = 0.3, (0.8, 0.9)
"""Of Adam, in standard deviations of q (our choice)."""


def weigh(
    agent: "Agent", images: Images, starts: int = 1, refinements: int = 0
) -> tuple[Float[Tensor, "batch count"], Explanation]:
    """The best explanation of every count 0..N, of paths of modes that begin in different places.

    Args:
        agent: Who proposes, and whose model judges.
        images: What is explained.
        starts: How many paths.
        refinements: Steps of gradient ascent from the best one of each count.

    Returns:
        Their log importance weights ``log p(x, z_1..n, n) - log q(z_1..n | x)`` in nats, and the explanations: those
        of all counts of an image follow each other. What refinement gains in ``p`` is added to a weight; the volume
        that q gives the path stays.
    """
    start = GOLDEN_RATIO * torch.arange(starts, dtype=images.dtype, device=images.device) % 1
    many = images.expand(starts, *images.shape).flatten(0, 1)
    paths = agent.follow_modes(many, agent.model.config.num_steps, start.repeat_interleave(len(images)))
    log_weights = (agent.model.log_joints(many, paths.z) - paths.log_q).unflatten(0, (starts, len(images)))
    log_weights, best = log_weights.max(0)
    num_counts, row = log_weights.shape[1], torch.arange(len(images), device=images.device)
    rows = (best * len(images) + row[:, None]).flatten()
    z = select(paths.z, rows).keep(torch.arange(num_counts, device=rows.device).repeat(len(images)))
    if refinements:
        sd = [posterior.sd[rows] for posterior in (paths.where, paths.what) if isinstance(posterior, Gaussian)]
        z, gain = refine(agent.model, images.repeat_interleave(num_counts, 0), z, sd, refinements)
        log_weights = log_weights + gain.view_as(log_weights)
    return log_weights, z


def refine(
    model: SceneModel, images: Images, z: Explanation, sd: Sequence[Tensor], num_steps: int
) -> tuple[Explanation, Float[Tensor, "batch"]]:
    """The most probable explanation on the way of so many steps of gradient ascent, and what it gains.

    Args:
        model: Whose log-joint rises; its renderer must be differentiable.
        images: What is explained.
        z: Where the ascent begins. Counts and categories stay as they are.
        sd: Standard deviations of q, the units of the steps: ``[batch, step, latent]`` of ``z_where``, and of
            ``z_what`` where that is continuous.
        num_steps: How many.

    Returns:
        The explanations, and how many nats more probable they are than the first ones.
    """
    with torch.inference_mode(False), torch.enable_grad():
        images, present, scene = images.clone(), z.z_pres.clone(), z.z_scene.clone()
        starts = [z.z_where.clone(), z.z_what.clone()]
        units = [unit.clone() for unit in sd]
        moves = [torch.zeros_like(unit, requires_grad=True) for unit in units]
        adam = torch.optim.Adam(moves, lr=_LEARNING_RATE, betas=_BETAS)
        first = most = images.new_full((len(images),), -torch.inf)
        best = starts
        for step in range(num_steps + 1):
            moved = [start + unit * move for start, unit, move in zip(starts, units, moves, strict=False)]
            latents = moved + starts[len(moved) :]
            log_joint = model.log_joint(images, Explanation(present, latents[0], latents[1], scene))
            if step == 0:
                first = log_joint.detach()
            better = log_joint.detach() > most
            most = torch.where(better, log_joint.detach(), most)
            best = [
                torch.where(better[(...,) + (None,) * (new.dim() - 1)], new.detach(), old)
                for new, old in zip(latents, best, strict=True)
            ]
            for move, gradient in zip(moves, torch.autograd.grad(-log_joint.sum(), moves), strict=True):
                move.grad = gradient
            adam.step()
    return Explanation(z.z_pres, best[0], best[1], z.z_scene), most - first
