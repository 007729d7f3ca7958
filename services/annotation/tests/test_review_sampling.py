"""The sample of decided tasks that are reviewed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation.review_sampling import is_sampled

NAMES = [f"projects/acme/campaigns/vans/tasks/{number}" for number in range(4000)]


@given(st.text())
def test_a_share_of_zero_samples_none_and_a_share_of_one_all(name: str) -> None:
    assert not is_sampled(name, 0)
    assert is_sampled(name, 1)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_samples_a_superset(name: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_sampled(name, large) or not is_sampled(name, small)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_the_sampled_fraction_equals_the_share(share: float) -> None:
    sampled = sum(is_sampled(name, share) for name in NAMES) / len(NAMES)
    assert sampled == pytest.approx(share, abs=0.03)


def test_the_sampling_of_a_name_never_changes() -> None:
    assert [is_sampled(name, 0.5) for name in NAMES[:8]] == [True, True, False, True, False, False, True, False]
