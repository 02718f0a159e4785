"""What the paper compares AIR with (Sections 3.1.1, 3.1.2): DRAW, a convolutional autoencoder, classifiers."""

from .autoencoder import Autoencoder, AutoencoderConfig
from .classifiers import Classifier, ClassifierConfig
from .draw import DRAW, DRAWConfig
from .poses import PoseRegressor, PoseRegressorConfig
from .tables import TableRegressor, TableRegressorConfig
from .tasks import TASKS
from .training import COMPARISONS, ComparisonRecipe, ComparisonRun, get_comparison, load_comparison

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
