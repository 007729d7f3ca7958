"""What random labels teach where they all show the same."""

import pytest
from control import share_without_training


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [(["hat"], 0.75), (["hat", "hat"], 0.75), (["shoe"], 0.0), (["hat", "dress"], None)],
)
def test_labels_of_one_class_alone_are_worth_its_share_of_the_test_side(
    drawn: list[str], expected: float | None
) -> None:
    assert share_without_training(drawn, ["hat", "hat", "dress", "hat"]) == expected
