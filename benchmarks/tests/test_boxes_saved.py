"""The cost of a learning curve, and the interval of ratios."""

import math
from pathlib import Path

import pytest
from boxes_saved import Cost, Point, cost, ratio_interval
from detection import deal
from photographs import Photograph, Photographs

CURVE = [Point(20, 100, 0.4), Point(40, 180, 0.3), Point(60, 300, 0.8)]


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        (0.2, Cost(10, 50, reached=True)),
        (0.4, Cost(20, 100, reached=True)),
        (0.6, Cost(50, 240, reached=True)),  # between the second and the third, from the best so far
        (0.9, Cost(60, 300, reached=False)),
    ],
)
def test_the_cost_is_that_of_the_first_detector_at_the_goal(goal: float, expected: Cost) -> None:
    found = cost(CURVE, goal)
    assert (found.images, found.boxes) == (pytest.approx(expected.images), pytest.approx(expected.boxes))
    assert found.reached == expected.reached


def test_the_interval_of_ratios_is_symmetric_in_their_logarithms() -> None:
    mean, low, high = ratio_interval([0.5, 0.5, 0.5])
    assert (mean, low, high) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    mean, low, high = ratio_interval([0.25, 1.0])
    assert mean == pytest.approx(0.5)
    assert low * high == pytest.approx(mean**2)
    assert ratio_interval([0.7]) == (pytest.approx(0.7), 0.0, math.inf)


def test_each_seed_deals_all_images_into_other_parts() -> None:
    images = [Photograph(Path(f"{number}.jpg"), ()) for number in range(40)]
    whole = Photographs("images", images[:30], images[30:])
    one, other = deal(whole, 1), deal(whole, 2)
    assert len(one.test) == 10
    assert sorted(str(image.path) for image in [*one.pool, *one.test]) == sorted(str(image.path) for image in images)
    assert one.test != other.test
    assert len(deal(whole, 1, 20).pool) == 15
