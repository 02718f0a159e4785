"""What takes minutes or a GPU: a recipe reaches what the README says of it, and CUDA does what the CPU does."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import RECIPE

from air_agents import load_agent
from air_agents.evaluation.metrics import evaluate
from air_agents.training.recipes import RECIPES
from air_agents.training.run import TrainingRun


@pytest.mark.slow
def test_the_digits_recipe_counts_digits_that_it_never_saw(tmp_path):
    started = TrainingRun.start(tmp_path / "run", RECIPES.find("digits"))
    started.train()
    metrics = started.finish()
    assert metrics["count_accuracy"] >= 0.97
    assert metrics["box_iou"] >= 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_agent_is_trained_resumed_and_measured_on_a_gpu(tmp_path):
    directory = tmp_path / "run"
    TrainingRun.start(directory, replace(RECIPE, estimator="nvil", evaluate_every=4), device="cuda").train(stop_at=6)
    with pytest.raises(ValueError, match="was trained on cuda"):
        TrainingRun.resume(directory, device="cpu")
    resumed = TrainingRun.resume(directory)
    assert resumed.trainer.device.type == "cuda"
    resumed.train()
    assert resumed.trainer.iteration == RECIPE.max_steps
    assert math.isfinite(resumed.finish()["elbo"])
    # The noise differs between devices, what does without it does not.
    scenes = resumed.scene.dataset("test", 16)
    on_gpu, on_cpu = (load_agent(directory, device) for device in ("cuda", "cpu"))
    z, expected = (agent.explain(scenes.images) for agent in (on_gpu, on_cpu))
    torch.testing.assert_close(z.z_where.cpu(), expected.z_where, rtol=1e-3, atol=1e-3)
    assert torch.equal(z.count.cpu(), expected.count)
    metrics = evaluate(on_gpu, scenes.to("cuda"), num_samples=2)
    assert metrics["count_accuracy"] == evaluate(on_cpu, scenes, num_samples=2)["count_accuracy"]
