"""Intervals contain their value, and are wide for one or two items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_training.intervals import bootstrap, paired_difference


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 200))
def test_every_interval_contains_its_value(wins: int, losses: int, ties: int) -> None:
    estimate = paired_difference(wins, losses, ties, draws=100, generator=np.random.default_rng(0))

    assert estimate.low <= estimate.value <= estimate.high


def test_one_lost_item_is_insignificant_and_twenty_are_significant() -> None:
    generator = np.random.default_rng(0)

    assert paired_difference(0, 1, 0, draws=2000, generator=generator).high > 0
    assert paired_difference(0, 20, 80, draws=2000, generator=generator).high < 0


def test_the_intervals_of_many_concepts_hold_simultaneously() -> None:
    generator = np.random.default_rng(4)
    counts = generator.multinomial(60, [0.1, 0.1, 0.8], size=(100, 10))  # equally good models: 10 concepts, 100 times

    def refused(together: int) -> int:
        return sum(
            any(
                paired_difference(*one, draws=2000, generator=generator, intervals_together=together).high < 0
                for one in concepts
            )
            for concepts in counts.tolist()
        )

    assert refused(1) > 10  # without a joint correction, many good challengers are rejected
    assert refused(10) <= 5


@pytest.mark.parametrize("together", [10, 100])
def test_intervals_that_hold_together_reach_as_far_out_as_they_should(together: int) -> None:
    generator = np.random.default_rng(5)
    shares = generator.dirichlet([4.5, 10.5, 65.5], size=2_000_000)
    true_high = np.percentile(shares[:, 0] - shares[:, 1], 100 - 2.5 / together)
    found = [
        paired_difference(4, 10, 65, draws=2000, generator=generator, intervals_together=together).high
        for _ in range(20)
    ]
    assert np.mean(found) == pytest.approx(true_high, abs=0.01)
    assert np.std(found) < 0.02


def test_the_bootstrap_of_a_share_agrees_with_its_standard_error() -> None:
    counts = np.array([300, 100])
    estimate = bootstrap(
        counts, lambda drawn: drawn[:, 0] / drawn.sum(axis=1), draws=4000, generator=np.random.default_rng(1)
    )

    assert estimate.value == 0.75
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 400) ** 0.5, rel=0.05)


def test_without_items_there_is_no_interval() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="requires at least one"):
        paired_difference(0, 0, 0, draws=100, generator=generator)
    with pytest.raises(ValueError, match="requires at least one"):
        bootstrap(np.zeros(0, dtype=np.int64), lambda drawn: drawn.sum(axis=1), draws=100, generator=generator)
