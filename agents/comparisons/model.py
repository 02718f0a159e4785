"""What every comparison is: settings that make a model, and a model that scores scenes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env.explanation import DrawnExplanation, Explanation, Images
from air_env.likelihoods import Likelihood
from air_env.model import SceneModel
from air_env.scenes import SceneDataset

from ..evaluation.metrics import judge


class ComparisonModel(nn.Module, ABC):
    """A model that is trained on scenes.

    Attributes:
        objective: Name of what `score` gives.
        batch_size: Images that a trained model takes at a time.
    """

    objective: ClassVar[str]
    batch_size: ClassVar[int] = 500

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def score(self, scenes: SceneDataset) -> Float[Tensor, "scene"]:
        """Training objective to maximise, in nats."""

    @abstractmethod
    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Columns of metrics of scenes, of validation ones in the course of training."""

    def evaluate(self, scenes: SceneDataset) -> dict[str, float]:
        """Final metrics; by default those of `measure`."""
        return self.measure(scenes)

    def reconstruct(self, images: Images) -> Images | None:
        """Reconstructions of images; None if the model makes none."""
        del images

    @torch.no_grad()
    def in_batches(self, look: Callable[[Tensor], Tensor], images: Images) -> Tensor:
        """What a function makes of images, a batch at a time."""
        return torch.cat([look(part) for part in images.split(self.batch_size)])


class ImageModel(ComparisonModel):
    """A model of images, trained without labels, whose latents are a representation."""

    @property
    @abstractmethod
    def likelihood(self) -> Likelihood:
        """Of pixels."""

    @abstractmethod
    def terms(
        self, images: Images, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        """The log-likelihood of images given a sample of their latents, and the latents' divergence, in nats.

        Args:
            images: In [0, 1].
            generator: Source of the latents, on the images' device.
        """

    def bound(self, images: Images, generator: torch.Generator | None = None) -> Float[Tensor, "batch"]:
        """A sample of the ELBO in nats: log-likelihood less divergence."""
        log_likelihood, divergence = self.terms(images, generator)
        return log_likelihood - divergence

    @abstractmethod
    def reconstruct(self, images: Images) -> Images:
        """Reconstructions of images from their latents."""

    @abstractmethod
    def features(self, images: Images) -> Float[Tensor, "batch feature"]:
        """The latents of images."""

    def score(self, scenes: SceneDataset) -> Float[Tensor, "scene"]:
        """The bound of the scenes' images, which is what it is trained for."""
        return self.bound(scenes.float_images(self.device))

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """The objective and the squared error of the reconstructions, summed over pixels: means over scenes."""
        images = scenes.float_images(self.device)
        error = self.in_batches(lambda part: (self.reconstruct(part) - part).square().sum((1, 2, 3)), images)
        bound = self.in_batches(self.bound, images)
        return {f"{self.objective}_validation": bound.mean().item(), "squared_error": error.mean().item()}

    def evaluate(self, scenes: SceneDataset) -> dict[str, float]:
        """Metrics of `measure`."""
        return {name.removesuffix("_validation"): value for name, value in self.measure(scenes).items()}


class SceneRegressor(ComparisonModel):
    """A network that is trained with the truth about scenes, and explains images in one pass.

    Args:
        model: The generative model, which draws what is inferred.
    """

    objective = "log_probability"

    def __init__(self, model: SceneModel) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def infer(self, images: Images) -> Explanation:
        """The most probable explanation of each image of a batch, without drawing it."""

    @torch.no_grad()
    def explain(self, images: Images) -> DrawnExplanation:
        """The most probable explanation of each image, and what that draws."""
        return DrawnExplanation.joined([self.model.drawn(self.infer(part)) for part in images.split(self.batch_size)])

    def reconstruct(self, images: Images) -> Images:
        """What the explanations draw."""
        return self.explain(images).reconstruction

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Accuracies and errors, as `air_agents.evaluation.metrics.evaluate` has them."""
        return judge(self.explain(scenes.float_images(self.device)), scenes, self.model)


@dataclass(frozen=True)
class ComparisonSettings(ABC):
    """Settings of a comparison's model."""

    kind: ClassVar[str]
    """Name of these settings in `COMPARISON_MODELS`; files of settings carry it."""
    weight_decay = 0.0
    """Weight decay of AdamW; by default none, which is Adam."""

    @abstractmethod
    def make(self) -> ComparisonModel:
        """The model, with weights from the global generator."""
