"""What active selection has saved, told from the control arm's curve."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_conductor.label_saving import EXTRAPOLATION_MAX, label_saving
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint


def curve(labels: int) -> float:
    return 0.95 - 1.2 * labels**-0.6


def points(counts: list[int], accuracy: Callable[[int], float], spread: float = 0.02) -> list[LearningCurvePoint]:
    return [
        LearningCurvePoint(
            label_count=count,
            accuracy=Estimate(value=accuracy(count), low=accuracy(count) - spread, high=accuracy(count) + spread),
        )
        for count in counts
    ]


def test_a_clear_curve_is_read_backwards() -> None:
    saving = label_saving(points([10, 20, 40, 60], curve), 0.85, 30)
    assert saving is not None
    needed = (0.1 / 1.2) ** (-1 / 0.6)  # 62.9
    assert saving.random_labels.value == pytest.approx(needed, rel=0.03)
    assert saving.random_labels.low < needed < saving.random_labels.high
    assert saving.saved_labels == round(saving.random_labels.value) - 30
    assert saving.spent_labels == 30


def test_a_loss_is_told_as_honestly() -> None:
    saving = label_saving(points([10, 20, 40, 60], curve), 0.75, 100)
    assert saving is not None
    assert saving.saved_labels < 0


@pytest.mark.parametrize(
    "unclear",
    [
        [],
        points([10, 20], curve),
        points([10, 10, 20], curve),
        points([10, 20, 40], lambda _: 0.7),
        points([10, 20, 40], lambda count: 0.9 - count / 100),
    ],
    ids=["nothing", "two points", "two counts", "flat", "falling"],
)
def test_too_little_is_claimed_for_nothing(unclear: list[LearningCurvePoint]) -> None:
    assert label_saving(unclear, 0.85, 30) is None


def test_nothing_is_claimed_beyond_ten_times_what_was_tried() -> None:
    assert label_saving(points([5, 8, 12], curve), 0.94, 30) is None


def test_the_last_point_without_width_is_trusted_no_more_than_the_one_before() -> None:
    wide = points([10, 20, 40], curve, spread=0.1)
    wide[-1].accuracy.low = wide[-1].accuracy.high = wide[-1].accuracy.value
    saving = label_saving(wide, 0.8, 30)
    assert saving is not None
    assert saving.random_labels.high > 1.3 * saving.random_labels.value


@given(
    accuracies=st.lists(st.floats(0, 1), min_size=3, max_size=6),
    accuracy=st.floats(0, 1),
    spent=st.integers(0, 10_000),
)
def test_whatever_the_curve_a_claim_is_finite_ordered_and_bounded(
    accuracies: list[float], accuracy: float, spent: int
) -> None:
    counts = [10 * 2**place for place in range(len(accuracies))]
    found = label_saving(points(counts, dict(zip(counts, accuracies, strict=True)).__getitem__), accuracy, spent)
    if found is not None:
        estimate = found.random_labels
        assert np.isfinite([estimate.low, estimate.value, estimate.high]).all()
        assert 1 <= estimate.low <= estimate.value <= estimate.high <= EXTRAPOLATION_MAX * counts[-1]
