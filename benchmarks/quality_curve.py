"""The boxes after which detectors reach a share of full mAP@50, read from a smooth learning curve.

The mAP of a single training varies by several hundredths, so that the first training at the goal is mostly a lucky one. A power law
`a - b x boxes^-c` (Hestness et al., arXiv 1712.00409) is therefore fitted to all trainings of all seeds, as shares of the full mAP of their
seeds. It never falls. The trainings with all images, at a share of 1, belong to the curves of both arms. The interval is that of a
two-stage bootstrap: seeds are drawn with replacement, the same ones for both arms, and then trainings of each drawn seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.linspace(0.05, 1.0, 20)
"""Curves of detectors have small ones; with larger ones, a lucky first training would bend the curve."""
REPLICATES = 1000
Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Trainings of an arm with one seed: `(P,)` each.

    Attributes:
        boxes: above 0.
        shares: the mAP@50 as a share of that of all images.
        full_boxes: the number of boxes in all images.
    """

    boxes: Floats
    shares: Floats
    full_boxes: float


class Ratio(NamedTuple):
    """The boxes that one arm needs ÷ those of the other, with the 95 % interval."""

    value: float
    low: float
    high: float


def boxes_needed(curves: Sequence[Curve], goal: float) -> float:
    """Returns the number of boxes at which the power law of the curves reaches the goal, at most those of all images.

    Args:
        goal: a share of the full mAP, below 1.
    """
    boxes = np.concatenate([[*curve.boxes, curve.full_boxes] for curve in curves])
    shares = np.concatenate([[*curve.shares, 1.0] for curve in curves])
    full_boxes = float(np.mean([curve.full_boxes for curve in curves]))
    end, slope, exponent = _fit(boxes, shares)
    if slope <= 0.0 or end <= goal:
        return full_boxes
    return float(min(((end - goal) / slope) ** (-1.0 / exponent), full_boxes))


def ratio_of_boxes(active: Sequence[Curve], drawn: Sequence[Curve], goal: float, seed: int = 0) -> Ratio:
    """Returns the boxes that active selection needs ÷ those of random selection.

    Args:
        active: one curve for each seed.
        drawn: those of random selection, for the same seeds.
        seed: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(REPLICATES):
        seeds = generator.integers(0, len(active), len(active))
        pairs = [(_redrawn(active[one], generator), _redrawn(drawn[one], generator)) for one in seeds]
        ratios.append(boxes_needed([a for a, _ in pairs], goal) / boxes_needed([b for _, b in pairs], goal))
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Ratio(boxes_needed(active, goal) / boxes_needed(drawn, goal), float(low), float(high))


def _redrawn(curve: Curve, generator: np.random.Generator) -> Curve:
    rows = generator.integers(0, len(curve.boxes), len(curve.boxes))
    return Curve(curve.boxes[rows], curve.shares[rows], curve.full_boxes)


def _fit(boxes: Floats, shares: Floats) -> tuple[float, float, float]:
    """Returns `a`, `b` and `c` of the power law with the smallest squares; `b` is 0 if the shares do not rise."""
    shrink = boxes ** -EXPONENTS[:, None]
    means = shrink.mean(axis=1)
    centred = shrink - means[:, None]
    slopes = np.maximum(-(centred @ shares) / np.maximum((centred**2).sum(axis=1), 1e-300), 0.0)
    ends = shares.mean() + slopes * means
    best = int(((ends[:, None] - slopes[:, None] * shrink - shares) ** 2).sum(axis=1).argmin())
    return float(ends[best]), float(slopes[best]), float(EXPONENTS[best])
