"""Heads: small supervised networks on frozen, unsupervised representations (Section 3.1.2).

    plain    MLP(v)                               v: all that a look says of a scene, side by side
    shared   MLP(p_1 f(o_1), ..., p_N f(o_N))     objects only: one f for all of them, from left to right, and p_i how
                                                  probably there is an i-th

A head is trained with cross-entropy, on any one look at a scene, and with noise on what it reads, which makes new
examples of old ones; its answers are averages over all looks. How much noise, and on which scale, is chosen for every
head on labels that are held back, from the same choices for all: first the scale, then the noise.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.registry import Registry

from .representations import Objects

Scale = Literal["as_it_is", "overall", "of_each"]

_UNITS, _OBJECT_FEATURES, _DROPOUT, _BATCH = 256, 16, 0.1, 256
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 0.05
_NOISES, _SCALES = (0.0, 0.2, 0.5), get_args(Scale)
_TRIED_ON, _HELD_BACK, _SHORTER = 10_000, 0.2, 2
"""Labels on which they are chosen, the share that is held back, and how much shorter these trainings are."""
_SMALLEST_SHARE, _SMALLEST_SD = 0.01, 1e-6
"""No feature is magnified more than to a hundred times its share of the overall scale: some hardly ever vary."""
_CHUNK = 1_000
_X = 2
"""Which feature of an object is the x of the window: after P(n >= step) and log_scale."""


@dataclass(frozen=True)
class Fitting:
    """How long a head is trained."""

    few: int = 800
    """Iterations with up to a thousand labels."""
    per_label: float = 0.07
    """Iterations for each further label."""
    most: int = 5_000
    """Largest number of iterations."""

    def iterations(self, num_labels: int) -> int:
        """For so many labels."""
        return min(self.most, round(self.few + self.per_label * max(0, num_labels - 1_000)))


class PlainHead(nn.Sequential):
    """Fully connected layers that read a vector.

    Args:
        shape: What is read of one look: numbers.
        num_classes: Classes.
    """

    exact: ClassVar[int] = 0
    """How many of the first features are read without scale and noise."""

    def __init__(self, shape: torch.Size, num_classes: int) -> None:
        super().__init__(*_layers(shape.numel(), num_classes))

    @staticmethod
    def arrange(features: Tensor) -> Float[Tensor, "scene look feature"]:
        """Side by side what a look says."""
        return features.flatten(2) if _of_objects(features) else features[:, None]


class SharedHead(nn.Module):
    """Fully connected layers that read every object in the same way, then others that read all of them.

    Args:
        shape: What is read of one look: objects, and numbers of each.
        num_classes: Classes.
    """

    exact: ClassVar[int] = 1
    """P(n >= step), which weights an object."""

    def __init__(self, shape: torch.Size, num_classes: int) -> None:
        super().__init__()
        num_steps, num_features = shape
        self.each = nn.Sequential(*_layers(num_features - 1, _OBJECT_FEATURES))
        self.all = nn.Sequential(*_layers(num_steps * _OBJECT_FEATURES, num_classes))

    @staticmethod
    def arrange(features: Objects) -> Objects:
        """From left to right."""
        return from_left_to_right(features)

    def forward(self, features: Float[Tensor, "batch step feature"]) -> Float[Tensor, "batch class"]:
        """Logits."""
        return self.all((features[..., :1] * self.each(features[..., 1:])).flatten(1))


HEADS: Registry[type[PlainHead] | type[SharedHead]] = Registry("head", {"plain": PlainHead, "shared": SharedHead})
"""Name -> head."""


def heads_of(features: Tensor) -> tuple[str, ...]:
    """The heads that a representation can have: of vectors the plain one."""
    return tuple(HEADS) if _of_objects(features) else ("plain",)


@dataclass(frozen=True)
class Head:
    """A trained head.

    Attributes:
        network: Its layers.
        mean: What is taken from the features.
        sd: What they are divided by.
        noise: With how much it was trained, in these units.
        scale: Which scale was chosen.
    """

    network: PlainHead | SharedHead
    mean: Tensor
    sd: Tensor
    noise: float
    scale: Scale

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained with labels."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def read(self, arranged: Tensor) -> Tensor:
        """Features as the layers read them."""
        return (arranged - self.mean) / self.sd

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Float[Tensor, "scene class"]:
        """Probabilities of the classes: means over the looks."""
        parts = [self.read(self.network.arrange(part)) for part in features.split(_CHUNK)]
        answers = [self.network(part.flatten(0, 1)).softmax(1).unflatten(0, part.shape[:2]) for part in parts]
        return torch.cat([answer.mean(1) for answer in answers])


def fit_head(
    name: str,
    features: Tensor,
    targets: Int[Tensor, "label"],
    num_classes: int,
    seed: int,
    fitting: Fitting | None = None,
) -> Head:
    """Trains a head.

    Args:
        name: One of `heads_of` the features.
        features: Of one of `REPRESENTATIONS`: ``[scene, look, step, feature]`` or ``[scene, feature]``.
        targets: Classes.
        num_classes: How many there are.
        seed: Of the weights, batches and noise.
        fitting: How long.

    Raises:
        ValueError: There are no labels, or not as many as features, or the features have no such head.
    """
    if len(features) != len(targets) or len(targets) == 0:
        raise ValueError(f"every feature needs a label, got {len(features)} and {len(targets)}; give some of both")
    kind = HEADS.find(name)
    if name not in (known := heads_of(features)):
        raise ValueError(f"head {name!r} reads objects, got features {list(features.shape)}; choose {', '.join(known)}")
    fitting = fitting or Fitting()
    tried_on = min(len(targets), _TRIED_ON)
    held_back = int(tried_on * _HELD_BACK)
    arranged = kind.arrange(features)

    @cache
    def hits(noise: float, scale: Scale) -> int:
        if held_back == 0:
            return 0
        rest, steps = slice(held_back, tried_on), fitting.iterations(tried_on - held_back) // _SHORTER
        tried = _fit(kind, arranged[rest], targets[rest], num_classes, seed, steps, noise, scale)
        return int((tried(features[:held_back]).argmax(1) == targets[:held_back]).sum())

    scale = max(_SCALES, key=lambda scale: hits(_NOISES[1], scale))
    noise = max(_NOISES, key=lambda noise: hits(noise, scale))
    return _fit(kind, arranged, targets, num_classes, seed, fitting.iterations(len(targets)), noise, scale)


def from_left_to_right(
    features: Float[Tensor, "*batch step feature"],
) -> Float[Tensor, "*batch step feature"]:
    """The objects that are rather present by the x of their windows, then the others."""
    x = features[..., _X]
    last = torch.full_like(x, torch.inf)
    order = torch.where(features[..., 0] > 0.5, x, last).argsort(dim=-1, stable=True)
    return features.gather(-2, order[..., None].expand_as(features))


def _fit(
    kind: type[PlainHead] | type[SharedHead],
    arranged: Tensor,
    targets: Tensor,
    num_classes: int,
    seed: int,
    steps: int,
    noise: float,
    scale: Scale,
) -> Head:
    device = arranged.device
    generator = torch.Generator(device).manual_seed(seed)
    mean, sd = _scale_of(arranged, scale, kind.exact)
    disturbed = torch.full_like(mean, noise)
    disturbed[: kind.exact] = 0.0
    with torch.random.fork_rng([device] if arranged.is_cuda else []):
        torch.manual_seed(seed)  # noqa: TID251 (forked)
        network = kind(arranged.shape[2:], num_classes).to(device)
        head = Head(network, mean, sd, noise, scale)
        parameters = network.parameters()
        optimizer = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps + 1)
        for _ in range(steps):
            rows, looks = (
                torch.randint(size, (_BATCH,), generator=generator, device=device) for size in arranged.shape[:2]
            )
            batch = head.read(arranged[rows, looks])
            batch = batch + disturbed * torch.randn(batch.shape, generator=generator, device=device)
            loss = F.cross_entropy(network(batch), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    return head


def _scale_of(arranged: Tensor, scale: Scale, exact: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, by which it is read."""
    variance, mean = torch.var_mean(arranged, tuple(range(arranged.dim() - 1)), correction=0)
    overall = variance[exact:].mean().sqrt().clamp_min(_SMALLEST_SD)
    sd = torch.maximum(variance.sqrt(), _SMALLEST_SHARE * overall) if scale == "of_each" else overall.expand_as(mean)
    read = torch.arange(len(mean), device=mean.device) >= (len(mean) if scale == "as_it_is" else exact)
    return torch.where(read, mean, 0.0), torch.where(read, sd, 1.0)


def _of_objects(features: Tensor) -> bool:
    return features.dim() == 4


def _layers(inputs: int, outputs: int) -> list[nn.Module]:
    layers = nn.Linear(inputs, _UNITS), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_UNITS, _UNITS), nn.ReLU()
    return [*layers, nn.Dropout(_DROPOUT), nn.Linear(_UNITS, outputs)]
