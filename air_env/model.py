"""The world: the generative model of a scene, as pure, batched, differentiable functions.

    p(x, z, n) = p(n) * prod_{i <= n} p(z_where_i) p(z_what_i) * p(x | render(z_1..n))     (Eq. 1)

Everything the environments know is here. An episode explains one image; each `SceneModel.step`
adds one object or stops, and is rewarded by what it adds to the log-joint. With ``c_i`` the canvas
after i objects,

    present step i:  r_i    = log p(x|c_i) - log p(x|c_{i-1}) + log p(z_where_i) + log p(z_what_i)
                              + log p(z_pres_i = 1 | i - 1)
    stop after i:    r_stop = log p(z_pres = 0 | i)                          (0 when i = N)

so the rewards of an episode telescope:  sum r = log p(x, z, n) - log p(x | c_0).

Where scenes are seen by a camera (`SceneRenderer`), its latent belongs to the whole scene. The first action chooses it,
even if it stops, and is paid ``log p(z_camera)`` and what the scene without objects, seen from there, explains; before
it the canvas is black.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from air_env import geometry
from air_env.drawing import Action, Images, Layout, drawing_of
from air_env.explanation import Explanation
from air_env.priors import GaussianPrior, Prior, hazards
from air_env.scene_config import SceneConfig


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
    layout: Layout | None = None
    """What was said so far of a scene that a camera sees; None where there is no camera."""


@dataclass(frozen=True)
class RewardTerms:
    """The parts of a reward in nats, each ``[batch]`` or ``[batch, step]``; 0 for finished episodes."""

    likelihood_gain: Float[Tensor, "*batch"]
    log_p_z_where: Float[Tensor, "*batch"]
    log_p_z_what: Float[Tensor, "*batch"]
    log_p_z_pres: Float[Tensor, "*batch"]
    log_p_z_camera: Float[Tensor, "*batch"] | None = None

    @property
    def parts(self) -> dict[str, Float[Tensor, "*batch"]]:
        """The parts that there are, by name."""
        # `dataclasses.asdict` would copy the tensors and cut their graph.
        return {f.name: part for f in fields(self) if (part := getattr(self, f.name)) is not None}

    @property
    def total(self) -> Float[Tensor, "*batch"]:
        """The reward."""
        return sum(self.parts.values(), torch.zeros(()))


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
        self._drawing = drawing_of(self.renderer, config.num_steps)
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
            layout=self._drawing.begin(images),
        )

    def step(self, state: SceneState, action: Action) -> tuple[SceneState, RewardTerms]:
        """Draws one more object, or stops, in every episode; finished episodes do not change.

        The latents of an episode that stops are ignored.
        """
        present = state.active & (action.z_pres > 0.5)
        first = state.active & (state.step == 0)
        # Absent objects are drawn at the origin, and what that draws is left out.
        action = replace(action, z_where=masked(present, action.z_where), z_what=masked(present, action.z_what))
        canvas, layout = self._drawing.add(state.canvas, state.layout, state.step, present, first, action)
        log_p_x = torch.where(present | first, self.likelihood.log_prob(state.images, canvas), state.log_p_x)
        # Where the episode is over, step may be N, which go does not have.
        go = self.log_p_go[state.step.clamp_max(self.config.num_steps - 1)]
        log_p_z_pres = torch.where(present, go, torch.where(state.active, self.log_p_stop[state.step], 0.0))
        terms = RewardTerms(
            likelihood_gain=log_p_x - state.log_p_x,
            log_p_z_where=torch.where(present, self.prior_where.log_prob(action.z_where), 0.0),
            log_p_z_what=torch.where(present, self.prior_what.log_prob(action.z_what), 0.0),
            log_p_z_pres=log_p_z_pres,
            log_p_z_camera=self._log_p_camera(action.z_camera, first),
        )
        step = state.step + present
        active = present & (step < self.config.num_steps)
        return SceneState(state.images, canvas, log_p_x, step, active, layout), terms

    def unroll(
        self,
        images: Images,
        z_where: Float[Tensor, "batch step where"],
        z_what: Tensor,
        z_camera: Float[Tensor, "batch camera"] | None = None,
    ) -> RewardTerms:
        """The rewards ``[batch, step]`` of N steps that all draw an object, computed at once.

        The same numbers as N calls of `step` with presence 1, for a plan that does not look at the canvas.
        """
        z = Explanation(torch.ones_like(z_where[..., 0]), z_where, z_what, z_camera=z_camera)
        log_p_x = self.likelihood.log_prob(images[:, None], self._drawing.prefixes(images, z))
        black = self.likelihood.log_prob(images, torch.zeros_like(images))
        first = (torch.arange(z_where.shape[1], device=images.device) == 0).expand_as(z.z_pres)
        return RewardTerms(
            likelihood_gain=log_p_x.diff(dim=1, prepend=black[:, None]),
            log_p_z_where=self.prior_where.log_prob(z_where),
            log_p_z_what=self.prior_what.log_prob(z_what),
            log_p_z_pres=self.log_p_go.expand(len(images), -1),
            log_p_z_camera=self._log_p_camera(None if z_camera is None else z_camera[:, None], first),
        )

    def log_p_x_empty(
        self, images: Images, z_camera: Float[Tensor, "batch camera"] | None = None
    ) -> Float[Tensor, "batch"]:
        """``log p(x)`` without any object, as the camera sees it where there is one."""
        return self.likelihood.log_prob(images, self._empty(images, z_camera))

    def _empty(self, images: Images, z_camera: Float[Tensor, "batch camera"] | None = None) -> Images:
        none = images.new_zeros(len(images), 0)
        what = none.new_zeros(len(images), 0, *self.prior_what.event_shape, dtype=self.prior_what.dtype)
        z = Explanation(none, images.new_zeros(len(images), 0, self.where_dim), what, z_camera=z_camera)
        return self._drawing.whole(torch.zeros_like(images), z)

    def _log_p_camera(
        self, z_camera: Float[Tensor, "*#batch camera"] | None, first: Bool[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"] | None:
        """``log p(z_camera)`` of first actions, 0 of others; None where there is no camera."""
        if self.prior_camera is None or z_camera is None:
            return None
        return torch.where(first, self.prior_camera.log_prob(z_camera), 0.0)

    def soften(
        self, images: Images, z_where: Float[Tensor, "batch step where"], z_what: Tensor
    ) -> Callable[[Float[Tensor, "batch step"]], Float[Tensor, "batch"]]:
        """``log p(x | canvas)`` as a function of the extents, from 0 to 1, to which N objects are there.

        With falling extents ``e_1 >= ... >= e_N`` the canvas is ``sum_n (e_n - e_{n+1}) c_n``, a mixture of the
        canvases after n objects: where objects add up, each of them times its extent.
        """
        z = Explanation(torch.ones_like(z_where[..., 0]), z_where, z_what)
        canvases = torch.cat([self._empty(images)[:, None], self._drawing.prefixes(images, z)], 1)

        def log_p_x(extents: Float[Tensor, "batch step"]) -> Float[Tensor, "batch"]:
            weights = -F.pad(F.pad(extents, (1, 0), value=1.0), (0, 1)).diff(dim=1)
            return self.likelihood.log_prob(images, torch.einsum("bn,bnchw->bchw", weights, canvases))

        return log_p_x

    def render(self, z: Explanation) -> Images:
        """The canvas that an explanation draws."""
        return self._drawing.whole(z.z_where.new_zeros(len(z.z_pres), *self.image_shape), _without_absent(z))

    def log_joint(self, images: Images, z: Explanation) -> Float[Tensor, "batch"]:
        """``log p(x, z, n)`` of whole scenes (Eq. 1), in nats."""
        known = _without_absent(z)
        log_p_z = self.prior_where.log_prob(known.z_where) + self.prior_what.log_prob(known.z_what)
        log_p_latents = torch.where(z.z_pres > 0.5, log_p_z, 0.0).sum(1)
        log_p_x = self.likelihood.log_prob(images, self.render(z))
        log_p_camera = self._log_p_camera(z.z_camera, torch.ones_like(z.count, dtype=torch.bool))
        if log_p_camera is not None:
            log_p_latents = log_p_latents + log_p_camera
        return self.log_p_count[z.count] + log_p_latents + log_p_x

    def boxes(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """What to mark of objects in a picture, ``(x0, y0, x1, y1)`` in pixels: windows, or what outlines span.

        Args:
            z: Explanations; what they mark of absent objects means nothing.
        """
        if (outlines := self.outlines(z)) is None:
            return geometry.boxes(z.z_where, self.config.image_size)
        return (outlines + 1) * (self.config.image_size / 2)

    def outlines(self, z: Explanation) -> Float[Tensor, "batch step 4"] | None:
        """What outlines of objects span, in image coordinates; None where ``z_where`` are windows."""
        boxes = getattr(self.renderer, "boxes", None)
        if boxes is None:
            return None
        camera = [] if z.z_camera is None else [z.z_camera]
        return boxes(z.z_where, z.z_what, *camera)

    def sample(self, num_scenes: int, generator: torch.Generator | None = None) -> tuple[Images, Explanation]:
        """Draws scenes from the model: images with their noise, and what they are made of."""
        num_steps = self.config.num_steps
        count = torch.multinomial(self.log_p_count.exp(), num_scenes, replacement=True, generator=generator)
        z_pres = (torch.arange(num_steps, device=count.device) < count[:, None]).to(self.log_p_count.dtype)
        z_where, z_what = (
            masked(z_pres > 0.5, prior.sample(num_scenes, num_steps, generator=generator))
            for prior in (self.prior_where, self.prior_what)
        )
        camera = None if self.prior_camera is None else self.prior_camera.sample(num_scenes, generator=generator)
        z = Explanation(z_pres, z_where, z_what, z_camera=camera)
        canvas = self.render(z)
        return self.likelihood.sample(canvas, generator), replace(z, reconstruction=canvas)

    @property
    def where_dim(self) -> int:
        """Length of ``z_where``."""
        return self.prior_where.event_shape[0]

    @property
    def camera_dim(self) -> int:
        """Length of ``z_camera``; 0 where there is no camera."""
        return 0 if self.prior_camera is None else self.prior_camera.event_shape[0]

    @property
    def prior_camera(self) -> GaussianPrior | None:
        """The prior of ``z_camera``; None where there is no camera."""
        return getattr(self.renderer, "prior_camera", None)

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


def _without_absent(z: Explanation) -> Explanation:
    """The explanation, with ``z_where`` and ``z_what`` 0 where no object is present."""
    present = z.z_pres > 0.5
    return replace(z, z_where=masked(present, z.z_where), z_what=masked(present, z.z_what))
