"""The world: the generative model of a scene, as pure, batched, differentiable functions.

    p(x, z, n) = p(n) * prod_{i <= n} p(z_where_i) p(z_what_i) * p(x | render(z_1..n))     (Eq. 1)

Everything the environments know is here. An episode explains one image; each `SceneModel.step`
adds one object or stops, and is rewarded by what it adds to the log-joint. With ``c_i`` the canvas
after i objects,

    present step i:  r_i    = log p(x|c_i) - log p(x|c_{i-1}) + log p(z_where_i) + log p(z_what_i)
                              + log p(z_pres_i = 1 | i - 1)
    stop after i:    r_stop = log p(z_pres = 0 | i)                          (0 when i = N)

so the rewards of an episode telescope:  sum r = log p(x, z, n) - log p(x | c_0).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Explanation
from air_env.likelihoods import LIKELIHOODS, Likelihood
from air_env.priors import CountPrior, GaussianPrior, Prior, hazards
from air_env.renderers import ObjectsConfig, PatchConfig, SpriteConfig

Images = Float[Tensor, "batch channel height width"]


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
    """Standard deviation of a pixel (Gaussian), its scale (Laplace) or the clipping (Bernoulli); None is the
    likelihood's own default."""
    initial_likelihood_scale: float | None = None
    """The scale at iteration 0 of training, from which it goes geometrically to its value; None does not anneal."""
    likelihood_anneal_steps: int = 0
    """Iterations until the scale is reached."""
    count_prior: CountPrior = field(default_factory=CountPrior)
    """p(n)."""
    where_mean: tuple[float, float, float] = (-1.3, 0.0, 0.0)
    """Prior mean of ``z_where``: log of the window's relative size, centre x and y."""
    where_sd: tuple[float, float, float] = (0.25, 0.5, 0.5)
    """Prior standard deviation of ``z_where``."""
    renderer: PatchConfig | SpriteConfig | ObjectsConfig = field(default_factory=PatchConfig)
    """How objects are drawn, and what ``z_what`` is: a code for a learned patch, or a category. Of `ObjectsConfig`,
    ``z_where`` is a pose with a prior of its own."""

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood {self.likelihood!r} is unknown; choose one of {', '.join(LIKELIHOODS)}")
        for name, smallest in (("image_size", 1), ("num_steps", 1), ("likelihood_anneal_steps", 0)):
            if not isinstance(getattr(self, name), Integral) or getattr(self, name) < smallest:
                raise ValueError(f"{name} must be a whole number of at least {smallest}, got {getattr(self, name)!r}")
        for name, smallest in (("where_mean", -math.inf), ("where_sd", 0.0)):
            values = getattr(self, name)
            if len(values) != geometry.WHERE_DIM or not all(smallest < value < math.inf for value in values):
                raise ValueError(f"{name} must be {geometry.WHERE_DIM} numbers above {smallest}, got {values}")
        for iteration in (0, None):
            self.make_likelihood(iteration)
        if isinstance(self.renderer, ObjectsConfig) and self.num_steps > 1:
            raise ValueError(f"3D scenes have one object: num_steps must be 1, got {self.num_steps}")

    def make_likelihood(self, iteration: int | None = None) -> Likelihood:
        """The likelihood that the settings name, at an iteration of training; None is the final one."""
        make = LIKELIHOODS[self.likelihood]
        final = make() if self.likelihood_scale is None else make(self.likelihood_scale)
        if iteration is None or self.initial_likelihood_scale is None or iteration >= self.likelihood_anneal_steps:
            return final
        fraction = iteration / self.likelihood_anneal_steps
        return make(make(self.initial_likelihood_scale).scale ** (1 - fraction) * final.scale**fraction)


@dataclass(frozen=True)
class Action:
    """One step's choice: ``z_pres [batch]`` (1 draws an object, 0 stops) and the object's latents.

    ``z_what`` is ``[batch, what]``, or ``[batch]`` of categories.
    """

    z_pres: Tensor
    z_where: Float[Tensor, "batch where"]
    z_what: Tensor


@dataclass(frozen=True)
class SceneState:
    """Where a batch of episodes stands."""

    images: Images
    """What is to be explained."""
    canvas: Images
    """What the objects so far draw."""
    log_p_x: Float[Tensor, "batch"]
    """``log p(x | canvas)``, nats."""
    step: Int[Tensor, "batch"]
    """Number of objects so far."""
    active: Bool[Tensor, "batch"]
    """Whether the episode goes on; the others are absorbing."""


@dataclass(frozen=True)
class RewardTerms:
    """The parts of a reward in nats, each ``[batch]`` or ``[batch, step]``; 0 for finished episodes."""

    likelihood_gain: Float[Tensor, "*batch"]
    log_p_z_where: Float[Tensor, "*batch"]
    log_p_z_what: Float[Tensor, "*batch"]
    log_p_z_pres: Float[Tensor, "*batch"]

    @property
    def total(self) -> Float[Tensor, "*batch"]:
        """The reward."""
        return self.likelihood_gain + self.log_p_z_where + self.log_p_z_what + self.log_p_z_pres


class SceneModel(nn.Module):
    """The generative model; its parameters, if any, are the renderer's.

    Example:
        >>> model = SceneModel(SceneConfig(num_steps=2))
        >>> images, z = model.sample(4, generator=torch.Generator().manual_seed(0))
        >>> model.log_joint(images, z).shape
        torch.Size([4])
    """

    log_p_count: Tensor
    log_p_go: Tensor
    log_p_stop: Tensor

    def __init__(self, config: SceneConfig) -> None:
        super().__init__()
        self.config = config
        self.likelihood = config.make_likelihood()
        self.renderer = config.renderer.make()
        self.prior_where = getattr(self.renderer, "prior_where", GaussianPrior(config.where_mean, config.where_sd))
        for name, size in [("log_p_count", 1), ("log_p_go", 0), ("log_p_stop", 1)]:
            self.register_buffer(name, torch.empty(config.num_steps + size), persistent=False)
        self._count_parameter: float | None = None
        self._iteration: int | None = None
        self.anneal(None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SceneModel":
        super()._apply(fn, recurse)
        # The tables again, in the new precision.
        self._count_parameter = None
        self.anneal(self._iteration)
        return self

    def anneal(self, iteration: int | None) -> None:
        """Sets the count prior and the likelihood as they are at an iteration of training; None is the end."""
        self._iteration = iteration
        self.likelihood = self.config.make_likelihood(iteration)
        parameter = self.config.count_prior.parameter_at(iteration)
        if parameter == self._count_parameter:
            return
        self._count_parameter = parameter
        log_p = self.config.count_prior.log_p(self.config.num_steps, iteration)
        go, stop = hazards(log_p)
        self.log_p_count.copy_(log_p)
        self.log_p_go.copy_(go)
        self.log_p_stop.copy_(stop)

    def initial(self, images: Images) -> SceneState:
        """Starts an episode on every image, with an empty canvas."""
        canvas = torch.zeros_like(images)
        return SceneState(
            images=images,
            canvas=canvas,
            log_p_x=self.likelihood.log_prob(images, canvas),
            step=torch.zeros(len(images), dtype=torch.long, device=images.device),
            active=torch.ones(len(images), dtype=torch.bool, device=images.device),
        )

    def step(self, state: SceneState, action: Action) -> tuple[SceneState, RewardTerms]:
        """Draws one more object, or stops, in every episode; finished episodes do not change.

        The latents of an episode that stops are ignored.
        """
        present = state.active & (action.z_pres > 0.5)
        # Absent objects are drawn at the origin, and what that draws is left out.
        z_where, z_what = masked(present, action.z_where), masked(present, action.z_what)
        drawn = self.renderer.draw(state.canvas, z_where, z_what)
        canvas = torch.where(present[:, None, None, None], drawn, state.canvas)
        log_p_x = torch.where(present, self.likelihood.log_prob(state.images, canvas), state.log_p_x)
        # Where the episode is over, step may be N, which go does not have.
        go = self.log_p_go[state.step.clamp_max(self.config.num_steps - 1)]
        log_p_z_pres = torch.where(present, go, torch.where(state.active, self.log_p_stop[state.step], 0.0))
        terms = RewardTerms(
            likelihood_gain=log_p_x - state.log_p_x,
            log_p_z_where=torch.where(present, self.prior_where.log_prob(z_where), 0.0),
            log_p_z_what=torch.where(present, self.prior_what.log_prob(z_what), 0.0),
            log_p_z_pres=log_p_z_pres,
        )
        step = state.step + present
        active = present & (step < self.config.num_steps)
        return SceneState(state.images, canvas, log_p_x, step, active), terms

    def unroll(
        self,
        images: Images,
        z_where: Float[Tensor, "batch step where"],
        z_what: Tensor,
    ) -> RewardTerms:
        """The rewards ``[batch, step]`` of N steps that all draw an object, computed at once.

        The same numbers as N calls of `step` with presence 1, for a plan that does not look at the canvas.
        """
        canvases = self.renderer.draw_all(torch.zeros_like(images), z_where, z_what)
        log_p_x = self.likelihood.log_prob(images[:, None], canvases)
        log_p_x_empty = self.likelihood.log_prob(images, torch.zeros_like(images))
        return RewardTerms(
            likelihood_gain=log_p_x.diff(dim=1, prepend=log_p_x_empty[:, None]),
            log_p_z_where=self.prior_where.log_prob(z_where),
            log_p_z_what=self.prior_what.log_prob(z_what),
            log_p_z_pres=self.log_p_go.expand(len(images), -1),
        )

    def soften(
        self, images: Images, z_where: Float[Tensor, "batch step where"], z_what: Tensor
    ) -> Callable[[Float[Tensor, "batch step"]], Float[Tensor, "batch"]]:
        """``log p(x | canvas)`` as a function of the extents, from 0 to 1, to which N objects are there.

        With falling extents ``e_1 >= ... >= e_N`` the canvas is ``sum_n (e_n - e_{n+1}) c_n``, a mixture of the
        canvases after n objects: where objects add up, each of them times its extent.
        """
        empty = torch.zeros_like(images)
        canvases = torch.cat([empty[:, None], self.renderer.draw_all(empty, z_where, z_what)], 1)

        def log_p_x(extents: Float[Tensor, "batch step"]) -> Float[Tensor, "batch"]:
            weights = -F.pad(F.pad(extents, (1, 0), value=1.0), (0, 1)).diff(dim=1)
            return self.likelihood.log_prob(images, torch.einsum("bn,bnchw->bchw", weights, canvases))

        return log_p_x

    def render(self, z: Explanation) -> Images:
        """The canvas that an explanation draws."""
        canvas = z.z_where.new_zeros(len(z.z_pres), *self.image_shape)
        present, z_where, z_what = _without_absent(z)
        for i in range(z.z_pres.shape[1]):
            rows = present[:, i].nonzero()[:, 0]
            if len(rows) > 0:
                drawn = self.renderer.draw(canvas[rows], z_where[rows, i], z_what[rows, i])
                canvas = canvas.index_copy(0, rows, drawn)
        return canvas

    def log_joint(self, images: Images, z: Explanation) -> Float[Tensor, "batch"]:
        """``log p(x, z, n)`` of whole scenes (Eq. 1), in nats."""
        present, z_where, z_what = _without_absent(z)
        log_p_z = self.prior_where.log_prob(z_where) + self.prior_what.log_prob(z_what)
        log_p_latents = torch.where(present, log_p_z, 0.0).sum(1)
        return self.log_p_count[z.count] + log_p_latents + self.likelihood.log_prob(images, self.render(z))

    def boxes(self, z_where: Float[Tensor, "*batch where"], z_what: Tensor) -> Float[Tensor, "*batch 4"]:
        """What to mark of objects in a picture, ``(x0, y0, x1, y1)`` in pixels: windows, or what outlines span."""
        if (outlines := self.outlines(z_where, z_what)) is None:
            return geometry.boxes(z_where, self.config.image_size)
        return (outlines + 1) * (self.config.image_size / 2)

    def outlines(self, z_where: Float[Tensor, "*batch where"], z_what: Tensor) -> Float[Tensor, "*batch 4"] | None:
        """What outlines of objects span, in image coordinates; None where ``z_where`` are windows."""
        boxes = getattr(self.renderer, "boxes", None)
        return None if boxes is None else boxes(z_where, z_what)

    def sample(self, num_scenes: int, generator: torch.Generator | None = None) -> tuple[Images, Explanation]:
        """Draws scenes from the model: images with their noise, and what they are made of."""
        num_steps = self.config.num_steps
        count = torch.multinomial(self.log_p_count.exp(), num_scenes, replacement=True, generator=generator)
        z_pres = (torch.arange(num_steps, device=count.device) < count[:, None]).to(self.log_p_count.dtype)
        z_where, z_what = (
            masked(z_pres > 0.5, prior.sample(num_scenes, num_steps, generator=generator))
            for prior in (self.prior_where, self.prior_what)
        )
        z = Explanation(z_pres, z_where, z_what)
        canvas = self.render(z)
        images = self.likelihood.sample(canvas, generator)
        return images, Explanation(z_pres, z_where, z_what, canvas)

    @property
    def where_dim(self) -> int:
        """Length of ``z_where``."""
        return geometry.WHERE_DIM

    @property
    def prior_what(self) -> Prior:
        """The prior of ``z_what``, which says its shape and type."""
        return self.renderer.prior_what

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.renderer.channels, self.config.image_size, self.config.image_size


def masked(present: Bool[Tensor, "*batch"], latents: Tensor) -> Tensor:
    """The latents ``[*batch, ...]``, with 0 for absent objects.

    Whatever the latents of absent objects hold then reaches neither values nor gradients.
    """
    zero = torch.zeros((), dtype=latents.dtype, device=latents.device)
    return torch.where(present.view(*present.shape, *[1] * (latents.dim() - present.dim())), latents, zero)


def _without_absent(z: Explanation) -> tuple[Tensor, Tensor, Tensor]:
    """Which objects are present, and ``z_where`` and ``z_what`` with 0 for the others."""
    present = z.z_pres > 0.5
    return present, masked(present, z.z_where), masked(present, z.z_what)
