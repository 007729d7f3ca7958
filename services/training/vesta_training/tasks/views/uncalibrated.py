"""The scores and thresholds of a model that is learned from too few images to hold some out."""

from vesta_training.models.graph_layers import Calibration

NOT_CALIBRATED = "Scores are not calibrated and thresholds are 0.5: {} labelled images are too few to hold some out."
"""For the model card."""
UNCALIBRATED_THRESHOLD = 0.5


def uncalibrated(concept_count: int) -> Calibration:
    """Returns the calibration that changes no score."""
    return Calibration(slopes=(1.0,) * concept_count, shifts=(0.0,) * concept_count)


def uncalibrated_thresholds(concept_count: int) -> tuple[float, ...]:
    """Returns a threshold of even odds for each concept."""
    return (UNCALIBRATED_THRESHOLD,) * concept_count
