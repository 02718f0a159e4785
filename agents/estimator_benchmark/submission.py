"""`air-bench-1`: results of one's own estimator, checked and ranked among the others.

The name stands for the frozen problems (`CHECKSUMS`), their noise, the metrics of `Properties` and how baselines are
fitted; whoever changes one of these gives the benchmark another name. Every sheet of results carries it.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..pages import Page, table
from .frozen import JUDGED, SHIPPED, STAGES
from .properties import PARTS

BENCHMARK = "air-bench-1"
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("benchmark", "scene", "stage", "estimator", "objective"), str),
    **dict.fromkeys(("unbiased", "prefix_only", "enumerated"), bool),
    "num_draws": int,
    **dict.fromkeys(("bias", "bias_error", "cosine", "variance", "likelihoods"), float),
    **{f"variance_{part}": float for part in PARTS},
    "cost": float,
}
"""The schema of a sheet of results: column -> type."""
CHECKSUMS = {
    "digits.png": "1e70bc7fa4c26fb4e223d64f080680fc3a5bf1fa3d881851e5bc05d9e16b4266",
    "digits.safetensors": "df95e7fe9442e638dc84888766cb06913759f24f7a02a2e003751ed7e92d2e4b",
    "multi_mnist.png": "0e46b1d55502aaaf0001563ab61b17b9171a34a929105549587c10e8c77669b0",
    "multi_mnist.safetensors": "5b2e53652b96ccff3213729d78dbc97953f6d537c00cfc1ce8ad7b839b932913",
    "sprites.png": "5ce14115e344bd771232d3be47cd1ed7b2d3575b94f7af2f4f6627ded272fcf6",
    "sprites.safetensors": "61e9a3ef7fec0d38a4ca86162fb83239524a79fa1611e94ffcd6ebbf010f23f9",
}
"""SHA-256 of the files of frozen problems."""
_IS = {
    str: pd.api.types.is_string_dtype,
    bool: pd.api.types.is_bool_dtype,
    int: pd.api.types.is_integer_dtype,
    float: pd.api.types.is_numeric_dtype,
}
_RANGES = {"bias": (0, math.inf), "bias_error": (0, math.inf), "cosine": (-1, 1), "variance": (0, math.inf),
           "likelihoods": (0, math.inf)}  # fmt: skip


def check_problems() -> None:
    """Sees to it that the frozen problems are those of the benchmark.

    Raises:
        ValueError: A file is another one.
    """
    for name, wanted in CHECKSUMS.items():
        if hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() != wanted:
            raise ValueError(f"{SHIPPED / name} is not the file of {BENCHMARK}; install the package again")


def read_results(path: Path) -> pd.DataFrame:
    """Reads a sheet of results and checks it against the schema.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no sheet of this benchmark, or lacks something; the message says what.
    """
    try:
        sheet = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of comma-separated values ({error})") from error
    if missing := [name for name in COLUMNS if name not in sheet]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}; make it with `air-env benchmark-estimators properties`"
        )
    if others := set(sheet.benchmark) - {BENCHMARK}:
        raise ValueError(f"{path} has results of {', '.join(map(str, others))}, and wanted are those of {BENCHMARK}")
    for name, kind in COLUMNS.items():
        if not _IS[kind](sheet[name]):
            raise ValueError(f"column {name} of {path} must be of type {kind.__name__}, got {sheet[name].dtype}")
    ranked = sheet[sheet.objective != "own"]
    for name, (low, high) in _RANGES.items():
        if not ranked[name].between(low, high).all() or not ranked[name].map(math.isfinite).all():
            raise ValueError(f"column {name} of {path} must lie between {low} and {high} in every row")
    cost = (ranked.bias**2 + ranked.variance) * ranked.likelihoods
    if ((ranked.cost - cost).abs() > 1e-6 * cost + 1e-12).any():
        raise ValueError(f"column cost of {path} must be (bias ** 2 + variance) * likelihoods")
    for (scene, name), own in sheet.groupby(["scene", "estimator"], sort=False):
        if scene not in JUDGED or sorted(own.stage) != sorted(STAGES):
            raise ValueError(
                f"{path} must have {name} on {scene} once at each of the stages {', '.join(STAGES)}, scenes being some "
                f"of {', '.join(JUDGED)}; got the stages {', '.join(own.stage)}"
            )
    return sheet


def ranking(sheet: pd.DataFrame) -> pd.DataFrame:
    """The estimators of each board, best first.

    The rank of an estimator is the mean, over the stages, of its places by cost: the relative squared error of its
    gradient at equal numbers of likelihood evaluations.

    Returns:
        Columns scene, objective, estimator, unbiased, prefix_only, rank, and the cost at every stage.
    """
    boards = sheet[sheet.objective != "own"]
    place = boards.groupby(["scene", "objective", "stage"]).cost.rank(method="min")
    keys = ["scene", "objective", "estimator", "unbiased", "prefix_only"]
    rank = boards.assign(rank=place).groupby(keys, sort=False)["rank"].mean()
    costs = boards.pivot(index=keys, columns="stage", values="cost")[list(STAGES)]
    found = costs.assign(rank=rank).reset_index()
    order = {scene: place for place, scene in enumerate(JUDGED)}
    found = found.assign(order=found.scene.map(order)).sort_values(["order", "objective", "rank"], kind="stable")
    return found.drop(columns="order").reset_index(drop=True)


def submit(paths: Sequence[Path], published: Path, output_dir: Path, name: str = "ranking") -> list[Path]:
    """Checks results and ranks them among those that are published.

    Args:
        paths: Sheets of one's own, which `properties` wrote. Rows of estimators that are published may stand in them.
        published: The sheet of the registered estimators.
        output_dir: Folder of the page.
        name: Name of its files.

    Returns:
        The paths of NAME.md and NAME.csv.

    Raises:
        FileNotFoundError: A sheet is missing.
        ValueError: One is not as the benchmark wants it, or nothing in them is new, or two have the same name.
    """
    check_problems()
    known = read_results(published)
    news = pd.concat([read_results(path) for path in paths])
    news = news[~news.estimator.isin(set(known.estimator))]
    if news.empty:
        raise ValueError("every estimator in the sheets is published already; give yours a name of its own")
    if news.duplicated(["scene", "stage", "estimator"]).any():
        raise ValueError("two sheets have an estimator of the same name; rename one")
    found, page = ranking(pd.concat([known, news])), Page(output_dir, name)
    page.add(
        f"# {name}",
        f"Estimators of {BENCHMARK}; submitted ones in bold. `rank` is the mean of the places at all stages by "
        "(bias² + variance) · likelihoods, the relative squared error of the gradient at equal numbers of likelihoods; "
        "less is better. `online` are those that need nothing beyond the objects they tried.",
    )
    for (scene, objective), board in found.groupby(["scene", "objective"], sort=False):
        rows = [
            [
                f"**`{row['estimator']}`**" if row["estimator"] in set(news.estimator) else f"`{row['estimator']}`",
                f"{row['rank']:.1f}",
                "yes" if row["unbiased"] else "no",
                "yes" if row["prefix_only"] else "",
                *(f"{row[stage]:.3g}" for stage in STAGES),
            ]
            for _, row in board.iterrows()
        ]
        page.add(f"## {scene}, {objective}", table(["", "rank", "unbiased", "online", *STAGES], rows))
    page.add_table(found)
    return page.write()
