"""The settings of a scene model."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn

from air_env import geometry
from air_env.likelihoods import LIKELIHOODS, Likelihood
from air_env.priors import CountPrior, GaussianPrior
from air_env.reading import is_between, keep_whole
from air_env.renderers import RENDERERS, PatchConfig, Renderer, RendererSettings
from air_env.renderers.base import WHERE_MEAN, WHERE_SD

MOST_PIXELS_A_SIDE, MOST_STEPS = 4_096, 1_000
"""Largest images and N (our choice): a damaged file that asks for more is refused before memory is taken for it."""


@dataclass(frozen=True)
class SceneConfig:
    """Settings of a scene model."""

    image_size: int = 50
    """Side of the square image in pixels (paper: 50)."""
    num_steps: int = 3
    """N, the largest number of objects (paper: 3)."""
    likelihood: str = "gaussian"
    """One of `LIKELIHOODS`."""
    likelihood_scale: float | None = None
    """Standard deviation of a pixel (Gaussian, outliers), or what a learned one starts from; its scale (Laplace,
    Student's t); or the clipping (Bernoulli). None is the likelihood's own default."""
    initial_likelihood_scale: float | None = None
    """The scale at iteration 0 of training, from which it goes geometrically to its value; None does not anneal."""
    likelihood_anneal_steps: int = 0
    """Iterations until the scale is reached."""
    count_prior: CountPrior = field(default_factory=CountPrior)
    """p(n)."""
    where_mean: tuple[float, float, float] = WHERE_MEAN
    """Prior mean of ``z_where`` where it is a window: log of its size relative to the image, centre x and y. Renderers
    without windows, those of three-dimensional objects, have a prior of their own, and refuse another one here."""
    where_sd: tuple[float, float, float] = WHERE_SD
    """Prior standard deviation of ``z_where``, likewise."""
    renderer: RendererSettings = field(default_factory=PatchConfig)
    """How objects are drawn, and what ``z_what`` is: a code for a learned patch, or a category. The name of one of
    `RENDERERS` stands for its default settings. In three dimensions, ``z_where`` has a prior of its own."""
    background: int | None = None
    """Length of ``z_scene``, a priori standard normal, from which a learned network draws what is there before any
    object; 0 is a learned level, the same in all scenes; None is black. For objects that are drawn into windows."""
    background_hidden: int = 200
    """Units of that network's hidden layer."""

    def __post_init__(self) -> None:
        if isinstance(self.renderer, str):
            object.__setattr__(self, "renderer", RENDERERS.find(self.renderer)())
        for name, kind in (("renderer", RendererSettings), ("count_prior", CountPrior)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} must be a {kind.__name__}, or the name of one, got {getattr(self, name)!r}")
        keep_whole(self, 1, "image_size", most=MOST_PIXELS_A_SIDE)
        keep_whole(self, 1, "num_steps", most=MOST_STEPS)
        keep_whole(self, 0, "likelihood_anneal_steps", *["background"] * (self.background is not None))
        keep_whole(self, 1, "background_hidden")
        for name, smallest in (("where_mean", -math.inf), ("where_sd", 0.0)):
            values = getattr(self, name)
            whole = isinstance(values, Collection) and len(values) == geometry.WHERE_DIM
            if not whole or not all(is_between(value, smallest, math.inf) for value in values):
                raise ValueError(f"{name} must be {geometry.WHERE_DIM} numbers above {smallest}, got {values}")
        if isinstance(self.make_likelihood(), nn.Module) and self.initial_likelihood_scale is not None:
            raise ValueError(
                f"initial_likelihood_scale must be None where the scale is learned, got "
                f"{self.initial_likelihood_scale}; give what it starts from by likelihood_scale"
            )
        self.make_likelihood(0)
        if not self.renderer.windows and (tuple(self.where_mean), tuple(self.where_sd)) != (WHERE_MEAN, WHERE_SD):
            raise ValueError(
                f"where_mean and where_sd are the prior of windows, which renderers of kind {self.renderer.kind!r} do "
                "not have; leave them out, and set the renderer's own prior, such as its position_sd"
            )
        if not self.renderer.windows and self.background is not None:
            raise ValueError(
                f"background must be None with renderers of kind {self.renderer.kind!r}, which draw whole scenes; "
                f"got {self.background}"
            )

    def make_renderer(self) -> Renderer:
        """The renderer, with the priors of windows and of the scene that the settings say."""
        renderer = self.renderer.make()
        if self.renderer.windows:
            renderer.prior_where = GaussianPrior(self.where_mean, self.where_sd)
        if self.background is not None:
            renderer.prior_scene = GaussianPrior((0.0,) * self.background, (1.0,) * self.background)
        return renderer

    def make_likelihood(self, iteration: int | None = None) -> Likelihood:
        """The likelihood that the settings name, at an iteration of training; None is the final one."""
        make = LIKELIHOODS.find(self.likelihood)
        final = make() if self.likelihood_scale is None else make(self.likelihood_scale)
        if iteration is None or self.initial_likelihood_scale is None or iteration >= self.likelihood_anneal_steps:
            return final
        fraction = iteration / self.likelihood_anneal_steps
        return make(make(self.initial_likelihood_scale).scale ** (1 - fraction) * final.scale**fraction)
