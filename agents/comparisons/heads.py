"""Heads: what a little supervision makes of representations that were learned without (Section 3.1.2).

A head is a small network on frozen features, trained with cross-entropy and with noise on the features, which makes new
examples of old ones. How much noise, and on which scale, is chosen for every head on labels that are held back.

    vectors  [scene, feature]:        MLP(v)
    objects  [scene, step, feature]:  MLP(p_1 f(o_1), ..., p_N f(o_N)), one f for all objects, from left to right, and
                                      p_i how probably there is an i-th
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from agents.air import AIR
from air_env.scenes import SceneDataset

Head = Callable[[Tensor], Float[Tensor, "scene class"]]

_UNITS, _OBJECT_FEATURES, _DROPOUT, _BATCH = 256, 16, 0.1, 256
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 0.05
_NOISES, _TRIED_ON, _HELD_BACK = (0.0, 0.2, 0.5), 10_000, 0.2
_SMALLEST_SD = 1e-6
_CHUNK = 1_000
_X = 2
"""Which feature is the x of the window: after P(n >= step) and log_scale."""


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


def objects(agent: AIR, scenes: SceneDataset) -> Float[Tensor, "scene step feature"]:
    """What AIR infers of the objects of scenes: of every step P(n >= step), ``z_where`` and ``z_what``.

    An object that is as good as absent has its place, too: whoever reads the features may know better.
    """
    parts = []
    for chunk in scenes.images.split(_CHUNK):
        images = chunk.to(agent.model.log_p_count.device).float() / 255
        logits, z_where, z_what = agent.follow_modes(images, agent.model.config.num_steps)
        parts.append(torch.cat([logits.sigmoid().cumprod(1)[..., None], z_where, z_what], -1))
    return torch.cat(parts)


def from_left_to_right(features: Float[Tensor, "scene step feature"]) -> Float[Tensor, "scene step feature"]:
    """The objects that are rather present by the x of their windows, then the others."""
    x = features[..., _X]
    last = torch.full_like(x, torch.inf)
    order = torch.where(features[..., 0] > 0.5, x, last).argsort(dim=1, stable=True)
    return features.gather(1, order[..., None].expand_as(features))


def fit_head(
    features: Tensor, targets: Int[Tensor, "scene"], num_classes: int, seed: int, fitting: Fitting | None = None
) -> Head:
    """Trains a head.

    Args:
        features: ``[scene, feature]``, or ``[scene, step, feature]`` of `objects`.
        targets: Classes.
        num_classes: How many there are.
        seed: Of the weights, batches and noise.
        fitting: How long.

    Returns:
        The head, from features to logits.

    Raises:
        ValueError: There are no labels, or not as many as features.
    """
    if len(features) != len(targets) or len(targets) == 0:
        raise ValueError(f"every feature needs a label, got {len(features)} and {len(targets)}; give some of both")
    fitting = fitting or Fitting()
    tried_on = min(len(targets), _TRIED_ON)
    held_back = int(tried_on * _HELD_BACK)
    # Latents of objects have the scale of their prior.
    scales = ("as_it_is",) if features.dim() == 3 else ("as_it_is", "overall", "of_each")
    choices = list(product(_NOISES, scales))
    hits = [0] * len(choices)
    if held_back > 0:
        for k, choice in enumerate(choices):
            rest = features[held_back:tried_on], targets[held_back:tried_on]
            head = _fit(*rest, num_classes, seed, fitting, *choice)
            hits[k] = int((head(features[:held_back]).argmax(1) == targets[:held_back]).sum())
    return _fit(features, targets, num_classes, seed, fitting, *choices[hits.index(max(hits))])


def _fit(
    features: Tensor, targets: Tensor, num_classes: int, seed: int, fitting: Fitting, noise: float, scale: str
) -> Head:
    of_objects = features.dim() == 3
    mean, sd = torch.zeros(()), torch.ones(())
    if scale != "as_it_is":
        mean = features.mean(0)
        sd = (features - mean).square().mean(0 if scale == "of_each" else None).sqrt().clamp_min(_SMALLEST_SD)

    def read(raw: Tensor) -> Tensor:
        return from_left_to_right(raw) if of_objects else (raw - mean) / sd

    inputs, steps = read(features), fitting.iterations(len(targets))
    generator = torch.Generator(features.device).manual_seed(seed)
    with torch.random.fork_rng([features.device] if features.is_cuda else []):
        torch.manual_seed(seed)
        head = (_Objects if of_objects else _Vector)(inputs.shape[1:], num_classes).to(features.device)
        optimizer = torch.optim.AdamW(head.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps + 1)
        for _ in range(steps):
            rows = torch.randint(len(inputs), (_BATCH,), generator=generator, device=features.device)
            batch = inputs[rows]
            batch = batch + noise * torch.randn(batch.shape, generator=generator, device=features.device)
            if of_objects:
                batch[..., 0] = inputs[rows, :, 0]
            loss = F.cross_entropy(head(batch), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    head.eval()

    @torch.no_grad()
    def predict(raw: Tensor) -> Tensor:
        return torch.cat([head(read(part)) for part in raw.split(_CHUNK)])

    return predict


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    layers = nn.Linear(inputs, _UNITS), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_UNITS, _UNITS), nn.ReLU()
    return nn.Sequential(*layers, nn.Dropout(_DROPOUT), nn.Linear(_UNITS, outputs))


class _Vector(nn.Module):
    def __init__(self, shape: torch.Size, num_classes: int) -> None:
        super().__init__()
        self.mlp = _mlp(shape[0], num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.mlp(features)


class _Objects(nn.Module):
    def __init__(self, shape: torch.Size, num_classes: int) -> None:
        super().__init__()
        num_steps, num_features = shape
        self.each = _mlp(num_features - 1, _OBJECT_FEATURES)
        self.all = _mlp(num_steps * _OBJECT_FEATURES, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.all((features[..., :1] * self.each(features[..., 1:])).flatten(1))
