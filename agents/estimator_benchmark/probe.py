"""What is looked at in the course of a training run: how noisy the gradient of the stop action is by now."""

from contextlib import suppress

import torch

from ..estimators.enumeration import NotEnumerable
from ..inference.exploration import Exploration
from ..training.trainer import Trainer
from .measures import count_likelihoods, logit_variance


def probe(trainer: Trainer) -> dict[str, float]:
    """Measures the estimator on a few training images, with the same noise every time; changes nothing.

    Returns:
        - ``likelihoods``: likelihood evaluations for an image and iteration.
        - ``added_variance``: what the estimator adds to the variance of an image's gradient in the presence logits,
          given the path, nats^2; neither this nor the next where particles are too many to sum over.
        - ``gradient_square``: the square of that gradient's exact value, nats^2.
        - ``saturation``: mean ``|logit|`` of the network, without exploration.
    """
    agent, estimator = trainer.agent, trainer.estimator
    recipe, device = trainer.recipe, trainer.device
    generator = torch.Generator(device).manual_seed(recipe.seed)
    size = (recipe.batch_size * estimator.num_particles, recipe.model.num_steps, agent.latent_dim)
    problem = trainer.problem(torch.arange(recipe.batch_size), torch.randn(size, generator=generator, device=device))
    found = {"likelihoods": count_likelihoods(estimator, problem)}
    with suppress(NotEnumerable):
        added, square = logit_variance(estimator, problem, generator)
        found["added_variance"], found["gradient_square"] = added.mean().item(), square.mean().item()
    exploration, agent.exploration = agent.exploration, Exploration()
    try:
        plain = trainer.problem(torch.arange(recipe.batch_size), torch.zeros(size, device=device))
    finally:
        agent.exploration = exploration
    return found | {"saturation": plain.logits.abs().mean().item()}
