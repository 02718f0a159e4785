"""The model judges what the network proposes: importance weights of explanations, refined by its gradient.

Explanations that begin in different places find different objects, and one object may be two. What the network says of
an object in one pass is close to the best, at times by less, at times by more nats than an object more or less is
worth. A few steps along the gradient, which the scene model has in all that is continuous, make proposals comparable
(Kim et al., 2018: semi-amortised inference).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation, Images
from air_env.model import SceneModel

from .latents import ModePath
from .posteriors import Gaussian, select

if TYPE_CHECKING:
    from .agent import Agent
    from .air import AIR

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""The fractional parts of its multiples are spread evenly from 0 to 1, however many there are."""
_LEARNING_RATE, _BETAS = 0.3, (0.8, 0.9)
"""Of Adam, in standard deviations of q (our choice)."""
_DIRECTIONS, _APART, _SMALLER = 4, 0.35, 0.75
"""Directions in which an object is taken for two; how far from its centre these are, and how large, in its size."""


@dataclass(frozen=True)
class Proposal:
    """Explanations of so many objects each, and the Gaussian that q puts around them.

    Attributes:
        z: The latents.
        log_q: ``[batch]``, the largest ``log q(z | x)``, in nats; it stands for the volume that q fills.
        sd: Standard deviations of q: ``[batch, step, latent]`` of ``z_where``, and of ``z_what`` where that is
            continuous.
    """

    z: Explanation
    log_q: Float[Tensor, "batch"]
    sd: Sequence[Float[Tensor, "batch step _"]]


def weigh(
    agent: "Agent", images: Images, starts: int = 1, refinements: int = 0
) -> tuple[Float[Tensor, "batch count"], list[Explanation]]:
    """The best explanation of every count 0..N, and its log importance weight, in nats.

    That is of paths of modes that begin in different places. If they are refined, and objects are learned and seen
    through windows, the best explanation of one object less with one of them taken for two is weighed, too.

    Args:
        agent: Who proposes, and whose model judges.
        images: What is explained.
        starts: How many paths.
        refinements: Steps of gradient ascent from the best path of each count.

    Returns:
        ``log p(x, z_1..n, n) - log q(z_1..n | x)``, where refinement raises ``p`` and the volume that q gives an
        explanation stays, and the explanations.
    """
    model = agent.model
    start = GOLDEN_RATIO * torch.arange(starts, dtype=images.dtype, device=images.device) % 1
    many = images.expand(starts, *images.shape).flatten(0, 1)
    paths = agent.follow_modes(many, model.config.num_steps, start.repeat_interleave(len(images)))
    log_weights = (model.log_joints(many, paths.z) - paths.log_q).unflatten(0, (starts, len(images)))
    log_weights, best = log_weights.max(0)
    rows = best * len(images) + torch.arange(len(images), device=images.device)[:, None]
    proposals = [_along(paths, rows[:, count], count) for count in range(rows.shape[1])]
    if not refinements:
        return log_weights, [proposal.z for proposal in proposals]
    weights, explanations, whole = [], [], proposals[0]
    for count, proposal in enumerate(proposals):
        candidates = [proposal]
        if count > 1 and agent.splits:
            candidates.append(_split(agent, images, whole, count - 1))  # pyright: ignore
        weight, whole = _best(model, images, [refine(model, images, one, refinements) for one in candidates])
        weights.append(weight)
        explanations.append(whole.z)
    return torch.stack(weights, 1), explanations


def refine(model: SceneModel, images: Images, proposal: Proposal, num_steps: int) -> Proposal:
    """The most probable explanations on the way of gradient ascent on the log-joint.

    Args:
        model: Whose log-joint rises; its renderer must be differentiable.
        images: What is explained.
        proposal: Where the ascent begins, and in what units it goes. Counts and categories stay as they are.
        num_steps: How many steps.
    """
    with torch.inference_mode(False), torch.enable_grad():
        images, z = images.clone(), select(proposal.z, torch.arange(len(images), device=images.device))
        units = [sd.clone() for sd in proposal.sd]
        moves = [torch.zeros_like(unit, requires_grad=True) for unit in units]
        adam = torch.optim.Adam(moves, lr=_LEARNING_RATE, betas=_BETAS)
        best, most = z, images.new_full((len(images),), -torch.inf)
        for _ in range(num_steps + 1):
            latents = [
                start + unit * move for start, unit, move in zip((z.z_where, z.z_what), units, moves, strict=False)
            ]
            moved = replace(z, **dict(zip(("z_where", "z_what"), latents, strict=False)))
            log_joint = model.log_joint(images, moved)
            better = (log_joint.detach() > most)[:, None, None]
            most = torch.maximum(most, log_joint.detach())
            best = replace(
                best,
                z_where=torch.where(better, moved.z_where.detach(), best.z_where),
                z_what=torch.where(better.view(-1, *(1,) * (z.z_what.dim() - 1)), moved.z_what.detach(), best.z_what),
            )
            for move, gradient in zip(moves, torch.autograd.grad(-log_joint.sum(), moves), strict=True):
                move.grad = gradient
            adam.step()
    return replace(proposal, z=best)


def _along(paths: ModePath, rows: Tensor, count: int) -> Proposal:
    """Some of the paths, up to so many objects."""
    z = select(paths.z, rows).keep(torch.full_like(rows, count))
    sd = [posterior.sd[rows] for posterior in (paths.where, paths.what) if isinstance(posterior, Gaussian)]
    return Proposal(z, paths.log_q[rows, count], sd)


def _best(model: SceneModel, images: Images, proposals: list[Proposal]) -> tuple[Float[Tensor, "batch"], Proposal]:
    """The proposal of the largest weight for each image, and its weight."""
    weights = torch.stack([model.log_joint(images, one.z) - one.log_q for one in proposals])
    weight, best = weights.max(0)
    rows = best * len(images) + torch.arange(len(images), device=images.device)
    log_q = torch.cat([one.log_q for one in proposals])[rows]
    sd = [torch.cat(parts)[rows] for parts in zip(*(one.sd for one in proposals), strict=True)]
    return weight, Proposal(select(Explanation.joined([one.z for one in proposals]), rows), log_q, sd)


def _split(agent: "AIR", images: Images, whole: Proposal, count: int) -> Proposal:
    """Of all explanations in which one of so many objects is taken for two, side by side, the best one."""
    candidates = []
    for step in range(count):
        z_pres = whole.z.z_pres.clone()
        z_pres[:, step] = 0
        others = agent.model.render(replace(whole.z, z_pres=z_pres))
        for direction in range(_DIRECTIONS):
            candidates.append(_halved(agent, images, others, whole, step, count, math.pi * direction / _DIRECTIONS))
    return _best(agent.model, images, candidates)[1]


def _halved(
    agent: "AIR", images: Images, canvas: Images, whole: Proposal, step: int, count: int, angle: float
) -> Proposal:
    """With two objects for one of a step; the second follows the others, which have drawn the canvas."""
    where, (where_sd, what_sd) = whole.z.z_where[:, step], (sd.clone() for sd in whole.sd)
    z_pres, z_where, z_what = (part.clone() for part in (whole.z.z_pres, whole.z.z_where, whole.z.z_what))
    log_q = whole.log_q - _log_peak(where_sd[:, step]) - _log_peak(what_sd[:, step])
    apart = _APART * where[:, :1].exp() * where.new_tensor([math.cos(angle), math.sin(angle)])
    for place, offset in ((step, apart), (count, -apart)):
        half = torch.cat([where[:, :1] + math.log(_SMALLER), where[:, 1:] + offset], 1)
        what = agent.describe(images, canvas, half)
        assert isinstance(what, Gaussian)
        one = Explanation.of_objects(torch.ones_like(half[:, :1]), half[:, None], what.mean[:, None])
        canvas = agent.model.renderer.draw(canvas, one)
        z_pres[:, place], z_where[:, place], z_what[:, place] = 1, half, what.mean
        where_sd[:, place], what_sd[:, place] = whole.sd[0][:, step], what.sd
        log_q = log_q + _log_peak(where_sd[:, place]) + _log_peak(what.sd)
    return Proposal(replace(whole.z, z_pres=z_pres, z_where=z_where, z_what=z_what), log_q, [where_sd, what_sd])


def _log_peak(sd: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch"]:
    """The largest log-density of a Gaussian."""
    return -(sd * math.sqrt(2 * math.pi)).log().sum(1)
