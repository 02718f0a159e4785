"""Frozen problems: agents caught at four stages of real training, shipped small, to judge estimators on.

    init        untrained
    early       the first look at which it counted half of the scenes right
    stuck       trained by reinforce_whole_return without exploration: in every scene q finds no objects, or all N
    converged   at the end of training

Agents are narrower than those of the recipes, and their weights are rounded to half precision; everything is computed
in double precision. Weights are in SCENE.safetensors; the images, a sheet of them, in SCENE.png beside it.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from air_env.model import SceneConfig
from air_env.renderers import PatchConfig
from air_env.scenes import SceneDataset
from air_env.spaces import to_images
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

from ..estimators import Estimator, StopProblem
from ..evaluation.metrics import count_accuracy
from ..inference.air import AIR, AgentConfig
from ..inference.exploration import Exploration
from ..inference.rollout import unstopped_rollout
from ..training.files import write_atomically
from ..training.recipes import RECIPES, Recipe
from ..training.serialisation import from_json, to_json
from ..training.settings import Options
from ..training.trainer import Trainer
from ..training.weights import fill, opened_weights, save_weights

STAGES = ("init", "early", "stuck", "converged")
SCENES = ("digits", "multi_mnist", "multi_mnist_dair", "sprites")
JUDGED = ("digits", "multi_mnist", "sprites")
"""Scenes that estimators are judged on by default; the other one is to measure the cut through DAIR's canvas."""
_FORMAT = "air-env frozen problems 1"
SHIPPED = resources.files("air_agents") / "estimator_benchmark" / "problems"
_SHEET = 24
"""Images in a row and in a column of the sheet."""
_NUM_VALIDATION, _LOOK_EVERY, _STUCK_STEPS = 500, 50, 750
_WIDTH = 64
_EARLY = 0.5
"""Count accuracy of the early stage."""


@dataclass(frozen=True)
class FrozenAgent:
    """An agent at a stage of training.

    Attributes:
        scene: What it was trained on.
        stage: One of `STAGES`.
        agent: The agent, in double precision, with the exploration of that stage.
        images: ``[image, channel, side, side]``, uint8, of the training images.
        iteration: How long it had been trained.
        count_accuracy: Of validation scenes, at that time.
    """

    scene: str
    stage: str
    agent: AIR
    images: Tensor
    iteration: int
    count_accuracy: float

    def noise(self, num_images: int, estimator: Estimator, seed: int) -> Tensor:
        """Noise of the latents for the problems of so many images, ``[image * particles, N, latent]``."""
        size = (num_images * estimator.num_particles, self.agent.model.config.num_steps, self.agent.latent_dim)
        return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def problem(
        self,
        images: Tensor,
        noise: Tensor,
        estimator: Estimator,
        *,
        enumerate_categories: bool = False,
        grad_enabled: bool = True,
    ) -> StopProblem:
        """The problem of some images, as an estimator needs it.

        Args:
            images: Of `images`.
            noise: `noise` for them.
            estimator: The estimator.
            enumerate_categories: Whether there is a path for each sequence of categories.
            grad_enabled: Whether the problem has the graph of agent and model.
        """
        blank = torch.zeros(len(images))
        truth = SceneDataset(images, blank.long(), blank.long()[:, None], blank[:, None, None].expand(-1, 1, 4))
        world = World(self.agent.model, truth)
        envs = AIRSceneVectorEnv(len(images), grad_enabled=grad_enabled, check_actions=False, world=world)
        with torch.set_grad_enabled(grad_enabled):
            envs.reset(options={"images": to_images(images, self.agent.model)})
            rollout = unstopped_rollout(
                self.agent,
                envs,
                noise,
                enumerate_categories=enumerate_categories,
                reparameterised=estimator.reparameterised,
            )
            return rollout.problem(analytic_kl=estimator.num_particles == 1)


def load_frozen(scene: str, source: Path | None = None) -> list[FrozenAgent]:
    """The frozen agents of a scene, stage by stage.

    Args:
        scene: One of `SCENES`.
        source: A file that `capture` wrote; by default the shipped one.

    Raises:
        FileNotFoundError: The sheet of images is missing.
        ValueError: The scene is unknown, or a file is damaged.
    """
    if source is None:
        if scene not in SCENES:
            raise ValueError(f"there are no frozen problems of {scene!r}; choose one of {', '.join(SCENES)}")
        source = Path(str(SHIPPED / f"{scene}.safetensors"))
    with opened_weights(source, _FORMAT, "capture it again") as weights:
        return _read(scene, source, weights.settings("config"), weights.tensors)


def _read(scene: str, source: Path, config: Options, tensors: dict[str, Tensor]) -> list[FrozenAgent]:
    settings = from_json(SceneConfig, config["scene"]), from_json(AgentConfig, config["agent"])
    images, found = read_sheet(source.with_suffix(".png"), settings[0].image_size), []
    for stage, facts in config["stages"].items():
        agent = in_double_precision(*settings)
        own = {name.removeprefix(f"{stage}/"): t for name, t in tensors.items() if name.startswith(f"{stage}/")}
        fill(agent, {name: t.double() if t.dtype == torch.half else t for name, t in own.items()})
        agent.exploration = Exploration(facts["exploration"])
        found.append(FrozenAgent(scene, stage, agent.eval(), images, facts["iteration"], facts["count_accuracy"]))
    return found


def in_double_precision(scene: SceneConfig, config: AgentConfig, kind: type[AIR] = AIR) -> AIR:
    """An untrained agent of a kind, with priors in double precision as well."""
    before = torch.get_default_dtype()
    try:
        # They are made in the default precision.
        torch.set_default_dtype(torch.float64)
        return kind(scene, config)
    finally:
        torch.set_default_dtype(before)


def capture(
    scene: str,
    path: Path,
    *,
    data_dir: str | None = None,
    max_steps: int | None = None,
    progress: Callable[[str, int, float], object] = lambda *_: None,
) -> None:
    """Trains a narrow agent twice, with and without exploration, and writes it down at the four stages.

    Args:
        scene: One of `SCENES`, whose recipe is followed.
        path: The file of weights to write; that of images goes beside it.
        data_dir: Folder of the data files, for scenes that need some.
        max_steps: Iterations; by default the recipe's.
        progress: Called at every look with the run's name, the iteration and the count accuracy of validation scenes.

    Raises:
        RuntimeError: The agent never counted half of the scenes right.
    """
    recipe = narrow(RECIPES.find(scene))
    recipe = recipe if max_steps is None else replace(recipe, max_steps=max_steps)
    source = recipe.make_scene(data_dir)
    train = source.dataset("train", recipe.num_train, recipe.seed)
    validation = source.dataset("validation", _NUM_VALIDATION, recipe.seed)
    stages: dict[str, tuple[dict[str, Tensor], dict[str, float]]] = {}

    def follow(name: str, recipe: Recipe, last: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        trainer = Trainer(recipe, train)
        while True:
            weight, trainer.agent.exploration = recipe.exploration_at(trainer.iteration).weight, Exploration()
            accuracy = count_accuracy(trainer.agent, validation)
            progress(name, trainer.iteration, accuracy)
            facts = {"iteration": trainer.iteration, "exploration": weight, "count_accuracy": accuracy}
            state = deepcopy(trainer.agent.state_dict()), facts
            if trainer.iteration == 0:
                # Both runs begin with it; what counts is its own q.
                stages["init"] = state
            if name == "with exploration" and "early" not in stages and accuracy >= _EARLY:
                stages["early"] = state
            if trainer.iteration == last:
                return state
            for _ in range(_LOOK_EVERY):
                trainer.step()

    converged = follow("with exploration", recipe, recipe.max_steps)
    if "early" not in stages:
        raise RuntimeError(f"the agent never counted {_EARLY:.0%} of the scenes of {scene} right; train it longer")
    unaided = replace(recipe, exploration_steps=0, estimator="reinforce_whole_return")
    stages["stuck"] = follow("without exploration", unaided, _STUCK_STEPS)
    stages["converged"] = converged
    tensors = {f"{stage}/{name}": tensor.half() for stage in STAGES for name, tensor in stages[stage][0].items()}
    facts = {stage: stages[stage][1] for stage in STAGES}
    config = {"scene": to_json(recipe.model), "agent": to_json(recipe.agent), "stages": facts}
    write_atomically(path.with_suffix(".png"), lambda temporary: write_sheet(train.images, temporary))
    save_weights(path, tensors, _FORMAT, config=config, recipe=to_json(recipe))


def write_sheet(images: UInt8[Tensor, "image channel side side"], path: Path) -> None:
    """Writes the first images side by side, as a picture."""
    channels, side = images.shape[1:3]
    tiles = images[: _SHEET**2].unflatten(0, (_SHEET, _SHEET)).permute(0, 3, 1, 4, 2)
    pixels = tiles.reshape(_SHEET * side, _SHEET * side, channels).squeeze(2).contiguous().numpy()
    Image.fromarray(pixels).save(path, format="png", optimize=True)


def read_sheet(path: Path, side: int) -> UInt8[Tensor, "image channel side side"]:
    """Reads what `write_sheet` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or of another size.
    """
    try:
        with Image.open(path) as picture:
            if picture.size != (_SHEET * side, _SHEET * side):
                raise ValueError(f"{path} must have {_SHEET * side} pixels a side, got {picture.size}")
            pixels = torch.from_numpy(np.array(picture))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: the images belong beside the weights; copy both") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is damaged or no picture ({error}); get or capture it again") from error
    tiles = pixels.view(_SHEET, side, _SHEET, side, -1).permute(0, 2, 4, 1, 3)
    return tiles.flatten(0, 1).contiguous()


def narrow(recipe: Recipe) -> Recipe:
    """The recipe with small networks."""
    agent = replace(recipe.agent, embedding=_WIDTH // 2, hidden=_WIDTH, encoder_hidden=_WIDTH)
    model = recipe.model
    if isinstance(model.renderer, PatchConfig):
        model = replace(model, renderer=replace(model.renderer, what_dim=20, hidden=_WIDTH))
    return replace(recipe, agent=agent, model=model)
