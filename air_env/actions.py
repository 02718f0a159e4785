"""What an agent may do in a step, as a space and as what the space means.

    dict        Dict(z_pres, z_where, z_what): the object itself
    latents     Box(-1, 1): the object, flat, in units of its prior
    posterior   Box(-1, 1): a distribution q; the environment draws the object from it and pays -log q

The return of the first two is ``log p(x, z, n) - log p(x | c_0)``. That of the third has the agent's
entropy as well: it is a sample of the ELBO, so that whoever maximises it without discount maximises the
ELBO (docs/reinforcement_learning.md).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from air_env.model import Action, SceneModel
from air_env.priors import CategoricalPrior, GaussianPrior, gaussian_log_prob
from air_env.spaces import read_shaped

LATENT_BOUND = 50.0
"""Largest absolute value of a latent in an action.

Wide enough for the steps of a trained agent that never happen, whose latents nothing holds near the prior; narrow
enough for ``exp(log_scale)``, which overflows float32 at 88.
"""

PRIOR_SDS = 3.0
"""How many prior standard deviations from the prior's mean an entry of 1 is, in flat actions."""

LOGIT_SCALE = 10.0
"""The logit that an entry of 1 is, in flat actions."""

LOG_SD_RANGE = 6.0
"""A posterior's standard deviation runs from exp(-6) of the prior's at -1 to the prior's own at 1."""


class ActionMode(Protocol):
    """How actions of a space become objects."""

    @property
    def space(self) -> spaces.Space[Any]:
        """Of one episode's actions."""
        ...

    @property
    def noise_size(self) -> int:
        """How many random numbers the environment draws for a step of one episode."""
        ...

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Any:
        """Reads what a caller hands in, for `act`.

        Args:
            values: A batch of actions, tensors or arrays; latents that are ignored are checked as well.
            num_envs: Number of episodes; None reads one action without a batch axis into a batch of one.
            check: False skips the checks that read values, which on a GPU wait for it.

        Raises:
            ValueError: They are not of the space; the message says what is wrong.
        """
        ...

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the random numbers of one episode's step, ``[noise_size]``."""
        ...

    def act(self, values: Any, noise: Float[Tensor, "batch noise"]) -> tuple[Action, Float[Tensor, "batch"] | None]:
        """The objects, and ``log q`` of them in nats where the environment drew them."""
        ...


class DictActions:
    """The object itself: ``z_pres``, ``z_where`` and ``z_what`` by name."""

    noise_size = 0

    def __init__(self, model: SceneModel) -> None:
        self.model = model
        prior = model.prior_what
        self.space = spaces.Dict(
            {
                "z_pres": spaces.Discrete(2),
                "z_where": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (model.where_dim,), np.float32),
                "z_what": spaces.Discrete(prior.num_categories)
                if isinstance(prior, CategoricalPrior)
                else spaces.Box(-LATENT_BOUND, LATENT_BOUND, prior.event_shape, np.float32),
            }
        )

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Action:
        """Reads a dict of ``z_pres [batch]``, ``z_where [batch, where]`` and ``z_what``."""
        batch = () if num_envs is None else (num_envs,)
        names = list(self.space)
        if not isinstance(values, Mapping) or set(values) != set(names):
            found = f"one with {sorted(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"an action is a dict of z_pres, z_where, z_what; got {found}")
        z_pres = read_shaped("action 'z_pres'", values["z_pres"], batch, self.model)
        if check and not ((z_pres == 0) | (z_pres == 1)).all():
            raise ValueError("action 'z_pres' must be 1 (draw an object) or 0 (stop)")
        z_where = read_where("action 'z_where'", values["z_where"], batch, self.model, check=check)
        z_what = read_what("action 'z_what'", values["z_what"], batch, self.model, check=check)
        if num_envs is None:
            return Action(z_pres[None], z_where[None], z_what[None])
        return Action(z_pres, z_where, z_what)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Action, noise: Tensor) -> tuple[Action, None]:
        """The objects, which are the action."""
        del noise
        return values, None


class _FlatActions:
    """A vector of entries in [-1, 1], made of parts."""

    noise_size = 0

    def __init__(self, model: SceneModel, sizes: list[int]) -> None:
        self.model = model
        self.sizes = sizes
        self.space = spaces.Box(-1, 1, (sum(sizes),), np.float32)

    def read(self, values: Any, num_envs: int | None, *, check: bool = True) -> Tensor:
        """Reads a vector, or a matrix of one for each episode."""
        batch = () if num_envs is None else (num_envs,)
        flat = read_shaped("action", values, (*batch, sum(self.sizes)), self.model)
        flat = _within("action", flat, 1.0, check)
        return flat[None] if num_envs is None else flat


class FlatLatents(_FlatActions):
    """The object, as a vector of entries in [-1, 1].

    | entries | meaning |
    |---|---|
    | 1 | ``z_pres``: positive draws an object, 0 or less stops |
    | 3 | ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | what | ``z_what``, in the same units; or one entry for each category, of which the largest wins |
    """

    def __init__(self, model: SceneModel) -> None:
        super().__init__(model, [1, model.where_dim, _what_size(model)])

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Nothing."""
        del rng
        return np.empty(0)

    def act(self, values: Tensor, noise: Tensor) -> tuple[Action, None]:
        """The objects."""
        del noise
        z_pres, where, what = values.split(self.sizes, -1)
        prior = self.model.prior_what
        z_where = _decode_mean(where, self.model.prior_where)
        z_what = what.argmax(-1) if isinstance(prior, CategoricalPrior) else _decode_mean(what, prior)
        return Action((z_pres[..., 0] > 0).to(values.dtype), z_where, z_what), None


class FlatPosterior(_FlatActions):
    """A distribution over the object, as a vector of entries in [-1, 1].

    | entries | meaning |
    |---|---|
    | 1 | logit of drawing an object, in units of 10 |
    | 3 | means of ``z_where``, in units of 3 prior standard deviations from the prior's mean |
    | 3 | log standard deviations of ``z_where``: 1 is the prior's, -1 is exp(-6) of it |
    | what, what | the same of ``z_what``; or one logit for each category, in units of 10 |

    The environment draws with its own generator, so that a seed decides an episode, and ``log q`` is
    subtracted from the reward. Means and standard deviations get gradients through the drawn object.
    """

    def __init__(self, model: SceneModel) -> None:
        where, what = model.where_dim, _what_size(model)
        categorical = isinstance(model.prior_what, CategoricalPrior)
        super().__init__(model, [1, where, where, *([what] if categorical else [what, what])])
        self.noise_sizes = [1, where, 1 if categorical else what]
        self.noise_size = sum(self.noise_sizes)

    def noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Uniform for what is discrete, normal for the others."""
        pres, where, what = self.noise_sizes
        categorical = isinstance(self.model.prior_what, CategoricalPrior)
        draw_what = rng.random if categorical else rng.standard_normal
        return np.concatenate([rng.random(pres), rng.standard_normal(where), draw_what(what)])

    def act(self, values: Tensor, noise: Float[Tensor, "batch noise"]) -> tuple[Action, Float[Tensor, "batch"]]:
        """The objects that the noise draws, and their ``log q``."""
        logit, where_mean, where_sd, *what = values.split(self.sizes, -1)
        uniform, where_noise, what_noise = noise.split(self.noise_sizes, -1)
        logit = LOGIT_SCALE * logit[..., 0]
        present = uniform[..., 0] < logit.sigmoid()
        z_where, log_q_where = _draw_gaussian(where_mean, where_sd, self.model.prior_where, where_noise)
        if isinstance(self.model.prior_what, CategoricalPrior):
            z_what, log_q_what = _draw_category(LOGIT_SCALE * what[0], what_noise)
        else:
            mean, sd = what
            z_what, log_q_what = _draw_gaussian(mean, sd, self.model.prior_what, what_noise)
        log_q = F.logsigmoid(torch.where(present, logit, -logit))
        log_q = log_q + torch.where(present, log_q_where + log_q_what, 0.0)
        return Action(present.to(values.dtype), z_where, z_what), log_q

    def encode(
        self,
        logit: Float[Tensor, "*batch"],
        where: tuple[Tensor, Tensor],
        what: tuple[Tensor, Tensor] | Tensor,
    ) -> Float[Tensor, "*batch action"]:
        """The action of a distribution; parameters beyond what the space can say are clipped.

        Args:
            logit: Of drawing an object.
            where: Mean and standard deviation of ``z_where``.
            what: Mean and standard deviation of ``z_what``, or the logits of its categories.
        """
        parts = [logit[..., None] / LOGIT_SCALE, *_encode_gaussian(*where, self.model.prior_where)]
        prior = self.model.prior_what
        if isinstance(prior, CategoricalPrior):
            assert isinstance(what, Tensor)
            parts.append((what - what.amax(-1, keepdim=True)) / LOGIT_SCALE + 1)
        else:
            assert not isinstance(what, Tensor)
            parts.extend(_encode_gaussian(*what, prior))
        return torch.cat(parts, -1).clamp(-1, 1)


ACTION_MODES: dict[str, Callable[[SceneModel], ActionMode]] = {
    "dict": DictActions,
    "latents": FlatLatents,
    "posterior": FlatPosterior,
}
"""Name -> class, made for a model."""


def make_action_mode(name: str, model: SceneModel) -> ActionMode:
    """Makes a registered action mode."""
    if name not in ACTION_MODES:
        raise ValueError(f"action_mode {name!r} is unknown; choose one of {', '.join(ACTION_MODES)}")
    return ACTION_MODES[name](model)


def read_where(name: str, value: Any, batch: tuple[int, ...], model: SceneModel, *, check: bool = True) -> Tensor:
    """Reads windows ``[*batch, 3]``, in the model's device and dtype.

    Raises:
        ValueError: They are misshapen, not numbers, not finite or beyond `LATENT_BOUND`.
    """
    return _within(name, read_shaped(name, value, (*batch, model.where_dim), model), LATENT_BOUND, check)


def read_what(name: str, value: Any, batch: tuple[int, ...], model: SceneModel, *, check: bool = True) -> Tensor:
    """Reads codes ``[*batch, what]`` or categories ``[*batch]``, in the model's device and dtype.

    Raises:
        ValueError: As `read_where`; or a category is not one of the model's.
    """
    prior = model.prior_what
    latents = read_shaped(name, value, (*batch, *prior.event_shape), model)
    if not isinstance(prior, CategoricalPrior):
        return _within(name, latents, LATENT_BOUND, check)
    if check and not ((latents >= 0) & (latents < prior.num_categories) & (latents == latents.floor())).all():
        raise ValueError(f"{name} must be categories from 0 to {prior.num_categories - 1}")
    return latents.long()


def _what_size(model: SceneModel) -> int:
    """Entries that ``z_what`` takes in a flat action."""
    prior = model.prior_what
    return prior.num_categories if isinstance(prior, CategoricalPrior) else prior.event_shape[0]


def _decode_mean(entries: Tensor, prior: GaussianPrior) -> Tensor:
    return prior.mean + PRIOR_SDS * prior.sd * entries


def _draw_gaussian(mean: Tensor, sd: Tensor, prior: GaussianPrior, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised sample of the distribution that the entries describe, and its log-density."""
    mean, sd = _decode_mean(mean, prior), prior.sd * (LOG_SD_RANGE / 2 * (sd - 1)).exp()
    value = mean + sd * noise
    return value, gaussian_log_prob(value, mean, sd)


def _encode_gaussian(mean: Tensor, sd: Tensor, prior: GaussianPrior) -> tuple[Tensor, Tensor]:
    """The entries that describe a distribution."""
    return (mean - prior.mean) / (PRIOR_SDS * prior.sd), (sd / prior.sd).log() * (2 / LOG_SD_RANGE) + 1


def _draw_category(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The category that a uniform number draws, and its log-probability."""
    log_q = logits.log_softmax(-1)
    category = (uniform > log_q.exp().cumsum(-1)[..., :-1]).sum(-1)
    return category, log_q.gather(-1, category[..., None])[..., 0]


def _within(name: str, values: Tensor, bound: float, check: bool) -> Tensor:
    # NaN compares false, so that one reduction answers for NaN, infinity and the bound.
    if check and not (values.detach().abs() <= bound).all():
        if not values.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values; check the policy that made it")
        raise ValueError(
            f"{name} holds {values.detach().abs().max().item():g}, wanted values in [-{bound:g}, {bound:g}]; "
            "clip or rescale the policy's output"
        )
    return values
