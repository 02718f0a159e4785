"""What estimators do on frozen problems: bias, added variance and cost, against the enumerated gradient.

A loss reaches the parameters through what a rollout puts out: logits, scores, log-probabilities. With ``J`` the
Jacobian of these outputs in the parameters of a part of the agent, an error ``e`` of the gradient in the outputs is one
of ``e' J J' e`` in the parameters, and a covariance ``C`` a variance of ``tr(C J J')``: enumerating in a few outputs is
enumerating in all parameters. Everything is given the path; what the path adds is the same for all.
"""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..estimators import Estimator, StopProblem, make_estimator
from ..inference.air import AIR
from ..inference.rollout import context_dim
from .frozen import FrozenAgent
from .measures import Moments, count_likelihoods, logit_variance, moments

PARTS = ("stop_head", "trunk", "decoder")
"""Parts of an agent: the head of ``z_pres``; the rest of the inference network; the renderer, if it learns."""

NUM_PARTICLES = 3
"""Samples of multi-sample estimators: few enough to enumerate their counts."""

_NUM_IMAGES, _NUM_SEVERAL, _NUM_SEQUENCES = 24, 12, 4
_NUM_JUDGES = 92
_FIT_BATCH, _FIT_STEPS, _FIT_LOOKS, _FIT_LEARNING_RATE = 46, 360, 3, 5e-3
_NUM_JUDGED = 128
_NUM_SAMPLES, _NUM_FULL_SAMPLES = 200, 24


@dataclass(frozen=True)
class Properties:
    """An estimator on a frozen problem; squares and variances are sums over images, relative to the exact gradient's.

    Attributes:
        scene: Of the problem.
        stage: Of the problem.
        estimator: Its name.
        objective: What the exact gradient is of: elbo, iwae or elbo_over_categories; or own, where latents are not
            reparameterised: then there is no exact gradient of a path, and squares are relative to the mean's.
        unbiased: Whether the estimator claims that its gradient is this.
        prefix_only: Whether it needs nothing beyond the objects it tried.
        enumerated: Whether bias and variance are exact.
        num_draws: Of how many outcomes or samples they are made.
        bias: Norm of the mean error over the norm of the exact gradient, less what chance adds; NaN without such.
        bias_error: What chance adds to it, where sampled, else 0.
        cosine: Of the mean gradient with the exact one; NaN without such.
        variance: Added variance over the squared norm of the exact gradient, in all parameters.
        variance_of: The same in each of `PARTS`; NaN where nothing is to be learned.
        likelihoods: Likelihood evaluations for an image, in the one pass over a batch that is judged.
        cost: (bias ** 2 + variance) * likelihoods: the relative squared error at equal numbers of evaluations.
    """

    scene: str
    stage: str
    estimator: str
    objective: str
    unbiased: bool
    prefix_only: bool
    enumerated: bool
    num_draws: int
    bias: float
    bias_error: float
    cosine: float
    variance: float
    likelihoods: float
    variance_of: dict[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """See `Properties`."""
        return (self.bias**2 + self.variance) * self.likelihoods


def measure(frozen: FrozenAgent, names: Sequence[str], seed: int = 0) -> Iterator[Properties]:
    """Judges estimators on a frozen problem, one after the other.

    Where categories are summed out, those are left out that reach the parameters on a way that is not one of the
    outputs: of sampled paths there would be too many.

    Args:
        frozen: The agent and its images.
        names: Registered estimators.
        seed: Of the noise of the latents.
    """
    jacobians: dict[tuple[int, bool], Jacobian] = {}
    for name in names:
        estimator = make_fitted(name, frozen)
        kind = (estimator.num_particles, estimator.reparameterised)
        if kind not in jacobians:
            jacobians[kind] = Jacobian(frozen, estimator, seed)
        jacobian = jacobians[kind]
        leaves = _leaves_outputs(estimator, jacobian)
        if not (leaves and jacobian.enumerates):
            yield _measure(name, estimator, jacobian, leaves, seed)


def make_fitted(name: str, frozen: FrozenAgent) -> Estimator:
    """An estimator in double precision, whose baselines have learned of the frozen agent for as long as it helped.

    They learn from images and noise that the problems are not made of. Of the moments of that the one is kept at which
    the estimator added the least variance on yet other images, if that is clearly less than it added at first.
    """
    agent = frozen.agent
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251 (forked)
        estimator = make_estimator(name, context_dim(agent)).double()
    estimator.num_particles = min(estimator.num_particles, NUM_PARTICLES)
    parameters = list(estimator.parameters())
    if not parameters and not list(estimator.buffers()):
        return estimator.eval()

    def problem(images: Tensor, seed: int) -> StopProblem:
        return frozen.problem(images, frozen.noise(len(images), estimator, seed), estimator, grad_enabled=False)

    images, judges = frozen.images[_NUM_IMAGES:-_NUM_JUDGES], frozen.images[-_NUM_JUDGES:]
    judge = problem(judges, 0)
    judge = replace(judge, logits=judge.logits.requires_grad_())
    problems = [problem(batch, seed) for seed in (1, 2) for batch in images.split(_FIT_BATCH)]
    optimizer = torch.optim.Adam(parameters, _FIT_LEARNING_RATE) if parameters else None
    generator = torch.Generator().manual_seed(0)
    moments_of_fit: list[tuple[Estimator, Tensor]] = []
    for step in range(_FIT_STEPS + 1):
        if step % (_FIT_STEPS // _FIT_LOOKS) == 0:
            now = deepcopy(estimator).eval()
            # The same draws every time.
            added, _ = logit_variance(now, judge, torch.Generator().manual_seed(1), num_samples=_NUM_JUDGED)
            moments_of_fit.append((now, added))
        for _ in range(estimator.num_passes):
            loss = estimator.loss(problems[step % len(problems)], generator).mean()
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return clearly_best(moments_of_fit)


def clearly_best(candidates: Sequence[tuple[Estimator, Float[Tensor, "image"]]]) -> Estimator:
    """The candidate of the least mean variance, or the first one unless it is beaten by two standard errors.

    Args:
        candidates: Estimators with the variance that each adds on the same images.
    """
    (first, at_first), (best, least) = candidates[0], min(candidates, key=lambda candidate: candidate[1].mean().item())
    gain = at_first - least
    return best if gain.mean() > 2 * gain.std() / len(gain) ** 0.5 else first


def parts(agent: AIR) -> dict[str, list[nn.Parameter]]:
    """The parameters of each of `PARTS`."""
    found: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
    for name, parameter in agent.named_parameters():
        part = "decoder" if name.startswith("model.") else "stop_head" if name.startswith("presence.") else "trunk"
        found[part].append(parameter)
    return found


def outputs_of(problem: StopProblem) -> list[Tensor]:
    """What a rollout puts out, ``[row, ...]``: all that a loss reads, but for half objects and dreams."""
    several = [problem.log_q_what, problem.log_q_latents]
    return [problem.logits, problem.scores, *(output for output in several if output is not None)]


class Jacobian:
    """The problem of a frozen agent, and how its outputs depend on the parameters.

    Args:
        frozen: The agent.
        estimator: Any of those that want such a problem.
        seed: Of the noise.

    Attributes:
        problem: Of all images, with graph.
        gram: For each part ``[image, output, output]``, ``J J'``.
    """

    def __init__(self, frozen: FrozenAgent, estimator: Estimator, seed: int) -> None:
        self.enumerates = frozen.agent.categorical and estimator.num_particles == 1
        num_images = _NUM_SEQUENCES if self.enumerates else _NUM_SEVERAL if estimator.num_particles > 1 else _NUM_IMAGES
        self.images = frozen.images[:num_images]
        self.noise = frozen.noise(num_images, estimator, seed)
        self.frozen, self.estimator = frozen, estimator
        self.problem = self._problem(self.images, self.noise)
        self.parts = parts(frozen.agent)
        grams = [self._gram(problem) for problem in self.each()]
        self.gram = {part: torch.stack([gram[part] for gram in grams]) for part in PARTS}

    def each(self) -> Iterator[StopProblem]:
        """The problem of every image alone."""
        for image, noise in zip(self.images.split(1), self.noise.chunk(len(self.images)), strict=True):
            yield self._problem(image, noise)

    def sampled(self) -> StopProblem:
        """The problem of all images with one path for each particle, as in training."""
        return self.frozen.problem(self.images, self.noise, self.estimator) if self.enumerates else self.problem

    def gradient(self, value: Tensor) -> dict[str, Float[Tensor, "parameter"]]:
        """The gradient of a number in the parameters of each part."""
        everything = [parameter for part in self.parts.values() for parameter in part]
        found = iter(torch.autograd.grad(value, everything, retain_graph=True, materialize_grads=True))
        none = torch.zeros(0, dtype=torch.float64)
        return {
            part: torch.cat([none, *(next(found).flatten() for _ in parameters)])
            for part, parameters in self.parts.items()
        }

    def _problem(self, images: Tensor, noise: Tensor) -> StopProblem:
        return self.frozen.problem(images, noise, self.estimator, enumerate_categories=self.enumerates)

    def _gram(self, problem: StopProblem) -> dict[str, Tensor]:
        outputs = torch.cat([output.flatten(1) for output in outputs_of(problem)], 1).flatten()
        rows = [self.gradient(output) for output in outputs]
        jacobian = {part: torch.stack([row[part] for row in rows]) for part in PARTS}
        return {part: j @ j.T for part, j in jacobian.items()}


def _measure(name: str, estimator: Estimator, jacobian: Jacobian, leaves_outputs: bool, seed: int) -> Properties:
    frozen, problem, generator = jacobian.frozen, jacobian.problem, torch.Generator().manual_seed(seed)
    found = moments(estimator, problem, outputs_of(problem), generator, num_samples=_NUM_SAMPLES)
    errors = _sampled_errors(estimator, jacobian, found) if leaves_outputs else _errors(found, jacobian)
    enumerated = found.enumerated and not leaves_outputs
    own = not estimator.reparameterised
    squares = errors["mean"] if own else {part: _form(gram, found.exact) for part, gram in jacobian.gram.items()}
    total, square = {kind: sum(of_part.values()) for kind, of_part in errors.items()}, sum(squares.values())
    # Rounding may go below 0.
    bias, mean = (max(total[kind] - total["chance"], 0.0) for kind in ("bias", "mean"))
    objective = "iwae" if estimator.num_particles > 1 else "elbo_over_categories" if jacobian.enumerates else "elbo"
    return Properties(
        scene=frozen.scene,
        stage=frozen.stage,
        estimator=name,
        objective="own" if own else objective,
        unbiased=estimator.unbiased,
        prefix_only=estimator.needs == "prefix",
        enumerated=enumerated,
        num_draws=_NUM_FULL_SAMPLES if leaves_outputs else found.num_draws,
        bias=math.nan if own else (bias / square) ** 0.5,
        bias_error=(max(total["chance"], 0.0) / square) ** 0.5,
        cosine=math.nan if own else min(total["inner"] / max((mean * square) ** 0.5, 1e-300), 1.0),
        variance=total["variance"] / square,
        # Of the pass whose gradient this is: the first.
        likelihoods=count_likelihoods(estimator, jacobian.sampled(), seed, num_passes=1),
        variance_of={
            part: errors["variance"][part] / squares[part] if squares[part] > 0 else math.nan for part in PARTS
        },
    )


def _errors(found: Moments, jacobian: Jacobian) -> dict[str, dict[str, float]]:
    """Squared bias, variance, squared mean, inner product with the exact gradient, and what chance adds to squares."""
    grams = jacobian.gram.items()
    return {
        "bias": {part: _form(gram, found.mean - found.exact) for part, gram in grams},
        "variance": {part: (gram * found.covariance).sum().item() for part, gram in grams},
        "mean": {part: _form(gram, found.mean) for part, gram in grams},
        "inner": {part: _form(gram, found.mean, found.exact) for part, gram in grams},
        "chance": {part: (gram * found.chance).sum().item() for part, gram in grams},
    }


def _sampled_errors(estimator: Estimator, jacobian: Jacobian, found: Moments) -> dict[str, dict[str, float]]:
    """The same for an estimator that reaches the parameters past the outputs: its whole gradient is sampled."""
    kinds = ("bias", "variance", "mean", "inner", "chance")
    errors: dict[str, dict[str, float]] = {kind: {part: 0.0 for part in PARTS} for kind in kinds}
    for problem, exact in zip(jacobian.each(), found.exact, strict=True):
        outputs = torch.cat([output.flatten(1) for output in outputs_of(problem)], 1).flatten()
        wanted = jacobian.gradient(outputs @ exact)
        generator = torch.Generator().manual_seed(1)
        samples = [jacobian.gradient(estimator(problem, generator).sum()) for _ in range(_NUM_FULL_SAMPLES)]
        for part in PARTS:
            gradients = torch.stack([sample[part] for sample in samples])
            mean = gradients.mean(0)
            errors["bias"][part] += (mean - wanted[part]).square().sum().item()
            errors["variance"][part] += gradients.var(0).sum().item()
            errors["chance"][part] += gradients.var(0).sum().item() / _NUM_FULL_SAMPLES
            errors["mean"][part] += mean.square().sum().item()
            errors["inner"][part] += (mean @ wanted[part]).item()
    return errors


def _leaves_outputs(estimator: Estimator, jacobian: Jacobian) -> bool:
    """Whether the loss reaches the parameters on a way that is not one of the outputs."""
    problem = jacobian.sampled()
    loss = estimator(problem, torch.Generator().manual_seed(0)).sum()
    outputs = outputs_of(problem)
    found = torch.autograd.grad(loss, outputs, retain_graph=True, materialize_grads=True)
    through = torch.stack([(o * g).sum() for o, g in zip(outputs, found, strict=True)]).sum()
    whole, by_outputs = jacobian.gradient(loss), jacobian.gradient(through)
    return not all(torch.allclose(whole[part], by_outputs[part], 1e-6, 1e-9) for part in PARTS)


def _form(gram: Tensor, left: Tensor, right: Tensor | None = None) -> float:
    """``sum_images left' G right``."""
    return torch.einsum("io,iop,ip->", left, gram, left if right is None else right).item()
