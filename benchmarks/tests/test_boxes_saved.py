"""The curves of a seed, and the images of each."""

from pathlib import Path

import pytest
from boxes_saved import Outcome, Point
from detection import deal
from photographs import Photograph, Photographs


def test_a_curve_is_in_shares_of_the_full_quality() -> None:
    outcome = Outcome(Point(100, 1000, 0.8), [Point(10, 60, 0.4)], [Point(10, 130, 0.2)])
    curve = outcome.curve(outcome.active)
    assert (curve.boxes.tolist(), curve.shares.tolist(), curve.full_boxes) == ([60], [pytest.approx(0.5)], 1000)


def test_each_seed_deals_all_images_into_other_parts() -> None:
    images = [Photograph(Path(f"{number}.jpg"), ()) for number in range(40)]
    whole = Photographs("images", images[:30], images[30:])
    one, other = deal(whole, 1), deal(whole, 2)
    assert len(one.test) == 10
    assert sorted(str(image.path) for image in [*one.pool, *one.test]) == sorted(str(image.path) for image in images)
    assert one.test != other.test
    assert len(deal(whole, 1, 20).pool) == 15
