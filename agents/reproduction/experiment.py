"""Experiments: the scale, the seeds and the place of a study's runs."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from air_env.scenes import SceneDataset

from ..jobs.job import Job
from .scales import SCALES, Scale

TEST_SEED = 100_000
"""Seed of the held-out scenes, which are the same for all models and seeds, and of no run."""


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

    def held_out(self, num_scenes: int, **options: object) -> SceneDataset:
        """Scenes of objects that no run was trained on."""
        return _held_out(self.scale_name, self.data_dir, num_scenes, tuple(sorted(options.items())))


@lru_cache(maxsize=16)
def _held_out(
    scale_name: str, data_dir: str | None, num_scenes: int, options: tuple[tuple[str, object], ...]
) -> SceneDataset:
    # Every model is measured on them, and crowded scenes take long to compose.
    return SCALES.find(scale_name).make_scene(data_dir, **dict(options)).dataset("test", num_scenes, TEST_SEED)
