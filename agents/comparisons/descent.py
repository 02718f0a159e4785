"""Explaining an image without a network: ascent of the log-joint in the pose (Section 3.2; Figure 6, "direct")."""

import torch
from torch import Tensor

from air_env.explanation import DrawnExplanation, Explanation
from air_env.model import Images, SceneModel

from ..inference.agent import Agent


def explain_directly(
    model: SceneModel, images: Images, *, starts: int, steps: int, generator: torch.Generator | None = None
) -> DrawnExplanation:
    """The best of several ascents from poses drawn from the prior, as many for every kind.

    Args:
        model: Of scenes of one three-dimensional object.
        images: ``[batch, 3, side, side]``.
        starts: For every kind.
        steps: Of each ascent.
        generator: Source of the starts.
    """
    kinds = model.prior_what.size
    total = kinds * starts
    z_what = (torch.arange(len(images) * total, device=images.device) % kinds)[:, None]
    z_where = model.prior_where.sample(len(z_what), 1, generator=generator)
    repeated = images.repeat_interleave(total, 0)
    z_where, value = ascend(model, repeated, z_where, z_what, steps)
    best = value.view(len(images), total).argmax(1) + total * torch.arange(len(images), device=value.device)
    return _explanation(model, z_where[best], z_what[best])


def refine(agent: Agent, images: Images, z: Explanation, *, steps: int) -> DrawnExplanation:
    """An agent's explanations, improved by an ascent from each."""
    z_where, _ = ascend(agent.model, images, z.z_where, z.z_what, steps)
    return _explanation(agent.model, z_where, z.z_what)


def ascend(
    model: SceneModel, images: Images, z_where: Tensor, z_what: Tensor, steps: int, learning_rate: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Adam on ``log p(x, z)``, the gradient by finite differences; the rate falls to 0.

    Returns:
        The poses ``[batch, 1, 3]`` and the log-joints ``[batch]`` that they reach.
    """
    z_where = z_where.clone().requires_grad_()
    z_pres = torch.ones_like(z_where[..., 0])
    optimizer = torch.optim.Adam([z_where], lr=learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.zero_grad()
        (-model.log_joint(images, Explanation.of_objects(z_pres, z_where, z_what)).sum()).backward()
        optimizer.step()
    z_where = z_where.detach()
    with torch.no_grad():
        return z_where, model.log_joint(images, Explanation.of_objects(z_pres, z_where, z_what))


def _explanation(model: SceneModel, z_where: Tensor, z_what: Tensor) -> DrawnExplanation:
    with torch.no_grad():
        return model.drawn(Explanation.of_objects(torch.ones_like(z_where[..., 0]), z_where, z_what))
