"""What the texts say of estimators is what the published tables say."""

import re
from pathlib import Path

import pandas as pd
import pytest

import air_env
from air_agents.estimators import ESTIMATORS

ROOT = Path(__file__).parents[1]
README, PAGE = (" ".join((ROOT / name).read_text().split()) for name in ("README.md", "docs/estimators.md"))
STAGES = ["init", "early", "stuck", "converged"]


def sheet(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "docs" / "results" / f"{name}.csv")


def row(text: str, start: str) -> list[str]:
    """The cells of the first line of a table that starts like this, without markup."""
    found = re.search(rf"^\|\s*{re.escape(start)}\s*\|(.*)\|$", text, re.MULTILINE)
    assert found, start
    return [cell.strip(" `") for cell in found[1].split("|")]


def successes(name: str) -> dict[str, str]:
    runs = sheet(name).groupby("estimator").success
    return {estimator: f"{int(own.sum())}/{len(own)}" for estimator, own in runs}


@pytest.mark.parametrize("scene", ["digits", "objects3d"])
def test_the_readme_has_the_successes_of_the_sheets(scene):
    text = (ROOT / "README.md").read_text().split("### Gradient estimators")[1]
    names, cells = row(text, ""), row(text, f"`{scene}`")
    shown = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    assert shown == successes(f"estimators_{scene}")


def test_the_page_on_estimators_has_the_numbers_of_the_sheet():
    text = (ROOT / "docs" / "estimators.md").read_text().split("## Training")[1]
    names, runs = row(text, ""), sheet("estimators_digits")
    assert row(text, "seeds that succeed") == [successes("estimators_digits")[name] for name in names]
    medians = runs.groupby("estimator").median(numeric_only=True)
    for name, cell in zip(names, row(text, "added variance, first third (squared gradients)"), strict=True):
        assert float(cell) == pytest.approx(medians.noise_early[name], rel=0.15), name
    for name, cell in zip(names, row(text, "likelihoods per iteration of 64 images"), strict=True):
        own = runs[runs.estimator == name]
        assert float(cell) == pytest.approx((own.likelihoods / own.iterations).median(), abs=0.5), name


def test_the_page_says_which_estimators_add_the_least_variance_with_identities():
    assert "`exact` still adds the least variance of the unbiased estimators at every stage of `sprites`, and" in PAGE
    assert "and `rloo` the least of those that an online agent can use" in PAGE
    rows = sheet("estimator_properties").query("scene == 'sprites' and unbiased and estimator != 'vargrad'")
    for stage in STAGES:
        there = rows[rows.stage == stage].set_index("estimator")
        assert there.variance.idxmin() == "exact", stage
        assert there[there.prefix_only].variance.idxmin() == "rloo", stage


def test_the_page_says_what_a_critic_adds():
    assert "are within 5 % of the variance of `stop_now`" in PAGE
    assert "to an untrained one they have 0.6 to 0.95 of it" in PAGE
    rows = sheet("estimator_properties").pivot(index=["scene", "stage"], columns="estimator", values="variance")
    for name in ("nvil", "half_critic"):
        ratio = (rows[name] / rows.stop_now).unstack()
        assert ratio.init.between(0.6, 0.95).all()
        assert ratio[STAGES[1:]].sub(1).abs().max().max() < 0.05


def test_the_texts_say_what_the_cut_through_the_canvas_costs():
    page = (ROOT / "docs" / "results" / "estimator_properties.md").read_text()
    biases = {
        scene: [row(page, f"{scene} | `{core}` | {stage}")[1] for stage in STAGES]
        for scene, core in (("sprites", "air_canvas"), ("multi_mnist_dair", "dair"))
    }
    assert (
        f"`sprites` {', '.join(biases['sprites'])} of its norm; DAIR {', '.join(biases['multi_mnist_dair'])}" in README
    )
    least, most = min(biases["sprites"]), max(biases["sprites"])
    assert f"is off by {least} to {most} of its norm" in PAGE
    assert f"DAIR's by {min(biases['multi_mnist_dair'])} to {max(biases['multi_mnist_dair'])}" in PAGE


def test_every_estimator_is_in_the_page_and_counted_in_the_readme():
    assert f"compares {len(ESTIMATORS)} gradient estimators" in README
    assert not [name for name in ESTIMATORS if f"`{name}`" not in PAGE]


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {air_env.__version__}\n" in text
    assert "air-bench-1" in text
