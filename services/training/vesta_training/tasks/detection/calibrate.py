"""Calibrates the scores of objects, and chooses the thresholds, on objects that were found in held-out images."""

import numpy as np
import numpy.typing as npt

from vesta_training.heads.calibration import fit_platt, platt_scores
from vesta_training.metrics.draws import Floats
from vesta_training.metrics.objects import Matches, ObjectPredictions, match_concept
from vesta_training.models.graph_layers import Calibration
from vesta_training.tasks.views.uncalibrated import UNCALIBRATED_THRESHOLD

POSITIVES_FOR_THRESHOLD_MIN = 5


def calibrate(held_out: ObjectPredictions) -> tuple[Calibration, tuple[float, ...]]:
    """Returns the calibration of the scores, and for each concept the threshold with the best F1 after it.

    The probability that an object matches a true one with an IoU of at least 0.5 becomes its score (Platt scaling).

    Args:
        held_out: found with uncalibrated scores.
    """
    fitted = [_fit(match_concept(held_out, number).at_50) for number in range(len(held_out.concepts))]
    slopes, shifts, thresholds = zip(*fitted, strict=True)
    return Calibration(slopes, shifts), thresholds


def best_threshold(scores: Floats, hits: npt.NDArray[np.bool_], positives: int) -> float:
    """Returns the threshold with the best F1.

    Args:
        scores: `(D,)`, falling.
        hits: `(D,)`.
        positives: number of true objects. With fewer than five, the threshold is 0.5.
    """
    if positives < POSITIVES_FOR_THRESHOLD_MIN or not hits.any():
        return UNCALIBRATED_THRESHOLD
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(scores) + 1) + positives)
    f1[:-1][scores[:-1] == scores[1:]] = -1  # no threshold separates two equal scores
    best = int(np.argmax(f1))
    next_lower = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + next_lower) / 2)


def _fit(matches: Matches) -> tuple[float, float, float]:
    """Returns slope, shift and threshold of one concept."""
    hits = matches.hits[0]
    slope, shift = fit_platt(matches.scores, hits)
    scores = platt_scores(matches.scores, slope, shift)
    return slope, shift, best_threshold(scores, hits, int(matches.truth_counts.sum()))
