"""How the variance that estimators add depends on the problem: on N, on how sure q is, on the likelihood.

All in the presence logits of one frozen agent, relative to the square of the exact gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from air_env.likelihoods import LIKELIHOODS
from air_env.model import SceneConfig

from .frozen import FrozenAgent, in_double_precision
from .measures import moments
from .properties import make_fitted

NUM_STEPS = (1, 2, 3, 4, 6, 8, 12)
SHARPNESS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What the logits are multiplied by."""
FIXED_LIKELIHOODS = [
    name for name in LIKELIHOODS if not isinstance(SceneConfig(likelihood=name).make_likelihood(), nn.Module)
]
"""Those without weights, of which frozen agents have none."""

_NUM_IMAGES, _NUM_SAMPLES = 24, 64


@dataclass(frozen=True)
class Point:
    """A point of a figure.

    Attributes:
        axis: num_steps, saturation or likelihood.
        value: Where on it: N, or the mean ``|logit|``; the likelihood's name.
        estimator: Its name.
        variance: Added variance in the logits over the squared exact gradient, both summed over images.
    """

    axis: str
    value: float | str
    estimator: str
    variance: float


def points(frozen: FrozenAgent, names: Sequence[str]) -> Iterator[Point]:
    """The points of all figures, estimator by estimator on each problem.

    Args:
        frozen: A trained agent; whatever it explores with is left out.
        names: Registered estimators.
    """
    frozen = changed(frozen)
    for num_steps in NUM_STEPS:
        yield from _points("num_steps", float(num_steps), changed(frozen, num_steps=num_steps), names)
    for factor in SHARPNESS:
        yield from _points("saturation", None, changed(frozen, sharpness=factor), names)
    for likelihood in FIXED_LIKELIHOODS:
        yield from _points("likelihood", likelihood, changed(frozen, likelihood=likelihood), names)


def changed(frozen: FrozenAgent, sharpness: float = 1.0, **changes: object) -> FrozenAgent:
    """The frozen agent without exploration, with the same weights in another scene model.

    Args:
        frozen: The agent.
        sharpness: What its presence logits are multiplied by.
        changes: Of the settings of the scene model.
    """
    agent = frozen.agent
    other = in_double_precision(replace(agent.model.config, **changes), agent.config)
    other.load_state_dict(agent.state_dict())
    with torch.no_grad():
        for parameter in other.presence.parameters():
            parameter *= sharpness
    return replace(frozen, agent=other.eval())


def _points(axis: str, value: float | str | None, frozen: FrozenAgent, names: Sequence[str]) -> Iterator[Point]:
    for name in names:
        estimator = make_fitted(name, frozen)
        images = frozen.images[:_NUM_IMAGES]
        problem = frozen.problem(images, frozen.noise(len(images), estimator, 0), estimator)
        generator = torch.Generator().manual_seed(0)
        found = moments(estimator, problem, [problem.logits], generator, num_samples=_NUM_SAMPLES)
        added = found.covariance.diagonal(dim1=1, dim2=2).sum()
        where = problem.logits.abs().mean().item() if value is None else value
        yield Point(axis, where, name, (added / found.exact.square().sum()).item())
