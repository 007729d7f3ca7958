"""Complete trainings: from examples to an evaluated model file with its card."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vesta_common.risk_control import level_of
from vesta_contracts.training.v1 import ExclusionCounts
from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Example, Split
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.model_file import PROBABILITIES, read_model
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.recipe import builtin_recipe, builtin_yaml, read_recipe
from vesta_training.tasks.assignment import Assignment, Champion, Dependencies, Trained, usable_examples
from vesta_training.tasks.classification.curve import measure_curve
from vesta_training.tasks.classification.train import train


@pytest.fixture
def assignment(digits: Any) -> Assignment:
    return Assignment(
        recipe=builtin_recipe("classification"),
        examples=digits.examples(train=80, test=60),
        concepts=digits.concepts,
        snapshot="projects/acme/datasets/digits/snapshots/1",
        snapshot_digest="d" * 64,
    )


def keep(trained: Trained, path: Path) -> Champion:
    path.write_bytes(trained.onnx_path.read_bytes())
    return Champion("projects/acme/models/digits/versions/1", path)


def test_the_trained_file_predicts_as_measured(assignment: Assignment, dependencies: Dependencies, digits: Any) -> None:
    trained = train(assignment, dependencies)
    pixels = np.stack([digits.pixels(one.image_sha256) for one in assignment.examples if one.split is Split.TEST])
    answered = ModelRuntime(trained.onnx_path).run(pixels, PROBABILITIES).argmax(axis=1)

    assert trained.metrics is not None
    assert trained.predictions is not None
    assert (answered == trained.predictions.predicted.argmax(axis=1)).all()
    assert trained.metrics.item_count == 60
    assert trained.metrics.accuracy.value > 0.6
    assert trained.held_out_accuracy is not None
    assert trained.held_out_accuracy.value == pytest.approx(trained.metrics.accuracy.value, abs=0.2)
    assert read_model(trained.onnx_path).embedding_digest == trained.embedding_digest


def test_equal_assignments_give_equal_files(assignment: Assignment, dependencies: Dependencies) -> None:
    assert train(assignment, dependencies).digest == train(assignment, dependencies).digest


def test_the_card_lists_inputs_and_limitations(assignment: Assignment, dependencies: Dependencies) -> None:
    trained = train(replace(assignment, concepts=(*assignment.concepts, "digit-ten")), dependencies)

    assert json.loads(json.dumps(trained.card)) == trained.card
    assert trained.card["file"]["sha256"] == trained.digest
    for said in (
        "projects/acme/datasets/digits/snapshots/1",
        "Apache-2.0",
        trained.digest,
        "Never predicted, because there were no training examples: digit-ten.",
        "On 60 test items",
        "because",
    ):
        assert said in trained.card_markdown


def test_a_challenger_is_compared_with_the_champion_on_the_same_items(
    assignment: Assignment, dependencies: Dependencies, tmp_path: Path
) -> None:
    few = tuple(one for one in assignment.examples if one.split is Split.TEST) + assignment.examples[:14]
    champion = keep(train(replace(assignment, examples=few), dependencies), tmp_path / "champion.onnx")
    comparison = train(replace(assignment, champion=champion), dependencies).comparison

    assert comparison is not None
    assert comparison.champion == champion.name
    assert comparison.champion_metrics.item_count == 60
    assert comparison.difference.low > 0


def test_a_compared_challenger_has_no_missing_comparison_reason(
    assignment: Assignment, dependencies: Dependencies, tmp_path: Path
) -> None:
    first = train(assignment, dependencies)
    assert first.comparison_missing == ""  # no champion is set
    champion = keep(first, tmp_path / "champion.onnx")
    assert train(replace(assignment, champion=champion), dependencies).comparison_missing == ""


def test_a_champion_of_another_task_is_not_compared_and_the_reason_names_both_tasks(
    assignment: Assignment, dependencies: Dependencies, tmp_path: Path
) -> None:
    embedding = train(Assignment(recipe=builtin_recipe("embedding")), dependencies)
    champion = keep(embedding, tmp_path / "champion.onnx")
    trained = train(replace(assignment, champion=champion), dependencies)

    assert trained.comparison is None
    assert (
        f"{champion.name} has the task embedding and the challenger the task classification"
        in trained.comparison_missing
    )


def test_without_test_labels_nothing_is_compared_and_the_run_has_a_reason(
    assignment: Assignment, dependencies: Dependencies, tmp_path: Path
) -> None:
    champion = keep(train(assignment, dependencies), tmp_path / "champion.onnx")
    taught = tuple(one for one in assignment.examples if one.split is not Split.TEST)
    trained = train(replace(assignment, champion=champion, examples=taught), dependencies)

    assert trained.comparison is None
    assert "no item of the test split is labelled" in trained.comparison_missing


def test_a_challenger_that_only_embeds_is_not_compared(
    assignment: Assignment, dependencies: Dependencies, tmp_path: Path
) -> None:
    champion = keep(train(assignment, dependencies), tmp_path / "champion.onnx")
    trained = train(Assignment(recipe=builtin_recipe("embedding"), champion=champion), dependencies)

    assert "only computes embeddings" in trained.comparison_missing


def test_the_learning_curve_is_measured_with_the_model_of_the_training(
    assignment: Assignment, dependencies: Dependencies
) -> None:
    assignment = replace(assignment, test_split_is_random=True)
    model = train(assignment, dependencies).onnx_path
    phases: list[str] = []

    curve = measure_curve(assignment, dependencies, model, lambda update: phases.append(update.phase))

    assert [point.label_count for point in curve.points] == [10, 20, 40, 80, 88]
    assert all(point.metric.low < point.metric.value < point.metric.high for point in curve.points)
    assert curve.random_labels.HasField("labels") or curve.random_labels.reason
    assert set(phases) == {"curve"}


def test_held_out_predictions_are_those_for_the_test_items(assignment: Assignment, dependencies: Dependencies) -> None:
    trained = train(replace(assignment, test_split_is_random=True), dependencies)

    assert trained.predictions is not None
    assert trained.held_out is not None
    probabilities = np.sort(trained.predictions.probabilities, axis=1)
    levels = [level_of(margin) for margin in (probabilities[:, -1] - probabilities[:, -2]).tolist()]
    assert sorted(trained.held_out.levels) == sorted(levels)
    assert sum(trained.held_out.correct) == trained.predictions.right.sum()
    assert sorted(trained.held_out.concepts) == sorted(trained.predictions.predicted.argmax(axis=1))
    assert trained.held_out.drawn_at_random


def test_an_embedding_model_requires_no_labels(dependencies: Dependencies) -> None:
    trained = train(Assignment(recipe=builtin_recipe("embedding")), dependencies)

    assert trained.metrics is None
    assert trained.held_out is None
    assert "has no concepts" in trained.metrics_missing_reason
    assert ModelRuntime(trained.onnx_path).outputs == ("embedding",)


def test_multi_label_is_trained_the_same_way(assignment: Assignment, dependencies: Dependencies) -> None:
    """Two overlapping concepts: even digits, and digits above four."""

    def relabelled(one: Example) -> Example:
        digit = int(one.concepts[0].removeprefix("digit-"))
        return replace(one, concepts=("even",) * (digit % 2 == 0) + ("large",) * (digit > 4))

    trained = train(
        replace(
            assignment,
            recipe=builtin_recipe("multilabel"),
            concepts=("even", "large"),
            examples=tuple(relabelled(one) for one in assignment.examples),
        ),
        dependencies,
    )

    assert trained.metrics is not None
    assert trained.metrics.macro_f1.value > 0.7
    assert len(trained.thresholds) == 2
    assert trained.held_out is not None
    assert len(trained.held_out.levels) == 60
    assert sum(trained.held_out.correct) == round(60 * trained.metrics.accuracy.value)


def test_items_without_one_known_concept_are_excluded_and_counted(
    assignment: Assignment, dependencies: Dependencies
) -> None:
    odd = (
        replace(assignment.examples[0], concepts=("gone",)),
        replace(assignment.examples[1], concepts=()),
        replace(assignment.examples[2], concepts=assignment.concepts[:2]),
        replace(assignment.examples[3], concepts=assignment.concepts[1:3]),
    )
    trained = train(replace(assignment, examples=odd + assignment.examples[4:], shapes_only_count=7), dependencies)

    assert trained.excluded == ExclusionCounts(
        no_label_count=1, multiple_labels_count=2, shapes_only_count=7, unknown_concept_count=1
    )
    assert trained.card["data"]["excluded"]["shapesOnlyCount"] == "7"
    assert '1 with "none of the concepts", 2 with several labels, 7 with shapes' in trained.card_markdown


def test_a_multi_label_model_learns_from_items_without_and_with_several_labels(assignment: Assignment) -> None:
    odd = (
        replace(assignment.examples[0], concepts=()),
        replace(assignment.examples[1], concepts=assignment.concepts[:2]),
    )
    kept, excluded = usable_examples(
        replace(assignment, recipe=builtin_recipe("multilabel"), examples=odd, shapes_only_count=1)
    )

    assert (kept, excluded) == (odd, ExclusionCounts(shapes_only_count=1))


def test_if_all_items_are_excluded_the_error_lists_the_reasons(
    assignment: Assignment, dependencies: Dependencies
) -> None:
    with pytest.raises(TooFewLabelsError, match="excluded are 9 with shapes and no image label"):
        train(replace(assignment, examples=(), shapes_only_count=9), dependencies)


def test_without_a_test_split_the_card_has_a_reason_instead_of_metrics(
    assignment: Assignment, dependencies: Dependencies, tmp_path: Path
) -> None:
    champion = keep(train(assignment, dependencies), tmp_path / "champion.onnx")
    untested = replace(assignment, examples=assignment.examples[:80], champion=champion)
    trained = train(untested, dependencies)

    assert (trained.metrics, trained.predictions, trained.comparison) == (None, None, None)
    assert trained.card["metrics"] is None
    assert "test split" in trained.metrics_missing_reason
    assert f"## Not measured\n\n{trained.metrics_missing_reason}" in trained.card_markdown
    assert "Accuracy" not in trained.card_markdown


def test_the_held_out_accuracy_does_not_depend_on_the_test_split(
    assignment: Assignment, dependencies: Dependencies
) -> None:
    trained = train(replace(assignment, examples=assignment.examples[:80]), dependencies)

    assert trained.held_out_accuracy == train(assignment, dependencies).held_out_accuracy


def test_labels_of_one_concept_are_rejected(assignment: Assignment, dependencies: Dependencies) -> None:
    alike = tuple(one for one in assignment.examples if one.concepts == ("digit-1",))
    with pytest.raises(TooFewLabelsError):
        train(replace(assignment, examples=alike), dependencies)


def test_progress_passes_the_phases_and_the_time_left_reaches_zero(
    assignment: Assignment, dependencies: Dependencies
) -> None:
    told: list[ProgressUpdate] = []
    train(assignment, dependencies, progress=told.append)
    phases = list(dict.fromkeys(moment.phase for moment in told))

    assert phases == ["features", "head", "evaluate", "export"]
    assert told[-1].time_left.total_seconds() == 0
    assert any(moment.loss for moment in told)


def test_the_time_left_follows_the_speed_of_the_phase_plus_planned_phases() -> None:
    now = [0.0]
    told: list[ProgressUpdate] = []
    report = Reporter(told.append, lambda: now[0], {"features": 100.0, "head": 7.0})
    report.begin("features", 10)
    now[0] = 4.0
    report.step(2, 10)
    report.begin("head")
    now[0] = 5.0
    report.step(1, 3)

    assert [moment.time_left.total_seconds() for moment in told] == [107, 23, 7, 2]


def test_fine_tuning_creates_its_own_embedding_space(
    assignment: Assignment, dependencies: Dependencies, digits: Any, tmp_path: Path
) -> None:
    text = builtin_yaml("classification-finetune").replace("value: 8", "value: 1")
    examples = digits.examples(train=16, test=8)
    own = tmp_path / "tuned"
    own.mkdir()
    trained = train(
        replace(assignment, recipe=read_recipe("quick", text), examples=examples), replace(dependencies, run_folder=own)
    )
    kept_epoch = trained.card["fitted"]["tunedEpoch"]
    plain = train(replace(assignment, examples=examples), dependencies)

    assert (trained.embedding_digest != plain.embedding_digest) == (kept_epoch > 0)
    assert read_model(trained.onnx_path).embedding_digest == trained.embedding_digest
