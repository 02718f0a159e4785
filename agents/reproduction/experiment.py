"""Experiments: the scale, the seeds and the place of a study's runs."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from air_env.renderers.backends import PyrenderRenderer, RaycastRenderer
from air_env.scenes import SceneDataset, SolidScene, make_scene
from air_env.scenes.base import Split

from ..jobs.job import Job
from .scales import SCALES, Scale

Drawer = RaycastRenderer | PyrenderRenderer
TEST_SEED = 100_000
"""Seed of the held-out scenes, which are the same for all models and seeds, and of no run."""
VALIDATION: Split = "validation"
"""Split of what is chosen by, on which nothing is reported."""


@dataclass(frozen=True)
class Experiment:
    """What to compute, and where."""

    scale_name: str
    """One of `SCALES`."""
    seeds: tuple[int, ...]
    """Seeds; each is a run of every model."""
    runs_dir: Path
    """Folder with a folder for each scale."""
    data_dir: str | None = None
    """Folder of the data files, for scenes that need some."""
    device: str = "cpu"
    """Where to train and to measure."""

    def __post_init__(self) -> None:
        SCALES.find(self.scale_name)
        if not self.seeds:
            raise ValueError("there is no seed to train; give at least one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {', '.join(map(str, self.seeds))}; leave one out")

    @property
    def scale(self) -> Scale:
        """How much is computed."""
        return SCALES.find(self.scale_name)

    @property
    def directory(self) -> Path:
        """Folder of the runs."""
        return self.runs_dir / self.scale_name

    def job(self, name: str, seed: int) -> Job:
        """A run; `Scale.recipe` has the names."""
        recipe = self.scale.recipe(name, seed)
        return Job(self.directory.resolve() / f"{name}-{seed}", recipe, self.data_dir, self.device)

    def held_out(self, num_scenes: int, split: Split = "test", **options: object) -> SceneDataset:
        """Scenes of objects that no run was trained on; those of split `VALIDATION` are there to choose by."""
        options = {**self.scale.options, **options}
        return held_out(self.scale.scene, num_scenes, None, split, data_dir=self.data_dir, **options)


def held_out(
    scene: str, num_scenes: int, drawer: Drawer | None = None, split: Split = "test", /, **options: object
) -> SceneDataset:
    """Scenes of objects that no run was trained on.

    Args:
        scene: One of `SCENES`.
        num_scenes: How many.
        drawer: Draws three-dimensional objects; by default what the generative model draws with.
        split: ``test``, or `VALIDATION`.
        options: Of the scene.
    """
    return _held_out(scene, num_scenes, drawer, split, tuple(sorted(options.items())))


@lru_cache(maxsize=16)
def _held_out(
    scene_name: str, num_scenes: int, drawer: Drawer | None, split: Split, options: tuple[tuple[str, object], ...]
) -> SceneDataset:
    # Every model is measured on them, and they take long to make.
    scene = make_scene(scene_name, **dict(options))
    if drawer is not None:
        assert isinstance(scene, SolidScene)
        scene = replace(scene, drawer=drawer)
    return scene.dataset(split, num_scenes, TEST_SEED)
