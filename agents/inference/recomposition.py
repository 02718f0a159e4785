"""Scenes put together anew from objects that were inferred: q learns to take apart what touches.

Objects that lie close to each other are rare in most data, and easily taken for one: once the windows are wide enough
for two, no gradient of the ELBO leads to a better explanation. Here objects of explained images are drawn in other
places, at random and often close together. What such a scene is made of is known, and q learns it as it would in the
sleep phase (Hinton et al., 1995), but from objects as they are in the data, not as the prior imagines them. How many
objects there are it does not learn from them, since the model draws its own objects without the errors that images
leave.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.explanation import Explanation, Images

from .episodes import recall
from .rollout import Rollout

_WELL_EXPLAINED = 0.6
"""Share of the images whose objects are taken, those with the smallest errors: a patch that is drawn badly may be two
objects taken for one."""
_ROOM = 0.8
"""Share of a window that stays inside the image; the rest is margin."""
_NEAREST = 0.33
"""Smallest distance of centres, in sizes of windows; objects that lie closer cannot be told apart."""
_PROPOSALS = 8
_NEVER = 1e-12


def recomposed_loss(rollout: Rollout, num_scenes: int, generator: torch.Generator) -> Float[Tensor, ""]:
    """``-log q(z_where, z_what | x)`` of scenes put together from the objects of a rollout, in nats per scene.

    Args:
        rollout: Whose objects are taken; they must be drawn into windows.
        num_scenes: How many scenes.
        generator: Of the choices, on the device of the rollout.
    """
    images, z = recompose(rollout, num_scenes, generator)
    return -recall(rollout.agent, images, z, any_order=True)[2].sum(1).mean()


@torch.no_grad()
def recompose(rollout: Rollout, num_scenes: int, generator: torch.Generator) -> tuple[Images, Explanation]:
    """Scenes of 1 to N objects, without noise, and what they are made of (`recomposed_loss`)."""
    model, num_steps = rollout.agent.model, rollout.logits.shape[1]
    options = {"generator": generator, "device": rollout.images.device}
    suitable = _suitable(rollout).flatten()
    taken = torch.multinomial(suitable, num_scenes * num_steps, replacement=True, generator=generator)
    taken = taken.unflatten(0, (num_scenes, num_steps))
    z_where, z_what = rollout.z.z_where.flatten(0, 1)[taken], rollout.z.z_what.flatten(0, 1)[taken]
    places = _places(z_where[..., 0].exp(), options)
    # Of the scene that the first object is from.
    z_scene = rollout.z.z_scene[taken[:, 0] // num_steps]
    z = Explanation(torch.ones_like(places[..., 0]), torch.cat([z_where[..., :1], places], -1), z_what, z_scene)
    z = z.keep(torch.randint(1, num_steps + 1, (num_scenes,), **options))
    return model.render(z).clamp(0, 1), z


def _suitable(rollout: Rollout) -> Float[Tensor, "batch step"]:
    """1 for objects that q thinks present in images that are explained well; next to nothing for others."""
    present = rollout.logits.sigmoid().cumprod(1) > 0.5
    count = present.sum(1)
    perfect = rollout.agent.model.likelihood.log_prob(rollout.images, rollout.images)
    error = (perfect - rollout.log_p_x.gather(1, count[:, None])[:, 0]) / count
    # Images without objects have an infinite error, or none that is a number.
    error = torch.where(count > 0, error, torch.inf)
    rank = error.argsort().argsort()
    well = rank < _WELL_EXPLAINED * (count > 0).sum()
    return (present & well[:, None]).to(error.dtype).clamp_min(_NEVER)


def _places(sizes: Float[Tensor, "scene step"], options: dict) -> Float[Tensor, "scene step 2"]:
    """Centres ``(x, y)`` at random: of a few proposals the first in which no two are too near."""
    room = (1 - _ROOM * sizes).clamp_min(0)[..., None]
    places = (2 * torch.rand(_PROPOSALS, *sizes.shape, 2, dtype=sizes.dtype, **options) - 1) * room
    distance = (places[:, :, :, None] - places[:, :, None]).norm(dim=-1)
    # A window's size is half its side in image coordinates.
    least = _NEAREST * (sizes[:, :, None] + sizes[:, None]) * (1 - torch.eye(sizes.shape[1], device=sizes.device))
    apart = (distance >= least).all(3).all(2)
    first = apart.to(torch.uint8).argmax(0)
    return places[first, torch.arange(len(sizes), device=sizes.device)]
