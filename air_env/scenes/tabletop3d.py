"""`tabletop3d`: plates, bowls and cups on a table, seen by a camera that goes around it (Section 3.2; Figure 7).

The renderer is known. How many items there are, of which kinds and where, and where the camera is, is to be inferred.
"""

from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from air_env.explanation import Explanation
from air_env.priors import CountPrior
from air_env.renderers import TabletopConfig
from air_env.renderers.backends import KINDS
from air_env.scene_config import SceneConfig
from air_env.scenes.base import SceneDataset, Split
from air_env.scenes.solids import SolidScene

_OVERLAP = 0.1
"""How much nearer than where they touch two items may stand, as a share of that distance."""
_MOST_TRIES = 20_000
"""Most tries to place the items of a scene: seconds, and many times what three plates need in half the usual reach."""


@dataclass(frozen=True, kw_only=True)
class TabletopScene(SolidScene):
    """Images of items on a table; kinds, places and the camera's angle are uniform.

    Items do not run into each other by more than a tenth (of their kinds' sizes, which perturbations may change), and
    nearer ones hide farther ones.
    """

    repetitions: bool = True
    """Whether there may be several items of a kind."""
    turn: float = 0.6
    """Largest angle of the camera, to both sides, in radians."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.turn, Real) or not 0 <= self.turn <= 0.75:
            raise ValueError(
                f"turn must lie between 0 and 0.75 (the table looks the same after pi / 2), got {self.turn!r}"
            )
        kinds = len(cast(TabletopConfig, self.model.renderer).kinds)
        if not self.repetitions and max(self.counts) > kinds:
            raise ValueError(f"counts must be at most {kinds}, of which each kind is one; got {self.counts!r}")

    def dataset(self, split: Split, num_scenes: int, seed: int = 0) -> SceneDataset:
        """Draws scenes; the same arguments give the same scenes. The splits differ in their arrangements only.

        The order of the items says nothing.

        Raises:
            ValueError: No room was found for so many items within reach.
        """
        renderer, generator, count = self._begin(split, num_scenes, seed)
        slots, kinds = self.model.num_steps, len(renderer.kinds)
        if self.repetitions:
            kind = renderer.prior_what.sample(num_scenes, slots, generator=generator)
        else:
            order = torch.rand(num_scenes, max(kinds, slots), generator=generator)
            kind = order[:, :kinds].argsort(1).repeat(1, -(-slots // kinds))[:, :slots]
        there = torch.arange(slots) < count[:, None]
        angle = self.turn * (2 * torch.rand(num_scenes, 1, generator=generator) - 1)
        widths = torch.tensor([KINDS[name].width for name in renderer.kinds])[kind]
        place = self._places(there, widths, generator)
        z = Explanation(there.float(), place, kind, angle)
        scenes = renderer.scenes(z)
        changed = self._perturbed(scenes, generator)
        # The table keeps its size: things stand on it.
        size = torch.cat([changed.scale[:, :-1], scenes.scale[:, -1:]], 1)
        boxes = (renderer.boxes(z, size[:, :-1]) + 1).clamp(0, 2) * (self.image_size / 2)
        return SceneDataset(
            images=self._images(replace(changed, scale=size), renderer),
            count=count,
            labels=torch.where(there, kind, -1),
            boxes=torch.where(there[..., None], boxes, torch.nan),
            poses=torch.where(there[..., None], place, torch.nan),
            z_scene=angle,
        )

    def _places(self, there: Tensor, widths: Tensor, generator: torch.Generator) -> Tensor:
        """Places ``[scene, slot, 2]`` of items that do not run into each other: others are drawn again."""
        slots = there.shape[1]
        both = there[:, :, None] & there[:, None] & ~torch.eye(slots, dtype=torch.bool)
        apart = (1 - _OVERLAP) * (widths[:, :, None] + widths[:, None])
        place = torch.zeros(len(there), slots, 2)
        again = torch.arange(len(there))
        for _ in range(_MOST_TRIES):
            place[again] = self.reach * (2 * torch.rand(len(again), slots, 2, generator=generator) - 1)
            near = torch.cdist(place[again], place[again]) < apart[again]
            again = again[(near & both[again]).flatten(1).any(1)]
            if len(again) == 0:
                return place
        raise ValueError(
            f"no room was found for {int(there[again].sum(1).max())} items within reach {self.reach} of the table's "
            f"middle, in {_MOST_TRIES:,} tries; take a larger reach (at most 1.5), or fewer items by counts"
        )


def tabletop3d(
    data_dir: Path | str | None = None,
    image_size: int = 32,
    renderer: str = "auto",
    num_steps: int = 3,
    reach: float = 1.5,
    colour_spread: float = 0.0,
    size_spread: float = 0.0,
    light_spread: float = 0.0,
    counts: tuple[int, ...] | None = None,
    repetitions: bool = True,
    turn: float = 0.6,
) -> TabletopScene:
    """Images of plates, bowls and cups on a table.

    Args:
        data_dir: Not used: objects are drawn.
        image_size: Side of the images in pixels.
        renderer: One of `BACKENDS`.
        num_steps: The most items of a scene.
        reach: As `TabletopScene` has it, like the following.
        colour_spread: Perturbation of colours.
        size_spread: Of sizes.
        light_spread: Of the light's direction.
        counts: Numbers of items; by default 0 to the most.
        repetitions: Whether there may be several items of a kind.
        turn: Largest angle of the camera.
    """
    del data_dir
    model = SceneConfig(
        image_size=image_size,
        num_steps=num_steps,
        likelihood_scale=0.1,
        count_prior=CountPrior("uniform"),
        renderer=TabletopConfig(renderer=renderer),
    )
    return TabletopScene(
        model=model,
        reach=reach,
        colour_spread=colour_spread,
        size_spread=size_spread,
        light_spread=light_spread,
        counts=tuple(range(num_steps + 1)) if counts is None else counts,
        repetitions=repetitions,
        turn=turn,
    )
