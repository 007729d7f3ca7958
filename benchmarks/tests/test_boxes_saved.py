"""The curves of a seed, and the images of each."""

from pathlib import Path

import pytest
from boxes_saved import Outcome, Point, figure_of
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


def an_outcome(active: float, luck: float) -> Outcome:
    """Returns an outcome in which an image of active selection teaches as much as `active` random ones."""
    random = [Point(count, 10 * count, 0.8 - luck * count**-0.5) for count in (10, 20, 35, 60)]
    chosen = [Point(count, 10 * count, 0.8 - luck * (active * count) ** -0.5) for count in (10, 20, 35, 60)]
    return Outcome(Point(1000, 10_000, 0.8), chosen, random)


def test_the_figure_has_its_interval_and_the_ratio_of_each_seed() -> None:
    figure = figure_of("ratio", 1.0, (4, 5), [an_outcome(4, 0.5), an_outcome(2, 0.5)])
    assert figure.details["low"] < figure.value < figure.details["high"] < 1
    assert figure.details["ratio_of_seed_4"] < figure.value < figure.details["ratio_of_seed_5"]
    assert figure.details["boxes"] < figure.details["random_boxes"] < figure.details["all_boxes"]
    assert figure.holds


def test_a_selection_that_wastes_boxes_is_below_the_floor() -> None:
    assert not figure_of("ratio", 1.3, (4, 5), [an_outcome(0.5, 0.5), an_outcome(0.4, 0.5)]).holds
