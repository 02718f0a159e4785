"""Pages: tables as Markdown and CSV, matplotlib figures and animations beside them."""

from .markdown import means, number, pivot, show, table
from .page import DPI, Page

__all__ = ["DPI", "Page", "means", "number", "pivot", "show", "table"]
