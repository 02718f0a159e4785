"""What the paper compares AIR with (Sections 3.1.1, 3.1.2): DRAW, a convolutional autoencoder, classifiers."""

from agents.comparisons.autoencoder import Autoencoder, AutoencoderConfig
from agents.comparisons.classifiers import Classifier, ClassifierConfig
from agents.comparisons.draw import DRAW, DRAWConfig
from agents.comparisons.poses import PoseRegressor, PoseRegressorConfig
from agents.comparisons.tables import TableRegressor, TableRegressorConfig
from agents.comparisons.tasks import TASKS
from agents.comparisons.training import COMPARISONS, ComparisonRecipe, ComparisonRun, get_comparison, load_comparison

__all__ = [
    "COMPARISONS",
    "DRAW",
    "TASKS",
    "Autoencoder",
    "AutoencoderConfig",
    "Classifier",
    "ClassifierConfig",
    "ComparisonRecipe",
    "ComparisonRun",
    "DRAWConfig",
    "PoseRegressor",
    "PoseRegressorConfig",
    "TableRegressor",
    "TableRegressorConfig",
    "get_comparison",
    "load_comparison",
]
