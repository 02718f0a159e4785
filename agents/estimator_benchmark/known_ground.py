"""Known ground: do the estimators of this package do on the literature's problems what their papers say?

`CLAIMS` are orderings of gradient variances that were published; the page prints each with the ratio that is found, and
a test holds them all. Problems are those of `binary`. Every estimator is as it is in the benchmark; of `rloo`, the
two-sample version too, which costs as much as `disarm`. What learns, learns on other draws before it is measured.

Estimators for whom a presence has to be a stop action (exact, stop_now, half_critic, ...) have no place here. Bounds
that the papers reach (200 latents, long trainings) are not made again.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from air_env.scenes.mnist import load_mnist

from ..estimators import Estimator, make_estimator
from ..estimators.base import RETURN_SCALE
from ..estimators.several_counts import RLOO
from ..pages import Page, number, table
from .binary import TARGET, BinaryProblem, BinaryVAE, bernoulli

NAMES = (
    *(
        "reinforce",
        "moving_average",
        "nvil",
        "rloo_of_2",
        "rloo",
        "vargrad",
        "arm",
        "disarm",
        "muprop",
        "rebar",
        "relax",
    ),
    *("straight_through", "reinmax", "concrete", "st_gumbel", "rao_blackwell_st_gumbel"),
)
TOY, FRESH, TRAINED = "toy", "VAE, untrained", "VAE, trained"
_FIT_BATCH, _LEARNING_RATE = 64, 5e-3
_NUM_DIGITS = 4_000

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Claim:
    """A published ordering of the variances of two estimators.

    Attributes:
        problem: Where it is looked at.
        less: The estimator that has the smaller variance.
        more: The other one.
        ratio: What their ratio is at most, here: 1, or less where a figure shows a wide gap.
        source: Who published it.
    """

    problem: str
    less: str
    more: str
    ratio: float
    source: str


_RELAX, _REBAR, _DISARM = (
    "Grathwohl et al. (2018), Figure 1, right",
    "Tucker et al. (2017), Figure 2",
    "Dong, Mnih and Tucker (2020), Figure 5",
)
CLAIMS = (
    Claim(TOY, "relax", "reinforce", 0.1, _RELAX),
    Claim(TOY, "relax", "rebar", 0.1, _RELAX),
    Claim(TOY, "disarm", "arm", 1.0, "Dong, Mnih and Tucker (2020), Section 3"),
    *(
        claim
        for problem in (FRESH, TRAINED)
        for claim in (
            Claim(problem, "disarm", "arm", 1.0, _DISARM),
            Claim(problem, "disarm", "rloo_of_2", 1.0, _DISARM),
            Claim(problem, "rebar", "muprop", 0.5, _REBAR),
            Claim(problem, "rebar", "nvil", 0.5, _REBAR),
            Claim(problem, "nvil", "reinforce", 0.1, "Mnih and Gregor (2014)"),
            Claim(problem, "rao_blackwell_st_gumbel", "st_gumbel", 1.0, "Paulus, Maddison and Krause (2021)"),
        )
    ),
)


@dataclass(frozen=True)
class Spread:
    """The gradient that an estimator has in the logits, given the images.

    Attributes:
        problem: Where.
        estimator: Which.
        variance: Summed over latents, averaged over images; of the toy problem, in units of (b - t)^2.
        bias: The mean's distance from the exact gradient, over the standard error of that distance; NaN where there are
            too many latents to sum out.
    """

    problem: str
    estimator: str
    variance: float
    bias: float


def on_toy(
    names: Sequence[str] = NAMES,
    *,
    fit_steps: int = 500,
    num_samples: int = 10_000,
    progress: Progress = lambda _: None,
) -> Iterator[Spread]:
    """Measures estimators on the toy problem, at p = 1/2.

    Args:
        names: Of `NAMES`.
        fit_steps: Iterations in which baselines and control variates learn.
        num_samples: Gradients.
        progress: Called with 1 after every estimator.
    """

    def toy(rows: int) -> BinaryProblem:
        return bernoulli(torch.zeros(rows, 1, dtype=torch.float64, requires_grad=True))

    exact = 0.25 * ((1 - TARGET) ** 2 - TARGET**2)
    for name in names:
        estimator = fitted(name, 1, lambda _: toy(512), fit_steps)
        gradients = gradient(estimator, toy(num_samples)) / RETURN_SCALE
        error, deviation = gradients.mean().item() - exact, gradients.std().item() / num_samples**0.5
        yield Spread(TOY, name, gradients.var().item(), error / max(deviation, 1e-12))
        progress(1)


def on_vae(
    digits: "BinarisedDigits",
    names: Sequence[str] = NAMES,
    *,
    train_steps: int = 2_000,
    fit_steps: int = 500,
    num_samples: int = 1_000,
    progress: Progress = lambda _: None,
) -> Iterator[Spread]:
    """Measures estimators on the VAE, before and after training by disarm.

    Args:
        digits: The images.
        names: Of `NAMES`.
        train_steps: Iterations of training.
        fit_steps: Iterations in which baselines and control variates learn.
        num_samples: Gradients of each of 8 images.
        progress: Called with 1 after every estimator and problem.
    """
    for problem, vae in ((FRESH, digits.vae()), (TRAINED, trained(digits, train_steps))):

        def images(seed: int, vae: BinaryVAE = vae) -> BinaryProblem:
            return vae.problem(digits.batch(seed))

        for name in names:
            estimator = fitted(name, digits.num_pixels, images, fit_steps)
            rows = digits.batch(-1)[:8].repeat_interleave(num_samples, 0)
            gradients = gradient(estimator, vae.problem(rows)).unflatten(0, (8, num_samples))
            yield Spread(problem, name, gradients.var(1).sum(1).mean().item(), math.nan)
            progress(1)


class BinarisedDigits:
    """MNIST, each pixel drawn anew every time with its grey value for probability (dynamic binarisation).

    Args:
        data_dir: Folder that holds ``mnist/``.
    """

    def __init__(self, data_dir: Path | str | None = None) -> None:
        images = torch.from_numpy(load_mnist("train", data_dir).images[:_NUM_DIGITS])
        self.grey = images.flatten(1).double() / 255
        self.num_pixels = self.grey.shape[1]

    def batch(self, seed: int) -> Float[Tensor, "image pixel"]:
        """Binary images, 0 or 1."""
        generator = torch.Generator().manual_seed(seed)
        grey = self.grey[torch.randint(len(self.grey), (_FIT_BATCH,), generator=generator)]
        return (torch.rand(grey.shape, generator=generator, dtype=grey.dtype) < grey).to(grey.dtype)

    def vae(self) -> BinaryVAE:
        """An untrained model, always the same one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # noqa: TID251 (forked)
            return BinaryVAE(self.grey.mean(0)).double()


def trained(digits: BinarisedDigits, num_steps: int, name: str = "disarm") -> BinaryVAE:
    """The model after training by an estimator."""
    vae, estimator = digits.vae(), make(name, digits.num_pixels).train()
    adam = torch.optim.Adam([*vae.parameters(), *estimator.parameters()], _LEARNING_RATE)
    for step in range(num_steps):
        adam.zero_grad()
        estimator(vae.problem(digits.batch(step)), torch.Generator().manual_seed(step)).mean().backward()
        adam.step()
    return vae


def make(name: str, context_dim: int) -> Estimator:
    """An estimator of `NAMES`, in double precision, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251 (forked)
        estimator = make_estimator("rloo" if name == "rloo_of_2" else name, context_dim).double()
    if name == "rloo_of_2":
        assert isinstance(estimator, RLOO)
        estimator.num_samples = 2
    return estimator


def fitted(name: str, context_dim: int, problem: Callable[[int], BinaryProblem], num_steps: int) -> Estimator:
    """An estimator whose baseline or control variate has learned, if it has one.

    Args:
        name: Of `NAMES`.
        context_dim: Features of the context.
        problem: Makes the problem to learn from, from a seed.
        num_steps: Iterations.
    """
    estimator = make(name, context_dim).train()
    parameters = list(estimator.parameters())
    adam = torch.optim.Adam(parameters, _LEARNING_RATE) if parameters else None
    for step in range(1_000_000, 1_000_000 + num_steps) if parameters or list(estimator.buffers()) else ():
        loss = estimator(problem(step), torch.Generator().manual_seed(step)).mean()
        if adam is not None:
            adam.zero_grad()
            loss.backward()
            adam.step()
    return estimator.eval()


def gradient(estimator: Estimator, problem: BinaryProblem) -> Float[Tensor, "batch latent"]:
    """A sample of the loss's gradient in the logits of each row."""
    (found,) = torch.autograd.grad(estimator(problem, torch.Generator().manual_seed(0)).sum(), problem.logits)
    return found


def variance_ratio(spreads: pd.DataFrame, claim: Claim) -> float:
    """The ratio of the variances that a claim compares."""
    there = spreads[spreads.problem == claim.problem].set_index("estimator").variance
    return float(there[claim.less] / there[claim.more])


def write_page(spreads: Sequence[Spread], output_dir: Path, name: str, note: str) -> list[Path]:
    """Writes NAME.md and NAME.csv."""
    frame, page = pd.DataFrame(spreads), Page(output_dir, name)
    by_problem = frame.pivot(index="estimator", columns="problem", values="variance").loc[frame.estimator.unique()]
    toy = frame[frame.problem == TOY].set_index("estimator")
    rows = [
        [f"`{each}`", f"{own[TOY]:.3g}", number(toy.bias.get(each), 1), f"{own[FRESH]:.3g}", f"{own[TRAINED]:.3g}"]
        for each, own in by_problem.iterrows()
    ]
    claims = []
    for claim in CLAIMS:
        ratio = variance_ratio(frame, claim)
        holds = "yes" if ratio <= claim.ratio else "**no**"
        pair = (f"`{claim.less}`", f"`{claim.more}`")
        claims.append([claim.problem, *pair, f"{ratio:.2g}", claim.ratio, claim.source, holds])
    page.add(
        f"# {name}",
        note,
        "Variance of a sample of the gradient in the logits, given the image (module `known_ground`). Toy: E (b - t)², "
        f"one Bernoulli b at p = 0.5, t = {TARGET}; bias in standard errors, the exact gradient being 0.0005. VAE: 20 "
        "binary latents, linear maps, dynamically binarised MNIST.",
        table(["", TOY, "toy, bias", FRESH, TRAINED], rows),
        "## Published orderings",
        table(["problem", "less", "more", "ratio here", "at most", "published in", "holds"], claims),
    )
    page.add_table(frame)
    return page.write()
