"""Calibrates the probabilities of pixels and of the presence of concepts, and chooses the thresholds, on held-out images."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from vesta_training.heads.calibration import fit_platt, fit_thresholds, platt_scores
from vesta_training.metrics.segmentation import MapPredictions
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.segmenter_graph import PixelCalibration
from vesta_training.tasks.views.uncalibrated import uncalibrated

TEMPERATURES = np.geomspace(0.4, 4, 24)


def uncalibrated_pixels(concept_count: int, temperature: float = 1.0) -> PixelCalibration:
    """Returns the calibration that changes no score of an image; with the default temperature, none of a pixel either."""
    return PixelCalibration(temperature, uncalibrated(concept_count))


def choose_temperature(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Returns the temperature with the least log loss of the pixels (Guo et al., arXiv 1706.04599).

    Args:
        batches: logits `(N, C + 1, h, w)` of held-out images and the true classes `(N, h, w)` of their pixels.
    """
    losses = np.zeros(len(TEMPERATURES))
    with torch.inference_mode():
        for logits, classes in batches:
            for index, temperature in enumerate(TEMPERATURES):
                losses[index] += float(
                    torch.nn.functional.cross_entropy(logits / temperature, classes, reduction="sum")
                )
    return float(TEMPERATURES[int(losses.argmin())])


def calibrate_presence(held_out: MapPredictions) -> tuple[Calibration, tuple[float, ...]]:
    """Returns the calibration of the presence of each concept, and the threshold with the best F1 of the images that contain it.

    Args:
        held_out: predicted with uncalibrated scores and thresholds of 0. A concept without predicted pixels has the score 0, which the
            calibration does not change.
    """
    truth = held_out.true_px > 0
    slopes, shifts, columns = [], [], []
    for scores, contains in zip(held_out.scores.T.astype(np.float64), truth.T, strict=True):
        has_pixels = scores > 0
        slope, shift = fit_platt(scores[has_pixels], contains[has_pixels])
        slopes.append(slope)
        shifts.append(shift)
        columns.append(np.where(has_pixels, platt_scores(scores, slope, shift), 0))
    calibrated: npt.NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return Calibration(tuple(slopes), tuple(shifts)), fit_thresholds(calibrated, truth)
