"""Metrics and comparisons, verified with scikit-learn or by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk
from vesta_training.heads.logistic_regression import softmax
from vesta_training.metrics.comparison import compare
from vesta_training.metrics.evaluation import CONCEPTS_FOR_CONFUSION_MAX, calibration_error, measure, reliability
from vesta_training.metrics.predictions import Predictions, over_concepts
from vesta_training.recipes.choices import EvaluationChoices, Task

CHOICES = EvaluationChoices(bootstrap_draws=500)
CONCEPTS = ("cat", "dog", "owl")


def some_answers(truth: list[int], predicted: list[int], confidence: float = 0.8) -> Predictions:
    """Returns classification predictions with the same confidence."""
    chosen = np.eye(3, dtype=np.bool_)[predicted].reshape(-1, 3)
    return Predictions(
        task=Task.CLASSIFICATION,
        items=tuple(f"items/{index}" for index in range(len(truth))),
        concepts=CONCEPTS,
        truth=np.eye(3, dtype=np.bool_)[truth].reshape(-1, 3),
        probabilities=np.where(chosen, confidence, (1 - confidence) / 2).astype(np.float32),
        predicted=chosen,
    )


def test_the_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 3, 200)
    probabilities = softmax((np.eye(3)[truth] * 2 + generator.normal(0, 1, (200, 3))).astype(np.float32))
    predicted = probabilities.argmax(axis=1)
    answers = Predictions(
        task=Task.CLASSIFICATION,
        items=tuple(str(index) for index in range(200)),
        concepts=CONCEPTS,
        truth=np.eye(3, dtype=np.bool_)[truth],
        probabilities=probabilities,
        predicted=np.eye(3, dtype=np.bool_)[predicted],
    )
    found = measure(answers, CHOICES, seed=0)

    assert found.accuracy.value == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found.macro_f1.value == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert found.log_loss == pytest.approx(sk.log_loss(truth, probabilities), rel=1e-5)
    assert [one.recall.value for one in found.concepts] == pytest.approx(
        sk.recall_score(truth, predicted, average=None)
    )
    assert [one.precision.value for one in found.concepts] == pytest.approx(
        sk.precision_score(truth, predicted, average=None)
    )
    assert list(found.confusion) == sk.confusion_matrix(truth, predicted).ravel().tolist()


def test_multi_label_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(4)
    truth, predicted = generator.random((2, 150, 3)) < 0.4
    answers = Predictions(
        task=Task.MULTILABEL,
        items=tuple(str(index) for index in range(150)),
        concepts=CONCEPTS,
        truth=truth,
        probabilities=np.where(predicted, 0.7, 0.2).astype(np.float32),
        predicted=predicted,
    )
    found = measure(answers, CHOICES, seed=0)

    assert found.accuracy.value == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found.macro_f1.value == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert list(found.confusion) == []


def test_the_confusion_matrix_is_omitted_above_the_concept_limit() -> None:
    concepts = tuple(str(index) for index in range(CONCEPTS_FOR_CONFUSION_MAX + 1))
    one_each = np.eye(len(concepts), dtype=np.bool_)
    answers = Predictions(Task.CLASSIFICATION, concepts, concepts, one_each, one_each.astype(np.float32), one_each)

    assert list(measure(answers, EvaluationChoices(bootstrap_draws=100), seed=0).confusion) == []


def test_without_test_items_there_are_no_metrics() -> None:
    with pytest.raises(ValueError, match="requires at least one"):
        measure(some_answers([], []), CHOICES, seed=0)


def test_precision_is_unset_without_predictions_and_recall_without_labels() -> None:
    _, dog, owl = measure(some_answers([0, 1], [0, 2]), CHOICES, seed=0).concepts

    assert (dog.HasField("precision"), dog.HasField("recall")) == (False, True)
    assert (owl.HasField("precision"), owl.HasField("recall")) == (True, False)
    assert (dog.f1, owl.f1) == (0, 0)


def test_unmeasured_values_are_unset() -> None:
    _, _, owl = measure(some_answers([0, 1], [0, 1]), CHOICES, seed=0).concepts
    bins = reliability(some_answers([0, 1], [0, 1], confidence=0.9), 2)
    found = compare(
        some_answers([0, 1], [0, 1]), some_answers([0, 1], [1, 1]), CHOICES, champion_name="versions/1", seed=0
    )

    assert not owl.HasField("f1")
    assert [one.HasField("mean_confidence") or one.HasField("accuracy") for one in bins] == [False, True]
    assert [one.HasField("difference") for one in found.concepts] == [True, True, False]


def test_the_calibration_error_is_the_difference_of_confidence_and_accuracy() -> None:
    bins = reliability(some_answers([0] * 10, [0] * 6 + [1] * 4, confidence=0.9), 15)

    assert calibration_error(bins) == pytest.approx(0.3, abs=1e-6)
    assert [one.item_count for one in bins if one.item_count] == [10]


def test_predictions_are_stored_per_item() -> None:
    assert some_answers([0], [1]).rows() == [
        {"item": "items/0", "truth": ["cat"], "predicted": ["dog"], "probabilities": [0.1, 0.8, 0.1]}
    ]


def test_a_challenger_better_everywhere_is_significantly_better() -> None:
    truth = [0, 1, 2] * 40
    champion = some_answers(truth, [0] * 120)
    challenger = some_answers(truth, truth)
    found = compare(challenger, champion, CHOICES, champion_name="versions/1", seed=0)
    cat, dog, owl = found.concepts

    assert found.difference.value == pytest.approx(2 / 3)
    assert found.difference.low > 0.5
    assert cat.difference.value == 0
    assert cat.difference.low < 0 < cat.difference.high
    assert dog.difference.low > 0
    assert owl.item_count == 40
    assert found.champion_metrics.accuracy.value == pytest.approx(1 / 3)


def test_a_challenger_that_lost_one_concept_is_significantly_worse_there() -> None:
    truth = [0] * 100 + [1] * 20
    found = compare(
        some_answers(truth, [0] * 120), some_answers(truth, truth), CHOICES, champion_name="versions/1", seed=0
    )

    assert found.concepts[1].difference.high < 0


def test_predictions_for_different_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same items"):
        compare(some_answers([0], [0]), some_answers([0, 1], [0, 1]), CHOICES, champion_name="versions/1", seed=0)


def test_a_champion_that_does_not_know_a_concept_misses_its_items() -> None:
    answers = some_answers([0, 1, 2], [0, 1, 2])
    truth = np.eye(4, dtype=np.bool_)[[0, 3, 2]]
    moved = over_concepts(answers, ("cat", "dog", "owl", "yak"), truth)

    assert moved.right.tolist() == [True, False, True]
    assert moved.probabilities[:, 3].tolist() == [0, 0, 0]
