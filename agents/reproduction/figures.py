"""The figures of the paper that are made again."""

from agents.reproduction.figure import Figure
from agents.reproduction.figure3 import CountingFigure
from agents.reproduction.figure4 import GeneralisationFigure
from agents.reproduction.figure5 import RepresentationFigure
from agents.reproduction.figure6 import InverseGraphicsFigure
from agents.reproduction.figure7 import TableFigure
from agents.training_settings import refuse_unknown

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
