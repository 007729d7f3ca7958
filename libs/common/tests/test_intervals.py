"""Wilson's interval contains its share, matches published values and the library, and is refused without trials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from vesta_common.intervals import wilson

counts = st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (8, 10, 0.4902, 0.9433), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_agrees_with_published_figures(successes: int, trials: int, low: float, high: float) -> None:
    estimate = wilson(successes, trials)

    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(counts)
def test_an_interval_contains_its_share_and_lies_within_bounds(counts: tuple[int, int]) -> None:
    estimate = wilson(*counts)

    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0


@given(counts)
def test_wilson_agrees_with_scipy(counts: tuple[int, int]) -> None:
    estimate, expected = wilson(*counts), binomtest(*counts).proportion_ci(method="wilson")

    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="requires at least one trial"):
        wilson(0, 0)
