"""Feature extractor and hybrid-action policy for Stable-Baselines3."""

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from air_env.geometry import WHERE_DIM

from ..inference.cores import SpatialSoftmax


class SceneExtractor(BaseFeaturesExtractor):
    """Features of image, canvas and step.

    A small convolutional network sees the image, and what the canvas lacks of it. Beside what it sees it says where
    each of its maps of attention lies (a spatial softmax; Levine et al., "End-to-End Training of Deep Visuomotor
    Policies", 2016), so that the place of an object is linear in the features. The step is one-hot.

    Args:
        observation_space: Of `AIRSceneFlat-v1`.
        maps: Number of maps of attention.
        features: Length of what it says about what it sees.
    """

    def __init__(self, observation_space: spaces.Dict, maps: int = 16, features: int = 64) -> None:
        num_counts = int(spaces.flatdim(observation_space["step"]))
        super().__init__(observation_space, features + 2 * maps + num_counts)
        shape = observation_space["image"].shape
        assert shape is not None
        channels, rows, columns = shape[0], shape[1] // 4, shape[2] // 4
        self.patches = nn.Sequential(nn.Conv2d(2 * channels, 32, 4, stride=4), nn.ReLU())
        self.what = nn.Sequential(
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * ((rows + 1) // 2) * ((columns + 1) // 2), features),
            nn.ReLU(),
        )
        # Centres of patches of 4 pixels.
        y, x = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in (rows, columns))
        y, x = torch.meshgrid(y, x, indexing="ij")
        self.places = SpatialSoftmax(torch.stack([x.flatten(), y.flatten()], 1), 32, maps)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """The features ``[batch, feature]`` of observations with pixels in [0, 1]."""
        image = observations["image"]
        error = image - observations["canvas"]
        patches = self.patches(torch.cat([image, error], 1))
        unexplained = F.avg_pool2d(error.abs().mean(1), 4).flatten(1)
        where = self.places(patches.flatten(2).mT, unexplained)
        # SB3's buffers keep the step as a row, its environments as a number.
        return torch.cat([where.flatten(1), self.what(patches), observations["step"].flatten(1)], 1)


class HybridDistribution(DiagGaussianDistribution):
    """A distribution over objects as flat latents: is there one, and if so, where and what is it?

        q(a) = q(z_pres) [q(z_where) q(z_what)] ** z_pres

    ``z_pres`` is Bernoulli, continuous latents are normal, a category is categorical. The latents of an absent
    object, which the environment ignores, are 0 and cost nothing: their noise is not in the gradient. Entropy and
    log-probability are exact, in nats.

    Args:
        size: Number of entries of an action.
        num_categories: How many of the last entries name a category; 0 if none do.
        exploration: The probability of drawing an object is kept this far from 0 and 1.
    """

    def __init__(self, size: int, num_categories: int, exploration: float = 0.0) -> None:
        super().__init__(size)
        self.sizes = [1, size - 1 - num_categories, num_categories]
        self.exploration = exploration

    def proba_distribution_net(self, latent_dim: int, log_std_init: float = 0.0) -> tuple[nn.Module, nn.Parameter]:
        """The layer that makes the parameters, and the log standard deviations, which do not depend on the image."""
        return nn.Linear(latent_dim, sum(self.sizes)), nn.Parameter(torch.full((self.sizes[1],), log_std_init))

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> Self:
        """Sets the parameters: presence logits, means, and logits of the categories, side by side."""
        logit, mean, what = mean_actions.split(self.sizes, -1)
        share = self.exploration + (1 - 2 * self.exploration) * logit[:, 0].sigmoid()
        self.presence = torch.distributions.Bernoulli(probs=share, validate_args=False)
        self.distribution = torch.distributions.Normal(mean, log_std.exp().expand_as(mean), validate_args=False)
        self.category = torch.distributions.Categorical(logits=what, validate_args=False) if what.shape[-1] else None
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """``log q`` of actions, ``[batch]``."""
        z_pres, latents, what = actions.split(self.sizes, -1)
        log_q = self.distribution.log_prob(latents).sum(-1)
        if self.category is not None:
            log_q = log_q + self.category.log_prob(what.argmax(-1))
        present = (z_pres[:, 0] > 0).to(log_q.dtype)
        return self.presence.log_prob(present) + present * log_q

    def entropy(self) -> Tensor:
        """The entropy, ``[batch]``."""
        entropy = self.distribution.entropy().sum(-1)
        if self.category is not None:
            entropy = entropy + self.category.entropy()
        return self.presence.entropy() + self.presence.probs * entropy

    def sample(self) -> Tensor:
        """Draws actions."""
        what = None if self.category is None else self.category.sample()
        return self._action(self.presence.sample(), self.distribution.rsample(), what)

    def mode(self) -> Tensor:
        """The most probable presence, and the most probable latents given it."""
        what = None if self.category is None else self.category.logits.argmax(-1)
        return self._action((self.presence.probs > 0.5).to(self.distribution.mean.dtype), self.distribution.mean, what)

    def _action(self, z_pres: Tensor, latents: Tensor, what: Tensor | None) -> Tensor:
        if what is not None:
            latents = torch.cat([latents, 2 * F.one_hot(what, self.sizes[2]).to(latents.dtype) - 1], -1)
        return torch.cat([2 * z_pres[:, None] - 1, z_pres[:, None] * latents], -1)


class HybridPolicy(MultiInputActorCriticPolicy):
    """A policy of PPO and A2C for ``action_mode="latents"``: `HybridDistribution` on features of `SceneExtractor`.

    Args:
        num_categories: How many of the last entries of an action name a category, 0 if none do; by default what
            the action space says.
        exploration: As `HybridDistribution` has it.
        options: As for SB3's own policies.

    Example:
        >>> from stable_baselines3 import PPO
        >>> agent = PPO(HybridPolicy, "air_env:AIRSceneFlat-v1")
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        num_categories: int | None = None,
        exploration: float = 0.02,
        features_extractor_class: type[BaseFeaturesExtractor] = SceneExtractor,
        net_arch: dict[str, list[int]] | list[int] | None = None,
        **options: Any,
    ) -> None:
        if num_categories is None:
            num_categories = getattr(action_space, "num_categories", None)
        if num_categories is None or not 0 <= num_categories <= spaces.flatdim(action_space) - 1 - WHERE_DIM:
            raise ValueError(
                f"num_categories must be given for this action space, got {num_categories}: how many of the last "
                f"entries of an action name a category, 0 if none do; policy_kwargs={{'num_categories': ...}}"
            )
        self._hybrid = {"num_categories": num_categories, "exploration": exploration}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class,
            net_arch={"pi": [], "vf": [64]} if net_arch is None else net_arch,
            **options,
        )

    @property
    def actor(self) -> nn.Module:
        """Refuses algorithms that learn from old transitions, which want an actor apart from the critic.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "HybridPolicy is a policy of PPO and A2C, and has no actor apart; SAC, TD3, DDPG take 'MultiInputPolicy' "
            "with policy_kwargs={'features_extractor_class': SceneExtractor}"
        )

    @property
    def exploration(self) -> float:
        """How far the probability of drawing an object is kept from 0 and 1; may be set while training."""
        return self._hybrid["exploration"]

    @exploration.setter
    def exploration(self, value: float) -> None:
        self._hybrid["exploration"] = self.action_dist.exploration = value

    def _build(self, lr_schedule: Schedule) -> None:
        self.action_dist = HybridDistribution(spaces.flatdim(self.action_space), **self._hybrid)
        super()._build(lr_schedule)
        # At first objects are drawn where the first map of attention lies: far from any object there is nothing to
        # learn about places, but that it costs least to draw outside the image.
        if (
            isinstance(self.features_extractor, SceneExtractor)
            and self.mlp_extractor.latent_dim_pi == self.features_dim
        ):
            weight = self.action_net.weight
            assert isinstance(weight, Tensor)
            weight.data[2:4, :2] = 0.65 * torch.eye(2)

    def _get_constructor_parameters(self) -> dict[str, object]:
        return super()._get_constructor_parameters() | self._hybrid
