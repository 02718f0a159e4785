"""Scenes put together from inferred objects, and what q learns of them."""

import pytest
import torch
from tiny import NUM_STEPS, RECIPE, SIDE, assert_equal, generator, make_agent, make_images, make_scenes, roll_out
from torch import Tensor, nn

from air_agents.inference.recomposition import recompose, recomposed_loss
from air_agents.training.recipes import RECIPES
from air_agents.training.trainer import Trainer
from air_env import geometry

NUM = 200


@pytest.fixture
def rollout():
    agent = make_agent(where_mean=(-1.0, 0.0, 0.0))
    # Most images have one object or two.
    nn.init.constant_(agent.presence.bias, 0.5)
    return roll_out(agent, make_images(40))


def codes(z_what: Tensor) -> set[tuple[float, ...]]:
    return {tuple(code) for code in z_what.tolist()}


def test_scenes_are_made_of_objects_that_were_found_present(rollout):
    images, z = recompose(rollout, NUM, generator())
    assert images.shape == (NUM, 1, SIDE, SIDE)
    assert_equal(images, rollout.agent.model.render(z).clamp(0, 1), 1e-9)
    assert z.count.unique().tolist() == list(range(1, NUM_STEPS + 1))
    present = rollout.logits.sigmoid().cumprod(1) > 0.5
    assert 0 < present.double().mean() < 1
    used, found = codes(z.z_what[z.z_pres > 0]), codes(rollout.z.z_what[present])
    assert used < found
    size = {
        what: where
        for where, what in zip(
            rollout.z.z_where[present][:, 0].tolist(), map(tuple, rollout.z.z_what[present].tolist()), strict=True
        )
    }
    for where, what in zip(z.z_where[z.z_pres > 0].tolist(), z.z_what[z.z_pres > 0].tolist(), strict=True):
        assert where[0] == size[tuple(what)]


def test_objects_of_badly_explained_images_are_not_taken(rollout):
    """At most 60 % of the images with objects give theirs, those with the smallest error for each."""
    present = rollout.logits.sigmoid().cumprod(1) > 0.5
    count = present.sum(1)
    error = -rollout.log_p_x.gather(1, count[:, None])[:, 0] / count
    order = error.argsort()[: int(0.6 * (count > 0).sum())]
    best = codes(rollout.z.z_what[order][present[order]])
    _, z = recompose(rollout, NUM, generator())
    assert codes(z.z_what[z.z_pres > 0]) <= best


def test_objects_lie_in_the_image_and_not_upon_each_other(rollout):
    _, z = recompose(rollout, NUM, generator())
    boxes = geometry.outlines(z.z_where)[z.z_pres > 0]
    room = 0.2 * z.z_where[..., :1].exp()[z.z_pres > 0]
    assert (boxes[:, :2] >= -1 - room - 1e-9).all()
    assert (boxes[:, 2:] <= 1 + room + 1e-9).all()
    two = z.count >= 2
    distance = (z.z_where[two][:, 0, 1:] - z.z_where[two][:, 1, 1:]).norm(dim=1)
    size = z.z_where[two][:, :2, 0].exp().sum(1)
    assert (distance > 0.33 * size).double().mean() > 0.9
    assert (distance < size).any()  # many are close


def test_only_q_learns_from_them_and_learns(rollout):
    agent = rollout.agent.train()
    loss = recomposed_loss(rollout, 20, generator())
    gradients = torch.autograd.grad(loss, list(agent.parameters()), allow_unused=True)
    learning = {
        name for (name, _), g in zip(agent.named_parameters(), gradients, strict=True) if g is not None and g.any()
    }
    assert any(name.startswith("where") for name in learning)
    assert any(name.startswith("what") for name in learning)
    assert not any(name.startswith("presence") for name in learning)
    assert not any(name.startswith("model") for name in learning)


def test_a_trainer_recomposes_from_an_iteration_on():
    def weights(**changes) -> dict[str, Tensor]:
        trainer = Trainer(RECIPE.__class__(**{**vars(RECIPE), **changes}), make_scenes(RECIPE.num_train, "train"))
        for _ in range(3):
            trainer.step()
        return {name: value.clone() for name, value in trainer.agent.state_dict().items()}

    plain = weights()
    assert_equal(weights(recomposed_scenes=4, recomposed_from=3), plain)
    assert any((plain[name] != value).any() for name, value in weights(recomposed_scenes=4, recomposed_from=2).items())


def test_objects_without_windows_are_not_recomposed():
    recipe = RECIPES.find("objects3d")
    with pytest.raises(ValueError, match=r"recomposed_scenes are made of objects in windows.*leave it 0"):
        recipe.__class__(**{**vars(recipe), "recomposed_scenes": 4})
