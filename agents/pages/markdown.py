"""Tables in Markdown."""

from collections.abc import Mapping, Sequence

import pandas as pd
from pandas.api.types import is_numeric_dtype


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; ``-`` where it is missing or NaN."""
    return "-" if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def show(frame: pd.DataFrame, titles: Mapping[str, str], digits: Mapping[str, int] | int = 3) -> str:
    """The columns of a frame that have a title, in the order of the titles.

    Args:
        frame: A row for each line.
        titles: Column -> heading.
        digits: Decimals of floats, of all columns or by column (3 for others).
    """
    places = dict.fromkeys(titles, digits) if isinstance(digits, int) else digits

    def cell(name: str, value: object) -> object:
        return number(value, places.get(name, 3)) if isinstance(value, float) or value is None else value

    columns = [[cell(name, value) for value in frame[name].tolist()] for name in titles]
    return table(list(titles.values()), list(zip(*columns, strict=True)))


def pivot(
    frame: pd.DataFrame, titles: Mapping[str, str], column: str, values: str, heading: str = "{}", digits: int = 3
) -> str:
    """A table with a line for each combination of the columns in ``titles``, and a column for each value of another.

    Lines and columns come in the order in which the frame has them first.

    Args:
        frame: Tidy rows.
        titles: Column that tells lines apart -> heading.
        column: Column whose values become headings.
        values: Column of the numbers; means are shown where several rows meet. Or of texts, of which the first is.
        heading: Format of the headings.
        digits: Decimals.
    """
    groups = frame.groupby([*titles, column], sort=False)[values]
    if is_numeric_dtype(frame[values]):
        texts = {place: number(value, digits) for place, value in groups.mean().to_dict().items()}
    else:
        texts = groups.first().to_dict()
    lines, columns = frame[list(titles)].drop_duplicates().itertuples(index=False), frame[column].unique()
    rows = [[*line, *(texts.get((*line, name), "-") for name in columns)] for line in lines]
    return table([*titles.values(), *(heading.format(name) for name in columns)], rows)


def means(
    frame: pd.DataFrame, keys: Mapping[str, str], titles: Mapping[str, str], digits: Mapping[str, int] | int = 3
) -> str:
    """A table of means over the rows that agree in the columns ``keys``; missing values are left out."""
    grouped = frame.groupby(list(keys), sort=False)[list(titles)].mean().reset_index()
    return show(grouped, {**keys, **titles}, digits)
