"""What random labels teach where they all show the same."""

import pytest
from boxes import clipped
from photographs import label
from task_types.classification import Classification
from task_types.detection import Detection

BOX = clipped("hat", (0, 0, 9, 9), (20, 20))


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [(["hat"], 0.75), (["hat", "hat"], 0.75), (["shoe"], 0.0), (["hat", "dress"], None)],
)
def test_labels_of_one_class_alone_are_worth_its_share_of_the_test_side(
    drawn: list[str], expected: float | None
) -> None:
    test = [[label(concept)] for concept in ("hat", "hat", "dress", "hat")]
    assert Classification().quality_without_training([[label(concept)] for concept in drawn], test) == expected


def test_images_without_objects_alone_teach_a_detector_nothing() -> None:
    assert BOX is not None
    assert Detection().quality_without_training([[], []], [[BOX], []]) == 0.0
    assert Detection().quality_without_training([[], []], [[], []]) == 1.0
    assert Detection().quality_without_training([[], [BOX]], [[BOX]]) is None
