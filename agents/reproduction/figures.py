"""The figures of the paper that are made again."""

from ..training.settings import refuse_unknown
from .figure import Figure
from .figure3 import CountingFigure
from .figure4 import GeneralisationFigure
from .figure5 import RepresentationFigure
from .figure6 import InverseGraphicsFigure
from .figure7 import TableFigure

FIGURES: dict[str, Figure] = {
    "figure3": CountingFigure(),
    "figure4": GeneralisationFigure(),
    "figure5": RepresentationFigure(),
    "figure6": InverseGraphicsFigure(),
    "figure7": TableFigure(),
}
"""Name -> figure."""


def get_figure(name: str) -> Figure:
    """A registered figure."""
    refuse_unknown("figure", name, FIGURES)
    return FIGURES[name]
