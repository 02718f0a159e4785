"""The merit of a representation and that of the head that reads it: pairs that differ in one thing (Figure 5)."""

from collections.abc import Mapping
from itertools import pairwise

import pandas as pd

from ..pages import number

ONCE, AGAIN, PIXELS = "AIR, inferred once", "AIR, inferred again", "pixels"
OTHERS = ("DRAW", "autoencoder", PIXELS)
CNN = "convolutional"
"""The head that only pixels have: a run of its own for each number of labels."""
GAINS = {
    **{f"representation: {ONCE}, not {other} (plain head)": ((ONCE, "plain"), (other, "plain")) for other in OTHERS},
    **{f"inference: again, not once ({head} head)": ((AGAIN, head), (ONCE, head)) for head in ("plain", "shared")},
    **{f"head: shared, not plain ({each})": ((each, "shared"), (each, "plain")) for each in (ONCE, AGAIN)},
}
"""What differs -> two representations with heads that differ in nothing else."""


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Differences of the accuracies of such pairs.

    Args:
        rows: Accuracies by ``representation``, ``head``, ``task``, ``labels`` and ``seed``.

    Returns:
        ``gain`` by ``what``, ``task``, ``labels`` and ``seed``; pairs of which one is missing are left out.
    """
    keys = ["task", "labels", "seed"]
    wide = rows.pivot(index=keys, columns=["representation", "head"], values="accuracy")
    found = {what: wide[one] - wide[other] for what, (one, other) in GAINS.items() if {one, other} <= set(wide)}
    return pd.DataFrame(found, wide.index).reset_index().melt(keys, var_name="what", value_name="gain")


def merits(rows: pd.DataFrame, num_labels: int, questions: Mapping[str, str]) -> str:
    """What is the merit of the representation and what of the head, in sentences, from the rows."""
    mean = rows[rows.labels == num_labels].groupby(["task", "representation", "head"]).accuracy.mean()
    sentences = []
    for task, question in questions.items():
        of = mean.loc[task]
        best = max(OTHERS, key=lambda other: of[other, "plain"])
        path = of[best, "plain"], of[ONCE, "plain"], of[AGAIN, "plain"], of[AGAIN, "shared"]
        steps = [f"{after - before:+.3f}" for before, after in pairwise(path)]
        sentences.append(
            f"- {question}: the plain head reaches {number(path[0])} on the best other representation ({best}). "
            f"AIR's codes as inferred once change that by {steps[0]} (the representation's merit), their inference "
            f"again by {steps[1]} (unsupervised, but made for who reads), the shared head by {steps[2]} (the head's "
            f"merit), to {number(path[3])}. On codes inferred once the shared head reaches "
            f"{number(of[ONCE, 'shared'])}, the convolutional network of pixels {number(of[PIXELS, CNN])}."
        )
    return "\n".join(sentences)
