"""Scales: number of iterations, images and labels of a study.

Recipes come from the registries as they are. A scale changes how long they train, on how many images, with how many
labels, and on how many scenes they are measured; the smallest also shrinks images and networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from air_env.registry import Registry
from air_env.renderers import PatchConfig
from air_env.scenes import Scene, make_scene

from ..comparisons import (
    COMPARISONS,
    AutoencoderConfig,
    ClassifierConfig,
    DRAWConfig,
    PoseRegressorConfig,
    TableRegressorConfig,
)
from ..comparisons.heads import Fitting
from ..comparisons.searches import TRIED
from ..inference.air import AgentConfig
from ..inference.objects3d import InverseGraphicsConfig
from ..inference.tabletop3d import TabletopAgentConfig
from ..jobs.job import AnyRecipe
from ..training.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
Options = Mapping[str, Any]
"""Settings of scenes by name."""

_AGENTS = {"air": "multi_mnist_air", "dair": "multi_mnist_dair"}
"""Family of runs -> recipe of `RECIPES`; the others are those of `COMPARISONS`."""
_TABLES: dict[str, AnyRecipe] = {
    "elbo": RECIPES.find("tabletop3d"),
    "sleep": RECIPES.find("tabletop3d_sleep"),
    "canonical": COMPARISONS.find("supervised_table"),
    "arbitrary": COMPARISONS.find("supervised_table_arbitrary"),
}
_SOLIDS: dict[str, AnyRecipe] = {
    "objects3d_exact": RECIPES.find("objects3d"),
    "objects3d_score": replace(RECIPES.find("objects3d"), categories="score_function"),
    "objects3d_pyrender": RECIPES.find("objects3d_pyrender"),
    "objects3d_perturbed": RECIPES.find("objects3d_perturbed"),
    "objects3d_supervised": COMPARISONS.find("supervised_poses"),
} | {
    # Whether there may be several items of a kind.
    f"tabletop3d_{scenario}_{run}": replace(recipe, scene_options=recipe.scene_options | {"repetitions": repetitions})
    for scenario, repetitions in {"repeated": True, "distinct": False}.items()
    for run, recipe in _TABLES.items()
}
"""Run of Figures 6 and 7 -> recipe."""
_FEW_LABELS = 1_000
_NUM_SCENES = 60
"""Validation and test scenes on which the smallest runs measure themselves."""


@dataclass(frozen=True)
class Scale:
    """How much is computed."""

    title: str
    """What to say of it on a page."""
    labels: tuple[int, ...]
    """Numbers of labelled scenes in Figure 5."""
    scene: str = "multi_mnist"
    """One of `SCENES`."""
    options: Options = field(default_factory=dict)
    """Options of the scene that all its images have."""
    iterations: Mapping[str, float] = field(default_factory=dict)
    """Family of runs -> iterations relative to those of its recipe."""
    default_iterations: float = 1.0
    """The same for other families."""
    max_steps: int | None = None
    """Iterations of all runs, instead."""
    fitting: Fitting = field(default_factory=Fitting)
    """How long heads are trained."""
    num_test: int = 5_000
    """Held-out scenes on which counts and labels are judged."""
    num_bound: int = 500
    """Held-out scenes on which bounds are measured; with DRAW that takes long."""
    num_samples: int = 20
    """Samples of the importance-weighted bound."""
    num_far: int = 1_000
    """Held-out scenes of each kind that is far from training."""
    small_objects: tuple[float, float] = (12, 14)
    """Sizes of digits in pixels of which five fit into an image."""
    object_options: Options = field(default_factory=dict)
    """Options of the scenes of Figures 6 and 7."""
    num_direct: int = 200
    """Held-out scenes of Figure 6 that are explained by descent."""
    num_photographs: int = 50
    """Large pictures of Figure 7 in which the table has to be found."""
    descent: tuple[int, int] = (4, 150)
    """Starts for every kind, and steps of each."""
    canvases: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: {60: (2, 4), 75: (2, 5), 100: (2, 5)})
    """Side of a larger image in pixels -> numbers of digits of the usual sizes, which must fit."""

    def make_scene(self, data_dir: str | None, **options: object) -> Scene:
        """The scene, with options of its own."""
        return make_scene(self.scene, data_dir=data_dir, **{**self.options, **options})

    def recipe(self, name: str, seed: int) -> AnyRecipe:
        """What a run computes.

        Args:
            name: ``air_012`` and ``dair_013``, ``draw_012``, ``autoencoder_012``,
                ``cnn_count_012``: the last part are the numbers of digits in a scene.
                ``cnn_sum_1000``, ``cnn_order_1000``: the number of labels.
                ``draw_try0``, ``cnn_sum_try3``, ...: what searches try.
                ``objects3d_exact``, ``objects3d_score``, ...: one three-dimensional object.
                ``tabletop3d_repeated_elbo``, ``tabletop3d_distinct_canonical``, ...: items on a table.
                Otherwise a recipe of `RECIPES` or `COMPARISONS`, on its own scenes: those of plug-ins.
            seed: Of the recipe.
        """
        family, _, last = name.rpartition("_")
        iterations = self.iterations.get(family, self.default_iterations)
        changes: dict[str, object] = {"seed": seed}
        options: Options = {}
        if name in _SOLIDS:
            recipe, options = _SOLIDS[name], self.object_options
        elif name in TRIED:
            recipe = TRIED[name]
            changes["scene"], options = self.scene, dict(self.options)
        elif name in RECIPES.names():
            recipe = RECIPES.find(name)
        elif name in COMPARISONS.names():
            recipe = COMPARISONS.find(name)
        else:
            recipe = RECIPES.find(_AGENTS[family]) if family in _AGENTS else COMPARISONS.find(family or name)
            changes["scene"] = self.scene
            if family in ("cnn_sum", "cnn_order"):
                counts, labels = (2,), int(last)
                changes |= {"num_train": labels, "batch_size": min(recipe.batch_size, labels)}
                if labels <= _FEW_LABELS:
                    # Which are learned by heart long before.
                    iterations /= 4
            else:
                counts = tuple(map(int, last))
            options = {**self.options, "counts": counts}
        changes["scene_options"] = {**recipe.scene_options, **options}
        changes["max_steps"] = round(recipe.max_steps * iterations)
        recipe = replace(recipe, **changes)
        return recipe if self.max_steps is None else _tiny(recipe, self.max_steps, options.get("image_size"))


def _tiny(recipe: AnyRecipe, max_steps: int, side: int | None) -> AnyRecipe:
    """A recipe of the same kind with few iterations on few images; where their side is given, with small networks."""
    num_train = min(recipe.num_train, 64)
    recipe = replace(
        recipe,
        max_steps=max_steps,
        evaluate_every=max(1, max_steps // 4),
        num_train=num_train,
        batch_size=min(8, num_train),
        num_validation=_NUM_SCENES,
        num_final=_NUM_SCENES,
    )
    if side is not None:
        recipe = replace(recipe, model=replace(_small(recipe.model), image_size=side))
    if not isinstance(recipe, Recipe):
        return recipe
    if side is not None:
        model = replace(recipe.model, renderer=_small(recipe.model.renderer))
        recipe = replace(recipe, model=model, agent=_small(recipe.agent))
    return replace(
        recipe,
        exploration_steps=min(recipe.exploration_steps, max_steps // 2),
        camera_steps=min(recipe.camera_steps, max_steps // 4),
        sleep_steps=min(recipe.sleep_steps, max_steps // 4),
        compile=False,
    )


def _small(settings: Settings) -> Settings:
    """The settings with the sizes that `_SIZES` has for them; those of other kinds stay as they are."""
    return replace(settings, **_SIZES.get(type(settings), {}))


_OBJECTS_NETWORK = {"channels": 4, "glimpse_size": 6, "hidden": 8}
_SIZES: Mapping[type, Mapping[str, object]] = {
    AgentConfig: {"embedding": 16, "hidden": 16, "glimpse_size": 6, "encoder_hidden": 8},
    InverseGraphicsConfig: _OBJECTS_NETWORK,
    TabletopAgentConfig: {"channels": 4, "camera_hidden": 8, "glimpse_size": 4, "hidden": 8},
    PatchConfig: {"what_dim": 4, "patch_size": 6, "hidden": 8},
    DRAWConfig: {"num_steps": 3, "latent": 3, "hidden": 8, "window": 3},
    AutoencoderConfig: {"code": 8, "channels": (4, 4), "hidden": 8},
    ClassifierConfig: {"channels": (4, 4), "hidden": 8},
    PoseRegressorConfig: {"network": InverseGraphicsConfig(**_OBJECTS_NETWORK)},
    TableRegressorConfig: {"channels": (4, 4), "hidden": 8},
}
"""Class of settings -> sizes of the smallest networks and renderers."""

SCALES: Registry[Scale] = Registry(
    "scale",
    {
        "smoke": Scale(
            "**a smoke test, whose numbers mean nothing**: tiny networks that have hardly begun to learn, on small "
            "scenes of the bundled `digits`",
            labels=(20, 40),
            scene="digits",
            options={"image_size": 20, "object_size": (5, 8)},
            max_steps=8,
            fitting=Fitting(few=4, per_label=0),
            num_test=60,
            num_bound=20,
            num_samples=2,
            num_far=20,
            small_objects=(4, 5),
            object_options={"image_size": 16},
            num_direct=4,
            num_photographs=3,
            descent=(1, 3),
            canvases={24: (2, 4), 30: (2, 5)},
        ),
        "cpu": Scale(
            "the recipes as they are, made for minutes per run on one CPU core", labels=(100, 1_000, 10_000, 60_000)
        ),
        "full": Scale(
            "3 times the iterations of the recipes, 10 times those of DRAW",
            labels=(100, 300, 1_000, 3_000, 10_000, 60_000),
            default_iterations=3,
            iterations={"draw": 10},
            num_bound=1_000,
        ),
    },
)
"""Name -> scale."""
