"""Training: reproducible, exactly resumable, and by the recipe."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import NUM_STEPS, RECIPE, assert_equal, count_probabilities, make_scenes
from torch import Tensor

from air_agents.estimators import ESTIMATORS
from air_agents.training.recipes import RECIPES
from air_agents.training.trainer import Trainer
from air_env.priors import CountPrior
from air_env.renderers import PatchRenderer


def make_trainer(**changes) -> Trainer:
    recipe = replace(RECIPE, **changes)
    return Trainer(recipe, make_scenes(recipe.num_train, "train", recipe.seed))


def train(trainer: Trainer, iterations: int) -> list[Tensor]:
    return [trainer.step() for _ in range(iterations)]


@pytest.mark.parametrize("estimator", {kind.needs: name for name, kind in ESTIMATORS.items()}.values())
def test_estimators_of_every_need_train_dair(estimator):
    trainer = make_trainer(estimator=estimator, agent=replace(RECIPE.agent, core="dair"))
    before = {name: weight.clone() for name, weight in trainer.agent.named_parameters()}
    assert all(elbo.isfinite() for elbo in train(trainer, 2))
    glimpse = [name for name, weight in trainer.agent.named_parameters() if "glimpse" in name]
    after = dict(trainer.agent.named_parameters())
    assert glimpse
    assert all((after[name] != before[name]).any() for name in glimpse)


def test_half_objects_are_not_asked_of_a_black_box(monkeypatch):
    monkeypatch.setattr(PatchRenderer, "differentiable", False)
    soft = [name for name, kind in ESTIMATORS.items() if kind.needs == "soft"]
    assert soft
    for estimator in soft:
        with pytest.raises(ValueError, match=f"{estimator} relaxes presences, and this renderer draws whole"):
            make_trainer(estimator=estimator)
    train(make_trainer(estimator="disarm"), 1)


def test_a_black_box_has_no_half_objects(monkeypatch):
    monkeypatch.setattr(PatchRenderer, "differentiable", False)
    trainer = make_trainer()
    noise = torch.zeros(RECIPE.batch_size, NUM_STEPS, trainer.agent.latent_dim)
    problem = trainer.problem(torch.arange(RECIPE.batch_size), noise)
    with pytest.raises(ValueError, match="draws whole objects only"):
        problem.soft(torch.ones(RECIPE.batch_size, NUM_STEPS))


def test_another_seed_gives_another_run():
    first, second = make_trainer(seed=0), make_trainer(seed=1)
    assert not torch.equal(first.agent.presence.weight, second.agent.presence.weight)
    assert torch.stack(train(first, 3)).ne(torch.stack(train(second, 3))).all()


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    train(make_trainer(), 2)
    assert_equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_is_the_same_again_and_when_it_is_resumed_whatever_the_global_generator(estimator):
    # 10 iterations of 8 images are more than an epoch of 64.
    torch.manual_seed(0)
    whole = make_trainer(estimator=estimator)
    elbos = train(whole, 12)
    torch.manual_seed(1)
    first, second = make_trainer(estimator=estimator), make_trainer(estimator=estimator)
    interrupted = train(first, 6)
    second.load_state_dict(first.state_dict())
    assert_equal(interrupted + train(second, 6), elbos)
    assert_equal(second.state_dict(), whole.state_dict())


def test_an_iteration_changes_the_network_the_renderer_and_the_baseline():
    trainer = make_trainer(estimator="half_critic")
    modules = {"agent": trainer.agent, "estimator": trainer.estimator}
    before = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in modules.items()}
    train(trainer, 3)
    for name, module in modules.items():
        for parameter, value in module.state_dict().items():
            assert (value != before[name][parameter]).any(), f"{name}.{parameter}"


def test_every_epoch_shows_every_image_once():
    trainer = make_trainer(num_train=64, batch_size=8)
    epochs = [torch.cat([trainer._next_rows() for _ in range(8)]) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(64))
    assert not torch.equal(epochs[0], epochs[1])


def test_the_returned_elbo_is_that_of_the_batch():
    # With one batch an epoch, and a learning rate of next to nothing, it does not matter which images come first.
    trainer = make_trainer(num_train=8, learning_rate=1e-12, baseline_learning_rate=1e-12)
    elbos = torch.stack(train(trainer, 12))
    assert elbos.std() < 5
    seen = []
    trainer.estimator.register_forward_hook(lambda module, inputs, loss: seen.append(inputs[0]))
    elbo = trainer.step()
    q = count_probabilities(seen[0].logits)
    assert_equal(elbo, (q * (seen[0].scores - q.log())).sum(1).mean().detach(), 1e-4)


def test_learning_rates_are_constant_and_then_fall_to_zero():
    recipe = replace(RECIPE, decay=0.4)
    factors = [recipe.learning_rate_factor(share) for share in (0, 0.3, 0.6, 0.8, 0.9, 1)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.25, 0])
    assert replace(RECIPE, decay=0.0).learning_rate_factor(0.99) == 1


def test_learning_rates_of_agent_and_baseline_fall_together():
    trainer = make_trainer(learning_rate=1e-3, baseline_learning_rate=1e-2, decay=0.5)
    for progress, factor in [(0.2, 1), (0.75, 0.5), (0.95, 0.1)]:
        trainer.step(progress)
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        assert rates == pytest.approx([1e-3 * factor, 1e-2 * factor])
    trainer.step()
    assert trainer.optimizer.param_groups[0]["lr"] == 1e-3


def test_the_count_prior_is_annealed_by_the_iteration():
    prior = CountPrior("geometric", 1e-4, initial_parameter=1e-2, anneal_steps=3)
    trainer = make_trainer(model=replace(RECIPE.model, count_prior=prior))
    for iteration in range(5):
        trainer.step()
        assert_equal(trainer.agent.model.log_p_count, prior.log_p(NUM_STEPS, iteration).float())


@pytest.mark.parametrize(("steps", "weights"), [(4, [1, 0.75, 0.5, 0.25, 0, 0]), (0, [0] * 6)])
def test_exploration_falls_to_zero(steps, weights):
    trainer = make_trainer(exploration_steps=steps)
    found = []
    for _ in range(6):
        trainer.step()
        found.append(trainer.agent.exploration.weight)
    assert found == pytest.approx(weights)


@pytest.mark.parametrize("name", ["digit", "", "MULTI_MNIST"])
def test_an_unknown_recipe_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"recipe '{name}' is unknown; choose one of {', '.join(RECIPES)}"):
        RECIPES.find(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scene": "digitz"}, "scene 'digitz' is unknown; choose one of digits, multi_mnist"),
        ({"estimator": "nvill"}, "estimator 'nvill' is unknown; choose one of half_critic"),
        ({"max_steps": 0}, "max_steps must be positive, got 0"),
        ({"batch_size": -1}, "batch_size must be positive, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"batch_size": 65}, "batch_size 65 exceeds the 64 training images"),
        ({"seed": -1}, "seed must .*, got -1"),
        ({"exploration_steps": -1}, "exploration_steps must .*, got -1"),
    ],
)
def test_a_recipe_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)
