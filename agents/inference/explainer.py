"""`Explainer`: whatever explains images by a generative model, an `Agent` or a policy of another library."""

from abc import ABC, abstractmethod

import torch

from air_env.explanation import DrawnExplanation
from air_env.frames import Frame
from air_env.model import SceneModel
from air_env.pictured import SHOWN, Pictured


class Explainer(Pictured, ABC):
    """Explains images; notebooks show what it makes of scenes of 0 to N objects that its model draws, without noise."""

    model: SceneModel
    """The generative model."""

    @abstractmethod
    def explain(self, images: object, num_steps: int | None = None) -> DrawnExplanation:
        """The explanations of images."""

    @torch.no_grad()
    def picture(self) -> Frame:
        """Scenes drawn by the generative model, above what is made of them."""
        generator = torch.Generator(self.model.log_p_count.device).manual_seed(0)
        count = torch.arange(SHOWN, device=generator.device) % (self.model.config.num_steps + 1)
        images = self.model.render(self.model.sample(SHOWN, generator, count)[1]).clamp(0, 1)
        return self.explain(images).beside(images)
