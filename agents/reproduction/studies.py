"""The studies that `air-env reproduce` knows; plug-ins add theirs as ``study.NAME``."""

from air_env.registry import Registry

from . import figure3, figure4, figure5, figure6, figure7, search
from .study import Study

STUDIES: Registry[Study] = Registry(
    "study",
    {
        "figure3": figure3.STUDY,
        "figure4": figure4.STUDY,
        "figure5": figure5.STUDY,
        "figure5_search": search.STUDY,
        "figure6": figure6.STUDY,
        "figure7": figure7.STUDY,
    },
)
"""Name -> study."""
