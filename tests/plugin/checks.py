"""What the parts of a package of one's own have to pass: `python checks.py`, where the package is installed."""

import gymnasium
import torch
from air_env_example.backend import Dots

from air_agents.estimators import ESTIMATORS
from air_agents.estimators.testing import check_estimator
from air_env import make_world
from air_env.likelihoods import LIKELIHOODS
from air_env.renderers import RENDERERS
from air_env.renderers.backends import SceneBatch, render_with_gradient
from air_env.scenes import make_scene
from air_env.testing import check_environment, check_renderer, check_scene

check_scene(make_scene("rings", image_size=24, object_size=(6, 10)))
check_renderer(RENDERERS.find("rings")().make(), image_size=24)
check_estimator(ESTIMATORS.find("midpoint"))

images, canvas = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
found = LIKELIHOODS.find("cauchy")(0.1).log_prob(images, canvas)
torch.testing.assert_close(found, torch.distributions.Cauchy(canvas, 0.1).log_prob(images).sum((1, 2, 3)))

world = make_world("rings", image_size=24, object_size=(6, 10), num_scenes=20)
check_environment(world)
gymnasium.make("air_env:AIRScene-v1", scene="rings", likelihood="cauchy").reset(seed=0)


def scenes(position):
    """Scenes of one object each, at places that may be moved."""
    kind, yaw = torch.zeros(len(position), 1, dtype=torch.long), torch.zeros(len(position), 1)
    return SceneBatch.of(kind, position[:, None], yaw)


position = torch.zeros(5, 2, requires_grad=True)
drawn = render_with_gradient(Dots(), scenes, [position], [0.1])
drawn[:, :, :, 8:].sum().backward()
assert position.grad is not None
assert (position.grad[:, 0] > 0).all(), "an object further right makes the right half brighter"
