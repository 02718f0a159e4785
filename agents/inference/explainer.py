"""`Explainer`: whatever explains images by a generative model, an `Agent` or a policy of another library."""

from typing import Protocol

from air_env.explanation import DrawnExplanation
from air_env.model import SceneModel


class Explainer(Protocol):
    """Explains images."""

    @property
    def model(self) -> SceneModel:
        """The generative model."""
        ...

    def explain(self, images: object, num_steps: int | None = None) -> DrawnExplanation:
        """The explanations of images, as `Agent.explain` takes them."""
        ...
