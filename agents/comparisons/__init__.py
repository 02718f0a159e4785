"""Models to compare AIR with.

DRAW, an autoencoder, classifiers, heads on frozen features (Section 3.1); supervised networks and gradient descent on
poses (Section 3.2).
"""

from .autoencoder import Autoencoder, AutoencoderConfig
from .classifiers import Classifier, ClassifierConfig
from .draw import DRAW, DRAWConfig
from .model import ComparisonModel, ComparisonSettings
from .poses import PoseRegressor, PoseRegressorConfig
from .recipes import COMPARISON_MODELS, COMPARISONS, ComparisonRecipe
from .tables import TableRegressor, TableRegressorConfig
from .tasks import TASKS
from .training import load_comparison

__all__ = [
    "COMPARISONS",
    "COMPARISON_MODELS",
    "DRAW",
    "TASKS",
    "Autoencoder",
    "AutoencoderConfig",
    "Classifier",
    "ClassifierConfig",
    "ComparisonModel",
    "ComparisonRecipe",
    "ComparisonSettings",
    "DRAWConfig",
    "PoseRegressor",
    "PoseRegressorConfig",
    "TableRegressor",
    "TableRegressorConfig",
    "load_comparison",
]
