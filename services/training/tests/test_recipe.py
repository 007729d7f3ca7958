"""Recipes: parsing, validation, and the reasons of built-in recipes."""

import pytest
from vesta_training.errors import RecipeError
from vesta_training.recipes.choices import HeadChoices, SegmentationChoices, Task
from vesta_training.recipes.recipe import BUILTIN, builtin_recipe, builtin_yaml, choices_of, read_recipe


@pytest.mark.parametrize("name", BUILTIN)
def test_every_choice_of_a_builtin_recipe_has_a_reason(name: str) -> None:
    recipe = builtin_recipe(name)
    written = {line.split(":")[0].strip() for line in builtin_yaml(name).splitlines() if line.startswith("  ")}
    reasons = {path.split(".")[1] for path in recipe.reasons}
    choices = {path.split(".")[1] for path in choices_of(recipe)}

    assert written & choices == reasons


def test_the_builtin_recipes_have_the_tasks_of_their_names() -> None:
    assert [builtin_recipe(name).task for name in BUILTIN] == [
        Task.CLASSIFICATION,
        Task.CLASSIFICATION,
        Task.DETECTION,
        Task.DETECTION,
        Task.INSTANCE_SEGMENTATION,
        Task.SEMANTIC_SEGMENTATION,
        Task.MULTILABEL,
        Task.EMBEDDING,
    ]


def test_a_bare_value_and_a_value_with_its_reason_mean_the_same() -> None:
    bare = read_recipe("mine", "{task: classification, summary: Mine., head: {folds: 5}}")
    reasoned = read_recipe("mine", "{task: classification, summary: Mine., head: {folds: {value: 5, because: More.}}}")

    assert bare.digest == reasoned.digest
    assert reasoned.reasons == {"head.folds": "More."}


def test_omitted_choices_have_defaults() -> None:
    assert read_recipe("mine", "{task: classification, summary: Mine., head: {}}").head == HeadChoices()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{task: classification, summary: S., head: {strenths: [1]}}",
            "head.strenths: unknown; known keys: strengths",
        ),
        (
            "{task: classification, summary: S., head: {}, bakbone: {}}",
            "bakbone: unknown; known keys: task, summary",
        ),
        ("{task: classification, summary: S., head: {folds: 1}}", "head.folds: .*greater than or equal to 2"),
        ("{task: classification, summary: S.}", "requires a section `head`"),
        ("{task: embedding, summary: S., head: {}}", "does not use these sections: remove head"),
        ("{task: detection, summary: S., detection: {}, head: {}}", "does not use these sections: remove head"),
        ("{task: detection, summary: S.}", "requires a section `detection`"),
        ("{task: detection, summary: S., detection: {side_px: 300}}", "multiple of 32"),
        (
            "{task: detection, summary: S., detection: {}, finetune: {}}",
            "'detection' does not use these sections: remove finetune",
        ),
        (
            "{task: semantic-segmentation, summary: S., segmentation: {}, detection_finetune: {}}",
            "'semantic-segmentation' does not use these sections: remove detection_finetune",
        ),
        ("{task: detection, summary: S., detection: {steps_min: 9, steps_max: 8}}", "exchange them"),
        ("{task: semantic-segmentation, summary: S.}", "requires a section `segmentation`"),
        (
            "{task: tracking, summary: S.}",
            "task: .*'classification', 'multilabel', 'detection', .*'semantic-segmentation'",
        ),
        ("{task: classification, head: {}}", "summary: Field required"),
        ("{task: classification, summary: S., head: {}, backbone: {weights: ../secret}}", "backbone.weights"),
        ("[1, 2]", "a mapping is expected"),
        ("{", "not YAML"),
        ("{task: &a classification, summary: *a, head: {}}", r"aliases \(\*name\) are not supported; repeat the value"),
        ("a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)), "aliases"),
        ("a: &a [*a]", "aliases"),
        ("{a: 1, <<: *b}", "aliases"),
        ("[" * 3000, "nested deeper than 20 levels"),
        ("a: " + "[" * 21 + "]" * 21, "nested deeper than 20 levels"),
        ("a: " * 3, "not YAML"),
        ("summary: 2024-13-45", "not YAML: month must be"),
        ("seed: " + "9" * 5000, "not YAML: Exceeds the limit"),
        ("{[1]: 2}", "unhashable"),
        ("summary: \x00", "not YAML"),
        ("1: 2", "1: Keys should be strings"),
        ("task: " + "a" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_an_invalid_recipe_is_rejected_with_a_suggestion(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refusal:
        read_recipe("mine", text)
    assert refusal.value.reason == "RECIPE_INVALID"


@pytest.mark.parametrize(
    ("image_count", "expected"), [(0, 4), (20, 4), (150, 4), (200, 3), (300, 2), (2000, 2), (2001, 1), (10_000, 1)]
)
def test_many_images_have_few_views(image_count: int, expected: int) -> None:
    choices = SegmentationChoices(views=4, views_total=600, views_total_max=4000)

    assert choices.view_count(image_count) == expected


def test_the_maximum_of_a_recipe_holds_for_any_number_of_images() -> None:
    assert SegmentationChoices(views=1, views_total=600).view_count(20) == 1
    assert SegmentationChoices(views=8, views_total_max=4000).view_count(1000) == 4
