"""Heads: small supervised networks on frozen, unsupervised features (Section 3.1.2).

A head is a small network on frozen features, trained with cross-entropy and with noise on the features, which makes new
examples of old ones. How much noise, and on which scale, is chosen for every head on labels that are held back.

    vectors  [scene, feature]:              MLP(v)
    objects  [scene, look, step, feature]:  MLP(p_1 f(o_1), ..., p_N f(o_N)), one f for all objects, from left to
                                            right, and p_i how probably there is an i-th; trained on any one look,
                                            answers are averages over all of them
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env.explanation import Explanation
from air_env.model import Images
from air_env.scenes import SceneDataset

from ..inference.air import AIR

Head = Callable[[Tensor], Float[Tensor, "scene class"]]

_UNITS, _OBJECT_FEATURES, _DROPOUT, _BATCH = 256, 16, 0.1, 256
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 0.05
_NOISES, _TRIED_ON, _HELD_BACK = (0.0, 0.2, 0.5), 10_000, 0.2
_SMALLEST_SD = 1e-6
_CHUNK = 1_000
_OBJECT_DIM = 4
_X = 2
"""Which feature is the x of the window: after P(n >= step) and log_scale."""
_WIDTH = 1.85
"""Half the width of a window relative to the root mean square distance of its light from the centre; what windows
have on average that nobody moved."""
_LOOKS, _JITTER = 8, 0.06
"""How often an object is looked at again, and by how much the windows differ, relative to their size."""


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


def objects(agent: AIR, scenes: SceneDataset) -> Float[Tensor, "scene look step feature"]:
    """What AIR infers of the objects of scenes: of every step P(n >= step), ``z_where`` and ``z_what``.

    Absent objects keep their features; the head decides what to use. ``z_what`` is
    inferred anew, with the other objects taken out of the image, from several windows `around` what the object draws:
    the ELBO does not mind where in its window an object is, and who is to read it does.
    """
    device = agent.model.log_p_count.device
    generator = torch.Generator(device).manual_seed(0)
    parts = [scenes[start : start + _CHUNK] for start in range(0, len(scenes), _CHUNK)]
    return torch.cat([_look_again(agent, part.float_images(device), generator) for part in parts])


@torch.no_grad()
def _look_again(agent: AIR, images: Images, generator: torch.Generator) -> Float[Tensor, "scene look step feature"]:
    logits, z_where, z_what = agent.follow_modes(images, agent.model.config.num_steps)
    present = logits.sigmoid().cumprod(1)
    empty = torch.zeros_like(images).repeat_interleave(logits.shape[1], 0)
    where, what = z_where.flatten(0, 1)[:, None], z_what.flatten(0, 1)[:, None]
    pictures = agent.model.renderer.draw(empty, Explanation.of_objects(torch.ones_like(where[..., 0]), where, what))
    windows = around(pictures)
    pictures = pictures.unflatten(0, logits.shape) * present[..., None, None, None]
    alone = (images[:, None] - pictures.sum(1, keepdim=True) + pictures).flatten(0, 1)
    looks = []
    for _ in range(_LOOKS):
        moves = _JITTER * torch.randn(windows.shape, generator=generator, device=windows.device)
        window = windows + moves * F.pad(windows[:, :1].exp().expand(-1, 2), (1, 0), value=1.0)
        latents = torch.cat([window, agent.describe(alone, window).mode], 1).unflatten(0, logits.shape)
        looks.append(torch.cat([present[..., None], latents], 2))
    return torch.stack(looks, 1)


def around(pictures: Float[Tensor, "batch channel side side"]) -> Float[Tensor, "batch 3"]:
    """The windows that are centred on the light of pictures, and as large as it is spread."""
    light = pictures.sum(1).clamp_min(_SMALLEST_SD)
    light = light / light.sum((1, 2), keepdim=True)
    side = light.shape[-1]
    pixel = (torch.arange(side, device=light.device, dtype=light.dtype) + 0.5) * 2 / side - 1
    along = torch.stack([light.sum(1), light.sum(2)], 1)  # x, y
    centre = along @ pixel
    variance = (along * (pixel - centre[..., None]).square()).sum((1, 2))
    return torch.cat([(0.5 * variance.log() + math.log(_WIDTH)).clamp_max(0.0)[:, None], centre], 1)


def from_left_to_right(
    features: Float[Tensor, "*batch step feature"],
) -> Float[Tensor, "*batch step feature"]:
    """The objects that are rather present by the x of their windows, then the others."""
    x = features[..., _X]
    last = torch.full_like(x, torch.inf)
    order = torch.where(features[..., 0] > 0.5, x, last).argsort(dim=-1, stable=True)
    return features.gather(-2, order[..., None].expand_as(features))


def fit_head(
    features: Tensor, targets: Int[Tensor, "scene"], num_classes: int, seed: int, fitting: Fitting | None = None
) -> Head:
    """Trains a head.

    Args:
        features: ``[scene, feature]``, or ``[scene, look, step, feature]`` of `objects`.
        targets: Classes.
        num_classes: How many there are.
        seed: Of the weights, batches and noise.
        fitting: How long.

    Returns:
        The head, from features to probabilities.

    Raises:
        ValueError: There are no labels, or not as many as features.
    """
    if len(features) != len(targets) or len(targets) == 0:
        raise ValueError(f"every feature needs a label, got {len(features)} and {len(targets)}; give some of both")
    fitting = fitting or Fitting()
    tried_on = min(len(targets), _TRIED_ON)
    held_back = int(tried_on * _HELD_BACK)
    # Latents of objects have the scale of their prior.
    scales = ("as_it_is",) if features.dim() == _OBJECT_DIM else ("as_it_is", "overall", "of_each")
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
    of_objects = features.dim() == _OBJECT_DIM
    mean, sd = torch.zeros(()), torch.ones(())
    if scale != "as_it_is":
        mean = features.mean(0)
        sd = (features - mean).square().mean(0 if scale == "of_each" else None).sqrt().clamp_min(_SMALLEST_SD)

    def read(raw: Tensor) -> Tensor:
        # Vectors are what one look tells.
        return from_left_to_right(raw) if of_objects else ((raw - mean) / sd)[:, None]

    inputs, steps = read(features), fitting.iterations(len(targets))
    generator = torch.Generator(features.device).manual_seed(seed)
    with torch.random.fork_rng([features.device] if features.is_cuda else []):
        torch.manual_seed(seed)  # noqa: TID251 (forked)
        head = _Objects(inputs.shape[2:], num_classes) if of_objects else _mlp(inputs.shape[2], num_classes)
        head.to(features.device)
        optimizer = torch.optim.AdamW(head.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps + 1)
        for _ in range(steps):
            rows, looks = (
                torch.randint(size, (_BATCH,), generator=generator, device=features.device) for size in inputs.shape[:2]
            )
            batch = inputs[rows, looks]
            batch = batch + noise * torch.randn(batch.shape, generator=generator, device=features.device)
            if of_objects:
                batch[..., 0] = inputs[rows, looks, :, 0]
            loss = F.cross_entropy(head(batch), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    head.eval()

    @torch.no_grad()
    def predict(raw: Tensor) -> Tensor:
        parts = [read(part) for part in raw.split(_CHUNK)]
        return torch.cat([head(part.flatten(0, 1)).softmax(1).unflatten(0, part.shape[:2]).mean(1) for part in parts])

    return predict


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    layers = nn.Linear(inputs, _UNITS), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_UNITS, _UNITS), nn.ReLU()
    return nn.Sequential(*layers, nn.Dropout(_DROPOUT), nn.Linear(_UNITS, outputs))


class _Objects(nn.Module):
    def __init__(self, shape: torch.Size, num_classes: int) -> None:
        super().__init__()
        num_steps, num_features = shape
        self.each = _mlp(num_features - 1, _OBJECT_FEATURES)
        self.all = _mlp(num_steps * _OBJECT_FEATURES, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.all((features[..., :1] * self.each(features[..., 1:])).flatten(1))
