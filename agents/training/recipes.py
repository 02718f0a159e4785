"""Recipes: named settings that reproduce a result."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from air_env.model import SceneConfig
from air_env.priors import CountPrior
from air_env.registry import Registry
from air_env.renderers import ObjectsConfig, PatchConfig, TabletopConfig
from air_env.scenes import Scene
from air_env.scenes.objects3d import objects3d
from air_env.scenes.sprites import sprites
from air_env.scenes.tabletop3d import tabletop3d

from ..estimators import ESTIMATORS
from ..inference.agent import AgentSettings
from ..inference.air import AgentConfig
from ..inference.exploration import Exploration
from ..inference.objects3d import InverseGraphicsConfig
from ..inference.tabletop3d import TabletopAgentConfig
from .serialisation import RECIPE_KINDS
from .settings import GradientSettings, refuse_unknown
from .trainer import Trainer

CATEGORIES = ("score_function", "exact")
_NEXT_TO_NOTHING = 1e-4


@dataclass(frozen=True, kw_only=True)
class Recipe(GradientSettings):
    """Settings of the training of an AIR agent."""

    kind: ClassVar[str] = "agent"

    model: SceneConfig = field(default_factory=SceneConfig)
    """The generative model."""
    agent: AgentSettings = field(default_factory=AgentConfig)
    """The inference network."""
    estimator: str = "half_critic"
    """One of `ESTIMATORS`: the gradient of the stop action (Deviation; paper: nvil)."""
    categories: str = "score_function"
    """Gradient of the category, where z_what is one: score_function (by the estimator's baselines) or exact (every
    category at every step)."""
    baseline_learning_rate: float = 1e-2
    """Learning rate of learned baselines: they have to keep up with what they predict."""
    exploration_steps: int = 2_000
    """Iterations over which the weight of `Exploration` falls linearly from 1 to 0; 0: no exploration."""
    exploration: Exploration = field(default_factory=Exploration)
    """Exploration probabilities."""
    camera_steps: int = 0
    """Iterations at the start that train mostly z_scene. Before the camera is known every object lowers the likelihood,
    and the agent settles permanently on the least harmful one."""
    sleep_steps: int = 0
    """Iterations of the sleep phase (wake-sleep): q is trained on scenes sampled from the model, without images."""
    recomposed_scenes: int = 0
    """Scenes that every iteration puts together from objects that it inferred, for q to take apart: it then tells
    objects that touch (`air_agents.inference.recomposition`; Deviation). For objects that are drawn into windows."""
    recomposed_from: int = 1_000
    """The first iteration that does so: before, objects are not drawn well enough."""
    compile: bool = False
    """Whether a renderer of three-dimensional objects is compiled for training."""
    iwae_samples: int = 20
    """Samples of the importance-weighted bound on which the finished agent is measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ESTIMATORS.find(self.estimator)
        refuse_unknown("categories", self.categories, CATEGORIES)
        steps = ("exploration_steps", "camera_steps", "sleep_steps", "recomposed_scenes", "recomposed_from")
        if self.recomposed_scenes and not self.model.renderer.windows:
            raise ValueError(
                "recomposed_scenes are made of objects in windows, which renderers of kind "
                f"{self.model.renderer.kind!r} do not have; leave it 0"
            )
        if self.sleep_steps % self.evaluate_every:
            raise ValueError(
                f"sleep_steps must be a multiple of evaluate_every ({self.evaluate_every}), so that no row of metrics "
                f"is of both phases; got {self.sleep_steps}"
            )
        self._refuse_nonsense(
            positive=("baseline_learning_rate", "iwae_samples"), not_negative=steps, whole=(*steps, "iwae_samples")
        )

    def make_trainer(self, scene: Scene, device: torch.device | str = "cpu") -> Trainer:
        """The trainer of an agent, with initial weights."""
        return Trainer(self, scene.dataset("train", self.num_train, self.seed), device, scene)

    def exploration_at(self, iteration: int) -> Exploration:
        """What is mixed into q at an iteration of training."""
        if iteration < self.camera_steps:
            return replace(self.exploration, weight=1.0, presence=_NEXT_TO_NOTHING)
        done = iteration - self.camera_steps
        weight = max(0.0, 1 - done / self.exploration_steps) if self.exploration_steps else 0.0
        return replace(self.exploration, weight=weight)


RECIPE_KINDS[Recipe.kind] = Recipe

_OBJECTS = objects3d(renderer="raycast").model
_SPRITES = sprites().model
assert _SPRITES is not None

# Networks of one object that are wide, and a sharp likelihood: codes then tell digits apart, little of an explained
# digit is left over, and two digits are less easily taken for one. Half of the images are explained with all N objects
# at first, for longer than elsewhere: the third of three digits is found while windows are large, or never.
_AIR = Recipe(
    scene="multi_mnist",
    max_steps=8_000,
    exploration_steps=4_000,
    exploration=Exploration(presence=0.8),
    model=SceneConfig(likelihood_scale=0.2, renderer=PatchConfig(hidden=512)),
    agent=AgentConfig(encoder_hidden=512),
)
# Windows that start small, and scenes in which objects are close, tell near digits apart.
_DAIR = replace(
    _AIR,
    max_steps=7_000,
    model=replace(_AIR.model, count_prior=CountPrior(parameter=1e-8)),
    exploration_steps=500,
    exploration=Exploration(),
    decay=0.5,
    recomposed_scenes=16,
    agent=replace(_AIR.agent, core="dair", initial_scale=0.3, sees_unexplained=True, starts=17, refinements=20),
)

# What is not explained must not cost much at first: a kind that is dropped before its poses are any good gets no
# gradient again.
_OBJECT = Recipe(
    scene="objects3d",
    scene_options={"renderer": "raycast"},
    num_train=20_000,
    max_steps=2_200,
    exploration_steps=800,
    categories="exact",
    compile=True,
    model=replace(
        _OBJECTS,
        likelihood_scale=0.05,
        initial_likelihood_scale=4.0,
        likelihood_anneal_steps=1_500,
        renderer=ObjectsConfig(renderer="raycast", samples=1),
    ),
    agent=InverseGraphicsConfig(),
)

_TABLE = tabletop3d(renderer="raycast").model
_TABLETOP = Recipe(
    scene="tabletop3d",
    scene_options={"renderer": "raycast"},
    num_train=20_000,
    max_steps=1_200,
    camera_steps=150,
    exploration_steps=600,
    exploration=Exploration(presence=0.5, categories=0.6),
    estimator="exact",
    compile=True,
    iwae_samples=5,
    model=replace(
        _TABLE,
        initial_likelihood_scale=0.4,
        likelihood_anneal_steps=800,
        renderer=TabletopConfig(renderer="raycast", samples=1),
    ),
    agent=TabletopAgentConfig(),
)

RECIPES: Registry[Recipe] = Registry(
    "recipe",
    {
        # These digits are thick and vary less in size: a wide window would explain two of them at once.
        "digits": Recipe(
            scene="digits",
            max_steps=2_500,
            exploration_steps=1_250,
            model=SceneConfig(where_mean=(-1.2, 0.0, 0.0), where_sd=(0.15, 0.5, 0.5)),
            agent=AgentConfig(initial_scale=0.3),
        ),
        # Objects cost more than where three near ones are to be told apart: one digit is not taken for two pieces.
        "multi_mnist": replace(_DAIR, model=replace(_DAIR.model, count_prior=CountPrior(parameter=1e-14))),
        "multi_mnist_dair": _DAIR,
        "multi_mnist_air": _AIR,
        # The renderer is known: only where, what and how many is to be inferred.
        "sprites": Recipe(
            scene="sprites",
            max_steps=4_000,
            exploration_steps=1_500,
            # Wrong categories cost hundreds of nats: with twice the rate some are given up for good.
            learning_rate=4e-4,
            model=_SPRITES,
            agent=AgentConfig(initial_scale=0.32, glimpse_size=16, core="air_canvas"),
        ),
        # People's own pictures: `air-env train images --data-dir FOLDER` adds what an inspection of them says.
        "images": replace(
            _AIR,
            scene="images",
            max_steps=4_000,
            num_train=20_000,
            exploration_steps=1_000,
            exploration=Exploration(),
            decay=0.5,
            model=SceneConfig(renderer=PatchConfig(hidden=512)),
            agent=replace(_AIR.agent, core="dair"),
        ),
        "objects3d": _OBJECT,
        "tabletop3d": _TABLETOP,
        # From the scenes of the generative model, with less noise than it thinks there is; then by the ELBO.
        "tabletop3d_sleep": replace(
            _TABLETOP,
            sleep_steps=750,
            camera_steps=0,
            exploration_steps=0,
            model=replace(_TABLETOP.model, initial_likelihood_scale=0.02, likelihood_anneal_steps=750),
        ),
        # Objects are drawn by OpenGL: nothing is known of the renderer but the images that it makes.
        "objects3d_pyrender": replace(
            _OBJECT,
            scene_options={"renderer": "pyrender"},
            model=replace(_OBJECT.model, renderer=ObjectsConfig(renderer="pyrender")),
        ),
        # Colours, sizes and light vary in training, as the generative model does not know.
        "objects3d_perturbed": replace(
            _OBJECT,
            scene_options=_OBJECT.scene_options | {"colour_spread": 0.15, "size_spread": 0.2, "light_spread": 0.3},
            model=replace(_OBJECT.model, likelihood_scale=0.1),
        ),
    },
)
"""Name -> recipe; the README says what each reaches."""
