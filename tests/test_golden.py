"""Golden numbers: what the code computed once, to the last digits, so that no change of them goes unnoticed."""

import pytest
import torch

from air_agents.estimators import ESTIMATORS
from air_agents.estimators.testing import randomised, toy_problem

ESTIMATES = {
    # The negative ELBO of each image; nothing is drawn.
    "exact": ([88.482701779394, 84.408645555174, 68.062205471104], [7.544300602918, 51.341128650500]),
    # A surrogate, whose value means nothing, and the regression of its baseline.
    "half_critic": ([-67.254057841186, -1304.794154772245, -93.878633540164], [-794.727441289384, -3178.909765157536]),
    # Two particles for each image.
    "vimco": ([68.385867790533, 141.577146902997, 70.997953722543], [23.844809844599, 32.718559115043]),
}
"""Estimator -> loss of each image, and the sums of its gradients in the toy network's two parameters."""


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimators_losses_and_gradients_are_what_they_were(name):
    losses, gradients = ESTIMATES[name]
    estimator = randomised(ESTIMATORS.find(name))
    toy = toy_problem(len(losses), estimator.num_particles)
    loss = estimator.loss(toy.problem, torch.Generator().manual_seed(0))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx(losses, rel=1e-9)
    assert [toy.leaves[leaf].grad.sum().item() for leaf in ("where", "presence")] == pytest.approx(gradients, rel=1e-9)
