"""Learning curves of known shape, with and without luck."""

import numpy as np
import pytest
from quality_curve import Curve, boxes_needed, ratio_of_boxes

BOXES = np.array([50.0, 100, 200, 400, 800])
ALL_BOXES = 3200.0


def a_curve(scale: float = 1.0, noise: float = 0.0, seed: int = 0) -> Curve:
    """Returns a power law that reaches 1 with all boxes; an arm with half the scale needs half the boxes."""
    shares = 1.0 - 2.0 * ((BOXES / scale) ** -0.5 - ALL_BOXES**-0.5)
    return Curve(BOXES, shares + np.random.default_rng(seed).normal(0, noise, BOXES.size), ALL_BOXES)


def boxes_at(share: float) -> float:
    return float(((1 - share) / 2 + ALL_BOXES**-0.5) ** -2)


@pytest.mark.parametrize("goal", [0.8, 0.9, 0.95])
def test_a_power_law_is_solved_for_the_goal(goal: float) -> None:
    assert boxes_needed([a_curve()], goal) == pytest.approx(boxes_at(goal), rel=0.01)


def test_a_lucky_training_does_not_decide() -> None:
    curve = a_curve()
    lucky = Curve(BOXES, curve.shares + np.array([0, 0.1, 0, 0, 0]), ALL_BOXES)
    assert lucky.shares[1] > 0.9
    assert boxes_needed([lucky, curve, curve], 0.9) == pytest.approx(boxes_at(0.9), rel=0.25)


def test_an_arm_that_learns_nothing_needs_all_boxes() -> None:
    falling = Curve(BOXES, np.array([0.8, 0.7, 0.6, 0.5, 0.4]), ALL_BOXES)
    assert boxes_needed([falling], 0.95) == ALL_BOXES


def test_equal_arms_have_a_ratio_of_one_within_the_interval() -> None:
    active = [a_curve(noise=0.02, seed=seed) for seed in range(5)]
    drawn = [a_curve(noise=0.02, seed=seed + 5) for seed in range(5)]
    ratio = ratio_of_boxes(active, drawn, 0.9)
    assert ratio.low < 1 < ratio.high


def test_an_arm_that_needs_fewer_boxes_has_a_ratio_below_one() -> None:
    active = [a_curve(scale=0.25, noise=0.01, seed=seed) for seed in range(5)]
    drawn = [a_curve(noise=0.01, seed=seed + 5) for seed in range(5)]
    ratio = ratio_of_boxes(active, drawn, 0.9)
    assert ratio.low < ratio.value < ratio.high < 0.8
    opposite = ratio_of_boxes(drawn, active, 0.9)
    assert opposite.value == pytest.approx(1 / ratio.value)
    assert opposite.low > 1.2
