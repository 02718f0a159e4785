"""The world: the generative model of a scene, as pure, batched, differentiable functions.

    p(x, z, n) = p(n) * prod_{i <= n} p(z_where_i) p(z_what_i) * p(x | render(z_1..n))     (Eq. 1)

Numbers of equations, sections and figures are those of Eslami et al. (2016), "Attend, Infer, Repeat".

Everything the environments know is here. An episode explains one image; each `SceneModel.step`
adds one object or stops, and is rewarded by what it adds to the log-joint. With ``c_i`` the canvas
after i objects,

    present step i:  r_i    = log p(x|c_i) - log p(x|c_{i-1}) + log p(z_where_i) + log p(z_what_i)
                              + log p(z_pres_i = 1 | i - 1)
    stop after i:    r_stop = log p(z_pres = 0 | i)                          (0 when i = N)

so the rewards of an episode telescope:  sum r = log p(x, z, n) - log p(x | c_0).

A scene may have a latent of its own, ``z_scene``, such as the angle of its camera or the code of its background; it has
length zero where there is none. The first action chooses it, even if that action stops. Its reward adds
``log p(z_scene)`` and the log-likelihood gained by drawing the empty scene; before it the canvas is black.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Action, DrawnExplanation, Explanation, Images, masked
from air_env.precision import exact
from air_env.priors import GaussianPrior, Prior, hazards
from air_env.renderers import Background, Renderer
from air_env.rewards import RewardTerms
from air_env.scene_config import SceneConfig


@dataclass(frozen=True)
class SceneState:
    """Where a batch of episodes stands."""

    images: Images
    """What is to be explained."""
    canvas: Images
    """The background and what the objects so far draw; black before the first action."""
    log_p_x: Float[Tensor, "batch"]
    """``log p(x | canvas)``, nats."""
    step: Int[Tensor, "batch"]
    """Number of objects so far."""
    active: Bool[Tensor, "batch"]
    """Whether the episode goes on; the others are absorbing."""
    z: Explanation
    """What was said so far; 0 for what was not."""


class SceneModel(nn.Module):
    """The generative model; its parameters, if any, are the renderer's and the background's.

    Example:
        >>> model = SceneModel(SceneConfig(num_steps=2))
        >>> images, z = model.sample(4, generator=torch.Generator().manual_seed(0))
        >>> model.log_joint(images, z).shape
        torch.Size([4])
    """

    log_p_count: Tensor
    """``log p(n)``, ``[N + 1]``."""
    log_p_go: Tensor
    """``log p(z_pres_{i+1} = 1 | i)``, ``[N]``."""
    log_p_stop: Tensor
    """``log p(z_pres = 0 | i)``, ``[N + 1]``."""

    def __init__(self, config: SceneConfig) -> None:
        super().__init__()
        self.config = config
        self.likelihood = config.make_likelihood()
        self.renderer: Renderer = config.make_renderer()
        if config.num_steps > self.renderer.max_steps:
            raise ValueError(
                f"num_steps must be at most {self.renderer.max_steps}, as many objects as renderers of kind "
                f"{config.renderer.kind!r} draw; got {config.num_steps}"
            )
        self.background = None
        if config.background is not None:
            self.background = Background(config.background, config.background_hidden, self.image_shape)
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
        """Sets the count prior and the likelihood as they are at an iteration of training; None is the end.

        Whoever trains calls it once an iteration.
        """
        self._iteration = iteration
        if not isinstance(self.likelihood, nn.Module):  # what is learned stays
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
        """Starts an episode on every image, with a black canvas."""
        canvas = torch.zeros_like(images)
        return SceneState(
            images=images,
            canvas=canvas,
            log_p_x=self.likelihood.log_prob(images, canvas),
            step=torch.zeros(len(images), dtype=torch.long, device=images.device),
            active=torch.ones(len(images), dtype=torch.bool, device=images.device),
            z=self.nothing(images, self.config.num_steps),
        )

    def nothing(self, like: Tensor, num_slots: int = 0) -> Explanation:
        """The explanation without objects of as many scenes as a tensor has rows, with a ``z_scene`` of 0."""
        batch, what = len(like), self.prior_what
        return Explanation(
            z_pres=like.new_zeros(batch, num_slots),
            z_where=like.new_zeros(batch, num_slots, self.where_dim),
            z_what=like.new_zeros(batch, num_slots, *what.event_shape, dtype=what.dtype),
            z_scene=like.new_zeros(batch, self.scene_dim),
        )

    def step(self, state: SceneState, action: Action) -> tuple[SceneState, RewardTerms]:
        """Draws one more object, or stops, in every episode; finished episodes do not change.

        The latents of an episode that stops are ignored.
        """
        present = state.active & (action.z_pres > 0.5)
        # First actions also draw the empty scene, whose look depends on z_scene.
        first = state.active & (state.step == 0)
        action = replace(action, z_where=masked(present, action.z_where), z_what=masked(present, action.z_what))
        z = _extended(state, action, present, first)
        before = torch.where(first[:, None, None, None], self.blank(z), state.canvas)
        # Where nothing is new, what is drawn is left out.
        canvas = torch.where((present | first)[:, None, None, None], self.renderer.draw(before, z), state.canvas)
        log_p_x = torch.where(present | first, self.likelihood.log_prob(state.images, canvas), state.log_p_x)
        # Where the episode is over, step may be N, which go does not have.
        go = self.log_p_go[state.step.clamp_max(self.config.num_steps - 1)]
        terms = RewardTerms(
            likelihood_gain=log_p_x - state.log_p_x,
            log_p_z_where=torch.where(present, self.prior_where.log_prob(action.z_where), 0.0),
            log_p_z_what=torch.where(present, self.prior_what.log_prob(action.z_what), 0.0),
            log_p_z_pres=torch.where(present, go, torch.where(state.active, self.log_p_stop[state.step], 0.0)),
            log_p_z_scene=torch.where(first, self.prior_scene.log_prob(action.z_scene), 0.0),
        )
        step = state.step + present
        active = present & (step < self.config.num_steps)
        return SceneState(state.images, canvas, log_p_x, step, active, z), terms

    def unroll(self, images: Images, z: Explanation) -> RewardTerms:
        """The rewards ``[batch, step]`` of N steps that all draw an object, computed at once.

        The same numbers as N calls of `step` with presence 1, for a plan that does not look at the canvas. Training
        uses it, where an agent plans all N steps.
        """
        black = torch.zeros_like(images)
        log_p_x = self.likelihood.log_prob(images[:, None], self.renderer.draw_all(self.blank(z), z))
        first = torch.arange(z.z_pres.shape[1], device=images.device) == 0
        return RewardTerms(
            likelihood_gain=log_p_x.diff(dim=1, prepend=self.likelihood.log_prob(images, black)[:, None]),
            log_p_z_where=self.prior_where.log_prob(z.z_where),
            log_p_z_what=self.prior_what.log_prob(z.z_what),
            log_p_z_pres=self.log_p_go.expand(len(images), -1),
            log_p_z_scene=torch.where(first, self.prior_scene.log_prob(z.z_scene)[:, None], 0.0),
        )

    def log_joints(self, images: Images, z: Explanation) -> Float[Tensor, "batch count"]:
        """``log p(x, z_1..n, n)`` in nats of the first n of N objects that are all present, for every n from 0 to N."""
        terms = self.unroll(images, z)
        black = self.likelihood.log_prob(images, torch.zeros_like(images))
        log_p_x = terms.log_p_x(black, self.log_p_x_empty(images, z.z_scene))
        return self.scores(log_p_x, terms.log_p_z_where + terms.log_p_z_what, terms.log_p_z_scene[:, 0])

    def scores(
        self,
        log_p_x: Float[Tensor, "batch count"],
        objects: Float[Tensor, "batch step"],
        scene: Float[Tensor, "batch"],
    ) -> Float[Tensor, "batch count"]:
        """``log p(x | c_n) + log p(n)`` and what the scene and the first n objects add, for every n from 0 to N."""
        return log_p_x + F.pad((self.log_p_go + objects).cumsum(1), (1, 0)) + scene[:, None] + self.log_p_stop

    def log_p_x_empty(self, images: Images, z_scene: Float[Tensor, "batch scene"]) -> Float[Tensor, "batch"]:
        """``log p(x)`` of scenes without any object."""
        return self.likelihood.log_prob(images, self.render(replace(self.nothing(images), z_scene=z_scene)))

    def soften(self, images: Images, z: Explanation) -> Callable[[Float[Tensor, "batch step"]], Float[Tensor, "batch"]]:
        """``log p(x | canvas)`` as a function of the extents, from 0 to 1, to which N objects are there.

        With falling extents ``e_1 >= ... >= e_N`` the canvas is ``sum_n (e_n - e_{n+1}) c_n``, a mixture of the
        canvases after n objects: where objects add up, each of them times its extent. Gradient estimators that relax
        the presences use it.
        """
        empty, every = self.render(z.first(0)), self.renderer.draw_all(self.blank(z), z)
        canvases = torch.cat([empty[:, None], every], 1)

        @exact
        def log_p_x(extents: Float[Tensor, "batch step"]) -> Float[Tensor, "batch"]:
            weights = -F.pad(F.pad(extents, (1, 0), value=1.0), (0, 1)).diff(dim=1)
            return self.likelihood.log_prob(images, torch.einsum("bn,bnchw->bchw", weights, canvases))

        return log_p_x

    def render(self, z: Explanation) -> Images:
        """The canvas that an explanation draws."""
        return self.renderer.render(self.blank(z), z.without_absent())

    def blank(self, z: Explanation) -> Images:
        """What objects are drawn onto: the background, or black."""
        if self.background is None:
            return z.z_where.new_zeros(len(z.z_pres), *self.image_shape)
        return self.background(z.z_scene)

    def drawn(self, z: Explanation) -> DrawnExplanation:
        """An explanation with the canvas that it draws, what its objects span and where they were looked for."""
        return DrawnExplanation(
            z.z_pres, z.z_where, z.z_what, z.z_scene, self.render(z), self.outlines(z), self.windows(z)
        )

    def log_joint(self, images: Images, z: Explanation) -> Float[Tensor, "batch"]:
        """``log p(x, z, n)`` of whole scenes (Eq. 1), in nats."""
        known = z.without_absent()
        log_p_z = self.prior_where.log_prob(known.z_where) + self.prior_what.log_prob(known.z_what)
        log_p_latents = torch.where(z.z_pres > 0.5, log_p_z, 0.0).sum(1) + self.prior_scene.log_prob(z.z_scene)
        return self.log_p_count[z.count] + log_p_latents + self.likelihood.log_prob(images, self.render(z))

    def outlines(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """What objects span, ``(x0, y0, x1, y1)`` in image coordinates; NaN where no object is present."""
        return torch.where(z.z_pres[..., None] > 0, self.renderer.boxes(z), torch.nan)

    def windows(self, z: Explanation) -> Float[Tensor, "batch step 4"]:
        """The attention windows, as `outlines`, which they are themselves where ``z_where`` is no window."""
        if not self.config.renderer.windows:
            return self.outlines(z)
        return torch.where(z.z_pres[..., None] > 0, geometry.outlines(z.z_where), torch.nan)

    def sample(
        self, num_scenes: int, generator: torch.Generator | None = None, count: Int[Tensor, "batch"] | None = None
    ) -> tuple[Images, Explanation]:
        """Draws scenes from the model: images with their noise, and what they are made of; the count may be given."""
        num_steps = self.config.num_steps
        if count is None:
            count = torch.multinomial(self.log_p_count.exp(), num_scenes, replacement=True, generator=generator)
        z_pres = (torch.arange(num_steps, device=count.device) < count[:, None]).to(self.log_p_count.dtype)
        z_where, z_what = (
            masked(z_pres > 0.5, prior.sample(num_scenes, num_steps, generator=generator))
            for prior in (self.prior_where, self.prior_what)
        )
        z = Explanation(z_pres, z_where, z_what, self.prior_scene.sample(num_scenes, generator=generator))
        return self.likelihood.sample(self.render(z), generator), z

    @property
    def priors(self) -> dict[str, Prior]:
        """The priors of the latents beside ``z_pres``, by name."""
        return {"z_where": self.prior_where, "z_what": self.prior_what, "z_scene": self.prior_scene}

    @property
    def prior_where(self) -> GaussianPrior:
        """The prior of ``z_where``."""
        return self.renderer.prior_where

    @property
    def prior_what(self) -> Prior:
        """The prior of ``z_what``, which says its shape and type."""
        return self.renderer.prior_what

    @property
    def prior_scene(self) -> GaussianPrior:
        """The prior of ``z_scene``; of length zero where there is none."""
        return self.renderer.prior_scene

    @property
    def where_dim(self) -> int:
        """Length of ``z_where``."""
        return self.prior_where.size

    @property
    def scene_dim(self) -> int:
        """Length of ``z_scene``."""
        return self.prior_scene.size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.renderer.channels, self.config.image_size, self.config.image_size


def _extended(
    state: SceneState, action: Action, present: Bool[Tensor, "batch"], first: Bool[Tensor, "batch"]
) -> Explanation:
    """What is said after an action: one more object where one is present, and the scene's latent by first actions."""
    z = state.z
    slots = torch.arange(z.z_pres.shape[1], device=state.step.device)
    new = present[:, None] & (slots == state.step[:, None])
    return Explanation(
        z_pres=torch.where(new, 1.0, z.z_pres),
        z_where=torch.where(new[..., None], action.z_where[:, None], z.z_where),
        z_what=torch.where(new.view(*new.shape, *[1] * (z.z_what.dim() - 2)), action.z_what[:, None], z.z_what),
        z_scene=torch.where(first[:, None], action.z_scene, z.z_scene),
    )
