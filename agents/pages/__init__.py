"""Pages: tables as Markdown and CSV, matplotlib figures and animations beside them."""

from .markdown import means, number, pivot, show, table
from .page import DPI, Page, Picture

__all__ = ["DPI", "Page", "Picture", "means", "number", "pivot", "show", "table"]
