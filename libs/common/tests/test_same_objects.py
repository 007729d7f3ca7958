"""Whether two sets of objects are the same."""

import numpy as np
import pytest
from vesta_common.media.boxes import box_ious
from vesta_common.media.same_objects import are_same

NONE: list[list[float]] = []
LEFT, MIDDLE, RIGHT = [0.0, 0.0, 30.0, 10.0], [10.0, 0.0, 40.0, 10.0], [20.0, 0.0, 50.0, 10.0]
FAR = [100.0, 100.0, 110.0, 110.0]


def same_boxes(boxes: list[list[float]], concepts: str, others: list[list[float]], other_concepts: str) -> bool:
    one, other = (np.array(rows, np.float64).reshape(-1, 4) for rows in (boxes, others))
    return are_same(box_ious(one, other), list(concepts), list(other_concepts))


@pytest.mark.parametrize(
    ("boxes", "concepts", "others", "other_concepts", "same"),
    [
        (NONE, "", NONE, "", True),
        (NONE, "", [LEFT], "a", False),
        ([LEFT], "a", NONE, "", False),
        ([LEFT], "a", [LEFT], "a", True),
        ([LEFT], "a", [LEFT], "b", False),
        ([LEFT], "a", [MIDDLE], "a", True),
        ([LEFT], "a", [RIGHT], "a", False),
        ([LEFT, FAR], "ab", [FAR, LEFT], "ba", True),
        ([LEFT, FAR], "ab", [FAR, LEFT], "ab", False),
        ([LEFT, LEFT], "aa", [LEFT, FAR], "aa", False),
        ([LEFT, LEFT], "ab", [LEFT, LEFT], "ba", True),
    ],
)
def test_objects_are_the_same_if_they_can_be_paired(
    boxes: list[list[float]], concepts: str, others: list[list[float]], other_concepts: str, same: bool
) -> None:
    assert same_boxes(boxes, concepts, others, other_concepts) is same
    assert same_boxes(others, other_concepts, boxes, concepts) is same


@pytest.mark.parametrize("boxes", [[MIDDLE, LEFT], [LEFT, MIDDLE]])
def test_a_box_leaves_its_best_match_to_one_that_has_no_other(boxes: list[list[float]]) -> None:
    # The middle box overlaps the left one most, which is the only match of the left box.
    assert same_boxes(boxes, "aa", [[8.0, 0.0, 38.0, 10.0], [16.0, 0.0, 46.0, 10.0]], "aa")


def test_thousands_of_overlapping_objects_are_compared() -> None:
    shifts = np.linspace(0, 1, 3000)[:, None] * [1.0, 0.0, 1.0, 0.0]
    boxes = np.array([[0.0, 0.0, 10.0, 10.0]]) + shifts
    concepts = ["cell"] * 3000
    similarities = box_ious(boxes, boxes[::-1])
    assert are_same(similarities, concepts, concepts)
    similarities[7] = 0
    assert not are_same(similarities, concepts, concepts)


def test_a_long_chain_of_objects_is_paired() -> None:
    # Each object fits its own place and the next one; the last one fits only the first place, so that all others move on.
    similarities = np.eye(3000, k=1)
    similarities[np.arange(2999), np.arange(2999)] = 1
    similarities[-1, 0] = 1
    assert are_same(similarities, ["cell"] * 3000, ["cell"] * 3000)
