"""Inverse graphics: what three-dimensional object is seen, and in which pose (Section 3.2).

The kind comes first, the pose given the kind after it, as a renderer takes them:

    q(z_what | x) q(z_where | z_what, x)

For every kind there is a heat map, of where an object of this kind would be seen; the place is projected back onto the
plane by the known camera. What is seen there, a glimpse, says how likely the kind is, how far the place is off, and how
far the object is turned.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Images
from air_env.model import SceneConfig
from air_env.precision import Head, exact
from air_env.renderers import ObjectRenderer, ObjectsConfig
from air_env.renderers.backends import KINDS
from air_env.renderers.backends.camera import CAMERA, unproject

from .agent import Agent, AgentSettings, Choose, State
from .latents import Latents
from .posteriors import Categorical, Gaussian, repeated


@dataclass(frozen=True)
class InverseGraphicsConfig(AgentSettings):
    """Settings of the inference network."""

    kind: ClassVar[str] = "objects3d"
    channels: int = 32
    """Channels of the convolutions that make the heat maps."""
    glimpse_size: int = 16
    """Side of a glimpse in pixels."""
    glimpse_scale: float = 0.5
    """Its size relative to the image."""
    hidden: int = 128
    """Units of the network that looks at glimpses."""
    sharpness: float = 10.0
    """How much a heat map prefers bright pixels to black ones before training, in nats."""
    position_sd: float = 0.3
    """Largest standard deviation of x and y in q."""
    yaw_sd: float = 0.3
    """Largest standard deviation of the yaw in q: with more noise the cube's turn is never learned."""

    def make(self, scene: SceneConfig) -> "InverseGraphics":
        """The agent."""
        return InverseGraphics(scene, self)


@dataclass(frozen=True)
class ObjectState(State):
    """What is inferred of an image: all there is to say, as there is one object.

    Attributes:
        hidden: ``[batch, hidden]``, what the glimpses show.
        log_q: ``[batch, kind]``, of the category.
        mean: ``[batch, kind, 3]``, of the pose, given the kind.
        sd: ``[batch, kind, 3]``.
    """

    hidden: Tensor
    log_q: Tensor
    mean: Tensor
    sd: Tensor


class InverseGraphics(Agent[ObjectState, Categorical]):
    """Infers the kind and the pose of a three-dimensional object.

    Args:
        scene: Settings of the generative model.
        config: Settings of the inference network.

    Raises:
        ValueError: The model does not draw three-dimensional objects.
    """

    config: InverseGraphicsConfig
    heights: Tensor
    camera: Tensor
    places: Tensor

    def __init__(self, scene: SceneConfig, config: InverseGraphicsConfig) -> None:
        super().__init__(scene)
        if scene.renderer.kind != ObjectsConfig.kind:
            raise ValueError("inverse graphics needs a renderer of three-dimensional objects (ObjectsConfig)")
        renderer = cast(ObjectRenderer, self.model.renderer)
        self.config = config
        self.hidden_size = config.hidden
        self.field_of_view = renderer.drawer.field_of_view
        kinds, width = len(renderer.kinds), config.channels
        self.maps = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, kinds, 3, padding=1),
        )
        pixels = 3 * config.glimpse_size**2
        self.look = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
        )
        # For every kind: an offset, a direction, three standard deviations and how likely it is.
        self.heads = nn.Parameter(torch.randn(kinds, config.hidden, 8) / math.sqrt(config.hidden))
        self.presence = Head(config.hidden, 1)
        heights = [KINDS[name].height / 2 for name in renderer.kinds]
        self.register_buffer("heights", torch.tensor(heights), persistent=False)
        self.register_buffer("camera", torch.tensor(CAMERA), persistent=False)
        self.register_buffer("places", pixel_centres(scene.image_size), persistent=False)

    def initial(self, images: Images) -> ObjectState:
        """All that is inferred of images."""
        # What is black is background; pixels of the maps are two of the image wide.
        brightness = F.avg_pool2d(images.amax(1, keepdim=True), 2, ceil_mode=True)
        heat = (self.maps(images) + self.config.sharpness * brightness).flatten(2).softmax(-1)
        seen = exact(torch.matmul)(heat, self.places)
        glimpses = glimpses_at(images, seen.detach(), self.config.glimpse_size, self.config.glimpse_scale)
        hidden = self.look(glimpses.flatten(0, 1)).unflatten(0, seen.shape[:2])
        offset, turn, sd, likely = heads_of_kinds(hidden, self.heads).split([2, 2, 3, 1], -1)
        position = unproject(seen, self.heights, self.camera, self.field_of_view) + 0.3 * offset
        yaw = torch.atan2(turn[..., 1], turn[..., 0])
        largest = sd.new_tensor([self.config.position_sd, self.config.position_sd, self.config.yaw_sd])
        return ObjectState(
            images=images,
            hidden=hidden.mean(1),
            log_q=likely[..., 0].log_softmax(-1),
            mean=torch.cat([position, yaw[..., None]], -1),
            sd=(largest * sd.sigmoid()).clamp_min(1e-3),
        )

    def decide(self, state: ObjectState) -> tuple[ObjectState, Float[Tensor, "batch"], Categorical]:
        """Whether there is an object, and the posterior of its kind."""
        logit = self.exploration.mix_presence(self.presence(state.hidden)[:, 0])
        what = self.exploration.mix_categories(Categorical(state.log_q))
        assert isinstance(what, Categorical)
        return state, logit, what

    def describe_object(
        self, state: ObjectState, first: Categorical, choose_where: Choose, choose_what: Choose
    ) -> Latents:
        """First what it is, then where such an object would be."""
        z_what = choose_what(first)
        where = Gaussian(of_kind(state.mean, z_what), of_kind(state.sd, z_what))
        return Latents(where, first, choose_where(where), z_what)

    def remember(self, state: ObjectState, z_where: Tensor, z_what: Tensor) -> ObjectState:
        """There is nothing to remember."""
        del z_where, z_what
        return state


def pixel_centres(image_size: int) -> Float[Tensor, "place 2"]:
    """Where the pixels of heat maps, two of the image wide, have their centres in image coordinates."""
    centres = (torch.arange((image_size + 1) // 2) * 2 + 1) * 2 / image_size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def glimpses_at(
    images: Images, places: Float[Tensor, "batch kind 2"], size: int, scale: float
) -> Float[Tensor, "batch kind channel size size"]:
    """What is seen of images around places, in windows of such a size in pixels and relative to the image."""
    kinds = places.shape[1]
    windows = torch.cat([torch.full_like(places[..., :1], math.log(scale)), places], -1).flatten(0, 1)
    glimpses = geometry.attend(images.repeat_interleave(kinds, 0), windows, size)
    return glimpses.unflatten(0, (len(images), kinds))


@exact
def heads_of_kinds(
    hidden: Float[Tensor, "batch kind hidden"], heads: Float[Tensor, "kind hidden value"]
) -> Float[Tensor, "batch kind value"]:
    """What a head for each kind says of what is seen of it."""
    return torch.einsum("bkh,kho->bko", hidden, heads)


def of_kind(values: Float[Tensor, "batch kind value"], kind: Int[Tensor, "row"]) -> Float[Tensor, "row value"]:
    """The values of one kind for each row, of which there may be several for each image."""
    values = repeated(values, len(kind))
    return values[torch.arange(len(kind), device=kind.device), kind]
