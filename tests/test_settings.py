"""Settings as JSON: those of every registered class survive, and those of older versions are read."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import RECIPE

from air_agents.comparisons import COMPARISON_MODELS, COMPARISONS, ComparisonRecipe
from air_agents.inference import AGENTS
from air_agents.inference.air import AgentConfig
from air_agents.training.recipes import RECIPES, Recipe
from air_agents.training.serialisation import FAMILIES, from_json, to_json
from air_agents.training.settings import TrainingSettings
from air_env.model import SceneConfig
from air_env.priors import COUNT_PRIORS, CountPrior
from air_env.renderers import RENDERERS, PatchConfig

OLD = json.loads((Path(__file__).parent / "old_settings.json").read_text())
"""Settings of every recipe, comparison and algorithm, as they were written before they said their kind."""
NEEDED = {"classifier": {"task": "sum"}}


def defaults(registry) -> st.SearchStrategy:
    return st.sampled_from([cls(**NEEDED.get(kind, {})) for kind, cls in registry.items()])


@st.composite
def changed(draw, registry):
    """Settings of a registered class, of which one number differs from the default."""
    chosen = draw(defaults(registry))
    numbers = [field.name for field in fields(chosen) if type(getattr(chosen, field.name)) is float]
    name = draw(st.sampled_from([None, *numbers]))
    return chosen if name is None else replace(chosen, **{name: draw(st.floats(0.01, 0.4))})


options = st.dictionaries(
    st.sampled_from(["counts", "image_size", "overlap"]),
    st.one_of(st.integers(1, 9), st.booleans(), st.tuples(st.integers(0, 3), st.integers(0, 3))),
)


@st.composite
def recipes(draw):
    shared = {"scene": draw(st.sampled_from(["digits", "sprites"])), "scene_options": draw(options), "max_steps": 250}
    if draw(st.booleans()):
        return ComparisonRecipe(draw(changed(COMPARISON_MODELS)), **shared)
    prior = CountPrior(draw(st.sampled_from(list(COUNT_PRIORS))), draw(st.floats(0.01, 0.5)))
    model = SceneConfig(renderer=draw(changed(RENDERERS)), count_prior=prior)
    return Recipe(model=model, agent=draw(changed(AGENTS)), **shared)


@settings(max_examples=200, deadline=None)
@given(recipes())
def test_settings_of_every_registered_class_survive_json(recipe):
    assert from_json(TrainingSettings, json.loads(json.dumps(to_json(recipe)))) == recipe


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_member_of_a_family_carries_its_kind(family):
    for kind, cls in FAMILIES[family].items():
        assert issubclass(cls, family)
        assert cls.kind == kind


def test_every_registered_recipe_survives_json():
    for name, recipe in (RECIPES | COMPARISONS).items():
        assert from_json(TrainingSettings, json.loads(json.dumps(to_json(recipe)))) == recipe, name


def test_settings_of_older_versions_are_read():
    draw, autoencoder = COMPARISONS["draw"], COMPARISONS["autoencoder"]
    wide = Recipe(
        scene="multi_mnist",
        max_steps=8_000,
        model=SceneConfig(renderer=PatchConfig(hidden=512)),
        agent=AgentConfig(encoder_hidden=512),
    )
    dair = {"core": "dair"}
    since_changed = {
        "multi_mnist": Recipe(scene="multi_mnist", max_steps=6_000),
        "multi_mnist_wide": wide,
        "multi_mnist_dair": replace(
            wide, max_steps=4_000, exploration_steps=500, decay=0.5, agent=replace(wide.agent, **dair)
        ),
        "draw": replace(draw, max_steps=2_500, model=replace(draw.model, num_steps=40, window=6, likelihood_scale=0.3)),
        "autoencoder": replace(autoencoder, max_steps=2_500, model=replace(autoencoder.model, likelihood_scale=0.3)),
    }
    known = RECIPES | COMPARISONS | since_changed
    for name, recipe in ((name, known[name]) for name in OLD if name in known):
        assert from_json(TrainingSettings, OLD[name]) == recipe, name


@pytest.mark.parametrize("recipe", [RECIPE, COMPARISONS["draw"]], ids=["agent", "comparison"])
def test_the_former_name_of_the_number_of_validation_scenes_is_read(recipe):
    recipe = replace(recipe, num_validation=7)
    values = json.loads(json.dumps(to_json(recipe)).replace('"num_validation"', '"num_test"'))
    assert "num_validation" not in values
    assert from_json(TrainingSettings, values) == recipe


def test_options_of_a_scene_keep_their_names():
    recipe = replace(RECIPE, scene_options={"num_test": 3})
    assert from_json(TrainingSettings, to_json(recipe)) == recipe


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "sac"])
def test_settings_of_algorithms_survive_json_and_are_read_from_older_versions(algorithm):
    sb3 = pytest.importorskip("air_agents.sb3")
    recipe = sb3.make_settings(algorithm)
    assert from_json(TrainingSettings, json.loads(json.dumps(to_json(recipe)))) == recipe
    assert from_json(TrainingSettings, OLD[algorithm]) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["agent"].update(kind="ari"), "agent 'ari' is unknown; choose one of air"),
        (lambda values: values["agent"].update(kind=7), "agent settings must name their kind, one of air"),
        (lambda values: values.update(kind="recipe"), "kind of run 'recipe' is unknown; choose one of"),
        (lambda values: values.update(kind="comparison"), "settings do not fit ComparisonRecipe"),
        (lambda values: values["model"]["renderer"].update(hiden=3), "settings do not fit PatchConfig.*hiden"),
        (lambda values: values.update(seed="0"), "settings do not fit Recipe.*seed"),
        (lambda values: values.update(agent=[]), "settings must be a JSON object, got"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    values = to_json(RECIPE)
    change(values)
    with pytest.raises(ValueError, match=message):
        from_json(TrainingSettings, values)
