"""The head learns from ten labels, never predicts unseen concepts, and rejects labels that cannot be learned."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Array
from vesta_training.heads.linear_head import fit_head
from vesta_training.heads.logistic_regression import LinearMap, fit_linear
from vesta_training.recipes.choices import HeadChoices, Task

CONCEPTS = ("cat", "dog", "owl", "yak")


def blobs(classes: list[int], dimension: int = 16, spread: float = 0.3) -> tuple[Array, np.ndarray]:
    """Returns embeddings of unit length around a direction per class, with their labels."""
    generator = np.random.default_rng(7)
    centres = generator.normal(0, 1, (4, dimension))
    points = centres[classes] + generator.normal(0, spread, (len(classes), dimension))
    embeddings = points / np.linalg.norm(points, axis=1, keepdims=True)
    return embeddings.astype(np.float32), np.eye(4, dtype=np.bool_)[classes]


def fit(classes: list[int], task: Task = Task.CLASSIFICATION, **choices: object):
    embeddings, labels = blobs(classes)
    return fit_head(embeddings, labels, CONCEPTS, task, HeadChoices(**choices), seed=0)


def test_ten_labels_are_enough_to_fit() -> None:
    classes = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    fitted = fit(classes)
    embeddings, labels = blobs([0, 1, 2, 3] * 20)

    assert (fitted.head.decide(fitted.head.probabilities(embeddings)) == labels).all()


def test_a_concept_is_learned_from_one_example() -> None:
    fitted = fit([0] * 10 + [1] * 10 + [2])
    embeddings, labels = blobs([2] * 5)

    assert (fitted.head.decide(fitted.head.probabilities(embeddings)) == labels).all()


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.MULTILABEL])
def test_a_concept_without_an_example_is_never_predicted(task: Task) -> None:
    fitted = fit([0, 1, 2] * 5, task)
    probabilities = fitted.head.probabilities(blobs([3] * 5)[0])

    assert fitted.unseen_concepts == ("yak",)
    assert (probabilities[:, 3] == 0).all()
    assert not fitted.head.decide(probabilities)[:, 3].any()


def test_a_single_concept_is_rejected_with_what_is_missing() -> None:
    with pytest.raises(TooFewLabelsError, match="all 6 labelled items of the train split have the label 'dog'"):
        fit([1] * 6)


def test_missing_labels_are_rejected() -> None:
    with pytest.raises(TooFewLabelsError, match="no item"):
        fit([])


def test_multi_label_data_without_differences_is_rejected() -> None:
    with pytest.raises(TooFewLabelsError, match="all or none of the labelled items"):
        fit([1] * 6, Task.MULTILABEL)


def test_equal_inputs_give_an_equal_head() -> None:
    first, second = fit([0, 1, 2, 3] * 20), fit([0, 1, 2, 3] * 20)

    assert first.head.weights.tobytes() == second.head.weights.tobytes()
    assert first.temperature == second.temperature


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(lambda classes: len(set(classes)) > 1))
def test_any_labels_that_differ_give_finite_probabilities(classes: list[int]) -> None:
    probabilities = fit(classes).head.probabilities(blobs([0, 1, 2, 3])[0])

    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_fit_is_the_optimum_that_scikit_learn_finds() -> None:
    embeddings, labels = blobs([0, 1, 2, 3] * 25, spread=1.0)
    ours = fit_linear(
        embeddings,
        labels,
        "softmax",
        strength=0.5,
        weights=np.ones((100, 1), dtype=np.float32),
        offset=np.zeros(4, dtype=np.float32),
        start=None,
    )
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(embeddings, labels.argmax(axis=1))

    assert ours.weights.T - ours.weights.T.mean(axis=0) == pytest.approx(theirs.coef_, abs=0.02)


def test_fewer_items_than_dimensions_give_the_same_head_as_more() -> None:
    """With few items, features are rotated into fewer dimensions. The result must not change."""
    embeddings, labels = blobs([0, 1, 2, 3] * 3, dimension=200)
    turned = fit_head(embeddings, labels, CONCEPTS, Task.CLASSIFICATION, HeadChoices(), seed=0, cross_validated=False)
    centred = embeddings - embeddings.mean(axis=0)
    straight: LinearMap = fit_linear(
        (centred / np.sqrt((centred**2).sum(axis=1).mean())).astype(np.float32),
        labels,
        "softmax",
        strength=HeadChoices().strength_default,
        weights=np.ones((12, 1), dtype=np.float32),
        offset=np.full(4, 0.5 * np.log(3.5 / 13), dtype=np.float32),
        start=None,
    )

    assert turned.loss == pytest.approx(straight.loss, rel=0.01)


@pytest.mark.parametrize("imbalance", ["balanced", "logit_adjustment"])
def test_a_rare_concept_is_predicted(imbalance: str) -> None:
    classes = [0] * 200 + [1] * 6
    embeddings, labels = blobs(classes, spread=1.2)
    test_embeddings = blobs([1] * 100, spread=1.2)[0]

    def recall(**choices: object) -> float:
        head = fit_head(embeddings, labels, CONCEPTS, Task.CLASSIFICATION, HeadChoices(**choices), seed=0).head
        return float(head.decide(head.probabilities(test_embeddings))[:, 1].mean())

    assert recall(imbalance=imbalance, imbalance_share=1.0) > recall(imbalance="none") + 0.05


def test_multi_label_concepts_are_predicted_independently() -> None:
    generator = np.random.default_rng(1)
    labels = generator.random((300, 4)) < 0.4
    directions = np.linalg.qr(generator.normal(0, 1, (16, 16)))[0][:4]
    points = labels @ directions + generator.normal(0, 0.05, (300, 16)) + 0.1
    embeddings = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    fitted = fit_head(embeddings[:200], labels[:200], CONCEPTS, Task.MULTILABEL, HeadChoices(imbalance="none"), seed=0)
    decided = fitted.head.decide(fitted.head.probabilities(embeddings[200:]))

    assert (decided == labels[200:]).mean() > 0.95
    assert len(fitted.head.thresholds) == 4


def test_real_scans_are_learned_and_calibrated(digits: Any, embeddings: Array) -> None:
    labels = np.array([[label == concept for concept in digits.concepts] for label in digits.labels])
    head = fit_head(embeddings[:100], labels[:100], digits.concepts, Task.CLASSIFICATION, HeadChoices(), seed=0).head
    probabilities = head.probabilities(embeddings[100:])
    right = (head.decide(probabilities) == labels[100:]).all(axis=1)

    assert right.mean() > 0.7
    assert abs(probabilities.max(axis=1).mean() - right.mean()) < 0.15
