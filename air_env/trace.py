"""What `render` shows beside the state of the episodes; kept only when there is a render mode."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.frames import Frame, scene_frame
from air_env.model import SceneState
from air_env.spaces import where_rows


@dataclass(frozen=True)
class Trace:
    """The windows and the rewards so far, of a batch of episodes."""

    boxes: Float[Tensor, "batch step 4"]
    """Windows in pixels; NaN for steps not taken."""
    total: Float[Tensor, "batch"]
    """The rewards so far, in nats."""

    @classmethod
    def empty(cls, state: SceneState, num_steps: int) -> "Trace":
        """Nothing has happened yet."""
        return cls(state.images.new_full((len(state.images), num_steps, 4), torch.nan), torch.zeros_like(state.log_p_x))

    def restarted(self, mask: Tensor, empty: "Trace") -> "Trace":
        """The masked episodes begin again."""
        return where_rows(mask, empty, self)

    def extended(self, before: SceneState, after: SceneState, boxes: Tensor, rewards: Tensor) -> "Trace":
        """The episodes after another step, in which what was drawn is marked by ``boxes [batch, 4]``."""
        slots = torch.arange(self.boxes.shape[1], device=before.step.device)
        drawn = (after.step > before.step)[:, None] & (slots == before.step[:, None])
        return Trace(torch.where(drawn[..., None], boxes.detach()[:, None], self.boxes), self.total + rewards.detach())

    def frames(self, state: SceneState) -> tuple[Frame, ...]:
        """One RGB frame for each episode: image and canvas with the windows, count and rewards so far."""
        pixels = (state.images, state.canvas, self.boxes)
        images, canvases, boxes = (part.detach().cpu().numpy() for part in pixels)
        rows = zip(state.step.tolist(), state.active.tolist(), self.total.tolist(), strict=True)
        return tuple(
            scene_frame(
                images[i],
                canvases[i],
                boxes[i],
                # Adding 0 takes the sign of -0.0.
                (f"image, count {n}{'' if on else ', finished'}", f"canvas, reward {round(total, 1) + 0.0:,.1f} nats"),
            )
            for i, (n, on, total) in enumerate(rows)
        )
