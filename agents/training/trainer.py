"""Training: unstopped rollouts through the environment, an estimator's loss, Adam.

    images -> envs.reset -> unstopped_rollout -> StopProblem -> estimator -> loss.backward -> Adam

Everything an iteration uses follows from the recipe and the state in `Trainer.state_dict`, so that a
run that is killed and resumed computes the same numbers as one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from air_env.frames import Frame
from air_env.scenes import Scene, SceneDataset
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

from ..estimators import StopProblem, make_estimator
from ..evaluation.metrics import accuracies, evaluate
from ..evaluation.pictures import scenes_beside_reconstructions
from ..inference.agent import Agent
from ..inference.episodes import dream
from ..inference.exploration import Exploration
from ..inference.recomposition import recomposed_loss
from ..inference.rollout import Rollout, context_dim, unstopped_rollout
from .readers import find_reader
from .settings import Trains
from .weights import fill, restore

if TYPE_CHECKING:
    from .recipes import Recipe
    from .settings import State


class Trainer(Trains):
    """Trains an agent by a recipe.

    Args:
        recipe: What to compute.
        train: The training images.
        device: Where to compute.
        scene: Where they come from, for ``identity_agreement``; None leaves that out.
    """

    objective = "elbo"

    def __init__(
        self, recipe: Recipe, train: SceneDataset, device: torch.device | str = "cpu", scene: Scene | None = None
    ) -> None:
        self.recipe, self.scene = recipe, scene
        self.device = torch.device(device)
        self.description = f"estimator {recipe.estimator}"
        # Weights are drawn from the recipe's seed without touching the caller's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)  # noqa: TID251 (forked)
            self.agent = self.network = recipe.agent.make(recipe.model).to(self.device)
            self.estimator = make_estimator(recipe.estimator, context_dim(self.agent)).to(self.device)
        differentiable = self.agent.model.renderer.differentiable
        self.estimator.refuse_impossible(
            recipe.estimator, differentiable=differentiable, enumerates=self.enumerates_categories
        )
        if recipe.compile:
            self.agent.model.get_submodule("renderer").compile()
        groups = [{"params": list(self.agent.parameters()), "lr": recipe.learning_rate}]
        if baseline := list(self.estimator.parameters()):
            groups.append({"params": baseline, "lr": recipe.baseline_learning_rate})
        self._learning_rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self._order = torch.Generator().manual_seed(recipe.seed)
        self._noise = torch.Generator(self.device).manual_seed(recipe.seed)
        self._permutation = torch.empty(0, dtype=torch.long)
        self._envs = AIRSceneVectorEnv(
            recipe.batch_size, device=self.device, check_actions=False, world=World(self.agent.model, train)
        )

    def step(self, progress: float | None = None) -> Tensor:
        """One iteration (`Trains.step`); the objective is the ELBO in nats."""
        recipe = self.recipe
        share = self.iteration / recipe.max_steps if progress is None else progress
        factor = recipe.learning_rate_factor(share)
        for group, learning_rate in zip(self.optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = learning_rate * factor
        self.agent.model.anneal(self.iteration)
        self.agent.exploration = recipe.exploration_at(self.iteration)
        if self.iteration < recipe.sleep_steps:
            return self._sleep()
        rows = self._next_rows()
        size = (recipe.batch_size * self.estimator.num_particles, recipe.model.num_steps, self.agent.latent_dim)
        noise = torch.randn(size, generator=self._noise, device=self.device)
        elbo = torch.zeros(())
        for _ in range(self.estimator.num_passes):
            rollout = self.rollout(rows, noise)
            problem = self._problem_of(rollout)
            loss = self.estimator.loss(problem, self._noise).mean()
            if recipe.recomposed_scenes and self.iteration >= recipe.recomposed_from:
                loss = loss + recomposed_loss(rollout, recipe.recomposed_scenes, self._noise)
            self._descend(loss)
            elbo = problem.per_image(problem.elbo()).mean().detach()
        self.iteration += 1
        return elbo

    def _sleep(self) -> Tensor:
        """One iteration on scenes drawn from the model; returns the mean ``log q(z, n | x)`` instead of the ELBO."""
        log_q = dream(self.agent, self.recipe.batch_size, self._noise, any_order=True).mean()
        self._descend(-log_q)
        self.iteration += 1
        return log_q.detach()

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def problem(self, rows: Tensor, noise: Tensor) -> StopProblem:
        """The problem of a batch of training images, as the estimator needs it.

        Args:
            rows: ``[batch]``, which images.
            noise: ``[batch * particles, N, latent]``, standard normal.
        """
        return self._problem_of(self.rollout(rows, noise))

    def rollout(self, rows: Tensor, noise: Tensor) -> Rollout:
        """The rollout on a batch of training images; for the arguments, see `problem`."""
        self._envs.reset(options={"scenes": rows})
        return unstopped_rollout(
            self.agent,
            self._envs,
            noise,
            enumerate_categories=self.enumerates_categories,
            reparameterised=self.estimator.reparameterised,
        )

    def _problem_of(self, rollout: Rollout) -> StopProblem:
        # Bounds of several samples are made of importance weights.
        return rollout.problem(analytic_kl=self.estimator.num_particles == 1)

    @property
    def enumerates_categories(self) -> bool:
        """Whether there is a path for each sequence of categories, rather than sampled ones."""
        return self.agent.categorical and self.recipe.categories == "exact"

    def objectives(self, mean: float) -> dict[str, float]:
        """``elbo``, or ``log_q_dream`` during the sleep phase, which has no ELBO: that is of images."""
        return {self.objective if self.iteration > self.recipe.sleep_steps else "log_q_dream": mean}

    def measure(self, scenes: SceneDataset) -> dict[str, float]:
        """Accuracies on validation scenes of what the network proposes at first, without exploration."""
        with self._first_proposals() as agent:
            return accuracies(agent, scenes)

    def evaluate(self, scenes: SceneDataset, progress: Callable[[int], object] | None = None) -> dict[str, float]:
        """The metrics of `air_agents.evaluation.metrics.evaluate`, of the agent as it is saved."""
        # A run that was cut short may still explore: from here on the agent is the one that was saved.
        self.agent.exploration = Exploration()
        self.agent.model.anneal(None)
        generator = torch.Generator(self.device).manual_seed(self.recipe.seed + 1)
        reader = None if self.scene is None else find_reader(self.agent.model, self.scene)
        samples = self.recipe.iwae_samples
        return evaluate(self.agent, scenes, num_samples=samples, generator=generator, reader=reader, progress=progress)

    def picture(self, scenes: SceneDataset) -> Frame:
        """Scenes with windows beside their reconstructions."""
        images = scenes.float_images()
        with self._first_proposals() as agent:
            return scenes_beside_reconstructions(images, agent.explain(images))

    def save(self, directory: Path) -> None:
        """Writes agent.safetensors, with the recipe."""
        from .checkpoints import AGENT_FILE, save_agent

        save_agent(self.agent, directory / AGENT_FILE, self.recipe)

    @contextmanager
    def _first_proposals(self) -> Iterator[Agent]:
        """The agent as it is when it is loaded, but that `Agent.explain` takes its first proposal, which is quick."""
        agent = self.agent
        kept = agent.exploration, agent.starts, agent.refinements
        agent.exploration, agent.starts, agent.refinements = Exploration(), 1, 0
        try:
            yield agent
        finally:
            agent.exploration, agent.starts, agent.refinements = kept

    def _next_rows(self) -> Tensor:
        """The next batch's rows; every epoch is a new permutation of the training images."""
        size = self.recipe.batch_size
        if len(self._permutation) < size:
            self._permutation = torch.randperm(len(self._envs.scenes), generator=self._order)
        rows, self._permutation = self._permutation[:size], self._permutation[size:]
        return rows

    def state_dict(self) -> State:
        """All that the next iteration depends on."""
        return {
            "iteration": self.iteration,
            "agent": self.agent.state_dict(),
            "estimator": self.estimator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "permutation": self._permutation.clone(),
            "order": self._order.get_state(),
            "noise": self._noise.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continues where a trainer of the same recipe stood."""
        self.iteration = state["iteration"]
        fill(self.agent, state["agent"])
        fill(self.estimator, state["estimator"])
        restore(self.optimizer, state["optimizer"])
        self._permutation = state["permutation"]
        self._order.set_state(state["order"].cpu())
        self._noise.set_state(state["noise"].cpu())
