"""The learning curve of random labels, and the number of random labels that gives the accuracy of a model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import norm
from vesta_training.example import Array
from vesta_training.heads.linear_head import Labels
from vesta_training.metrics.learning_curve import FOLDS, LABELS_MAX, LearningCurve, curve_counts, learning_curve
from vesta_training.metrics.random_labels import EXTRAPOLATION_MAX, random_labels
from vesta_training.recipes.choices import HeadChoices, Task

CONCEPTS = ("a", "b", "c", "d")
COUNTS = (10, 20, 40, 80, 120)
ITEMS = 400


def true_accuracy(label_count: float) -> float:
    return 0.95 - 1.2 * label_count**-0.6


def a_curve(accuracies: list[float], counts: tuple[int, ...] = COUNTS, draws: int = 2, seed: int = 0) -> LearningCurve:
    """Returns a curve with these accuracies, over items whose difficulty is the same for every head."""
    hardness = np.random.default_rng(seed).random(ITEMS)
    correct = hardness[None, :] < np.array(accuracies)[:, None]
    return LearningCurve(counts, np.arange(ITEMS), np.repeat(correct[None], draws, axis=0))


def a_model(accuracy: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(ITEMS) < accuracy


@pytest.mark.parametrize(
    ("label_count", "counts"),
    [
        (0, []),
        (9, []),
        (10, [10]),
        (11, [10, 11]),
        (40, [10, 20, 40]),
        (70, [10, 20, 40, 70]),
        (10_000, [10, 20, 40, 80, 160, 320, 640, LABELS_MAX]),
    ],
)
def test_the_curve_is_measured_at_doubling_counts_up_to_its_end(label_count: int, counts: list[int]) -> None:
    assert curve_counts(label_count) == counts


def some(digits: Any, embeddings: Array, rows: slice) -> tuple[Array, Labels]:
    labels = np.array([[label == concept for concept in digits.concepts] for label in digits.labels])
    return embeddings[rows], labels[rows]


def test_the_curve_rises_with_labels_of_the_control_arm_and_of_the_test_split(digits: Any, embeddings: Array) -> None:
    counted: list[tuple[int, int]] = []
    curve = learning_curve(
        some(digits, embeddings, slice(0, 40)),
        some(digits, embeddings, slice(100, 150)),
        digits.concepts,
        Task.CLASSIFICATION,
        HeadChoices(),
        learns_from_test=True,
        draws=2,
        seed=0,
        measured=lambda step, steps: counted.append((step, steps)),
    )
    assert curve is not None
    points = curve.points
    assert [point.label_count for point in points] == [10, 20, 40, 80]
    assert points[-1].metric.value > points[0].metric.value + 0.2
    assert all(point.metric.low < point.metric.value < point.metric.high for point in points)
    assert counted[-1] == (2 * FOLDS * 4, 2 * FOLDS * 4)


def test_a_separate_test_split_is_not_trained_on(digits: Any, embeddings: Array) -> None:
    curve = learning_curve(
        some(digits, embeddings, slice(0, 45)),
        some(digits, embeddings, slice(100, 150)),
        digits.concepts,
        Task.CLASSIFICATION,
        HeadChoices(),
        learns_from_test=False,
        draws=2,
        seed=0,
    )
    assert curve is not None
    assert curve.label_counts == (10, 20, 40, 45)
    assert curve.correct.shape == (2 * FOLDS, 4, 50)
    assert curve.label_spreads().min() > 0


def test_no_test_item_is_predicted_by_a_head_that_has_seen_it() -> None:
    """Random labels: only heads that have learned from an item could predict it."""
    generator = np.random.default_rng(0)
    embeddings = np.eye(60, dtype=np.float32)
    labels = np.eye(2, dtype=np.bool_)[generator.permutation(60) % 2]
    curve = learning_curve(
        (embeddings[:0], labels[:0]),
        (embeddings, labels),
        ("a", "b"),
        Task.CLASSIFICATION,
        HeadChoices(),
        learns_from_test=True,
        draws=4,
        seed=0,
    )
    assert curve is not None
    assert curve.points[-1].label_count == 48
    assert curve.points[-1].metric.value < 0.6


def test_a_control_arm_of_one_concept_still_has_a_curve() -> None:
    embeddings = np.random.default_rng(0).normal(0, 1, (12, 8)).astype(np.float32)
    labels = np.zeros((12, 4), dtype=np.bool_)
    labels[:, 2] = True
    curve = learning_curve(
        (embeddings, labels),
        (embeddings, labels),
        CONCEPTS,
        Task.CLASSIFICATION,
        HeadChoices(),
        learns_from_test=True,
        draws=2,
        seed=0,
    )
    assert curve is not None
    assert {point.metric.value for point in curve.points} == {1}


def test_too_few_labels_or_no_test_labels_give_no_curve() -> None:
    nothing = np.zeros((0, 8), dtype=np.float32), np.zeros((0, 4), dtype=np.bool_)
    five = np.ones((5, 8), dtype=np.float32), np.eye(4, dtype=np.bool_)[[0, 1, 2, 3, 0]]
    for control, test in ((five, nothing), (nothing, five), (nothing, nothing)):
        assert (
            learning_curve(
                control, test, CONCEPTS, Task.CLASSIFICATION, HeadChoices(), learns_from_test=True, draws=2, seed=0
            )
            is None
        )


def test_the_curve_is_solved_for_the_accuracy_of_the_model() -> None:
    found = random_labels(a_curve([true_accuracy(count) for count in COUNTS]), a_model(0.85), seed=0)
    needed = (0.1 / 1.2) ** (-1 / 0.6)  # 62.9
    assert not found.reason
    assert found.labels.value == pytest.approx(needed, rel=0.1)
    assert found.labels.low < needed < found.labels.high < 3 * needed


def test_extrapolation_has_a_wide_interval_with_a_possibly_unknown_end() -> None:
    near = random_labels(a_curve([true_accuracy(count) for count in COUNTS]), a_model(0.85), seed=0)
    far = random_labels(a_curve([true_accuracy(count) for count in COUNTS]), a_model(0.90), seed=0)
    assert far.labels.high / far.labels.low > near.labels.high / near.labels.low
    assert far.labels.low < (0.05 / 1.2) ** (-1 / 0.6) < far.labels.high


@pytest.mark.parametrize(
    ("accuracies", "counts", "why"),
    [
        ([0.3, 0.6], (10, 20), "too few"),
        ([0.7, 0.7, 0.7, 0.7, 0.7], COUNTS, "does not increase"),
        ([0.8, 0.7, 0.6, 0.5, 0.4], COUNTS, "does not increase"),
        ([0.5, 0.55, 0.58, 0.6, 0.605], COUNTS, "more than"),
    ],
)
def test_an_impossible_estimate_has_a_reason(accuracies: list[float], counts: tuple[int, ...], why: str) -> None:
    found = random_labels(a_curve(accuracies, counts), a_model(0.97), seed=0)
    assert not found.HasField("labels")
    assert why in found.reason


def a_simulated_loop(
    accuracy_of: Callable[[float], float], needed: float, seed: int
) -> tuple[LearningCurve, np.ndarray]:
    """Simulates the curve and the model of a loop with 45 labels of the control arm and 100 labels of the test split.

    Items are hard or easy for all heads alike, up to chance (a probit model), and a set of labels may be a lucky one.
    """
    generator = np.random.default_rng(seed)
    counts, item_count, luck = (10, 20, 40, 80, 125), 100, 0.02
    hardness = generator.normal(0, 1, item_count)

    def right(accuracy: float) -> np.ndarray:
        chance = norm.cdf(4 * (norm.ppf(np.clip(accuracy, 0.01, 0.99)) * np.sqrt(1 + 1 / 16) - hardness))
        return generator.random(item_count) < chance

    lucky = generator.normal(0, luck)
    correct = [
        [
            right(
                accuracy_of(count) + lucky * np.sqrt(count / 125) + generator.normal(0, luck) * np.sqrt(1 - count / 125)
            )
            for count in counts
        ]
        for _ in range(2)
    ]
    return LearningCurve(counts, np.arange(item_count), np.array(correct)), right(accuracy_of(needed))


@pytest.mark.parametrize("needed", [60, 150, 400])
@pytest.mark.parametrize(
    "accuracy_of",
    [lambda count: 0.92 - 1.1 * count**-0.5, lambda count: 0.88 * (1 - np.exp(-((count / 25) ** 0.5)))],
    ids=["power law", "saturating"],
)
def test_the_interval_has_its_nominal_coverage(accuracy_of: Callable[[float], float], needed: float) -> None:
    held, estimated = 0, 0
    for seed in range(40):
        found = random_labels(*a_simulated_loop(accuracy_of, needed, seed), seed=seed)
        estimated += not found.reason
        held += found.labels.low <= needed and (found.high_unknown or needed <= found.labels.high)
    assert estimated > 10
    assert held >= 0.9 * estimated


def test_without_a_curve_the_reason_states_the_required_labels() -> None:
    assert "40" in random_labels(None, a_model(0.9), seed=0).reason


@settings(max_examples=25, deadline=None)
@given(
    correct=arrays.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(3, 5), st.just(30))),
    model=arrays.arrays(np.bool_, 30),
)
def test_every_estimate_is_finite_ordered_and_bounded(correct: np.ndarray, model: np.ndarray) -> None:
    counts = COUNTS[: correct.shape[1]]
    found = random_labels(LearningCurve(counts, np.arange(30), correct), model, seed=0)
    assert found.HasField("labels") != bool(found.reason)
    if found.HasField("labels"):
        assert 1 <= found.labels.low <= found.labels.value <= found.labels.high <= EXTRAPOLATION_MAX * counts[-1]
