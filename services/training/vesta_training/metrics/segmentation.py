"""Evaluates maps: mIoU and IoU by concept with bootstrap intervals over images, and which concepts images contain.

The IoU of a concept is that of its pixels in all images together, so that an image counts by its pixels of the concept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_common.intervals import wilson
from vesta_common.media.segmentation_maps import IOU_MIN
from vesta_contracts.training.v1 import Comparison, ConceptMetrics, Estimate, Metrics

from vesta_training.heads.calibration import log_loss
from vesta_training.metrics.draws import Floats, Numbers, check_comparable, compare, draw_items, estimate, once
from vesta_training.metrics.evaluation import calibration_error, reliability
from vesta_training.metrics.predictions import Labels, Predictions
from vesta_training.recipes.choices import EvaluationChoices, Task


@dataclass(frozen=True, slots=True)
class MapPredictions:
    """Predictions for `items`, by the numbers of pixels of each concept, `(N, C)`.

    Attributes:
        shared_px: truly of the concept and predicted as such.
        true_px, predicted_px: truly of the concept, and predicted as such.
        scores: `(N, C)`, the probability that the image contains each concept.
        margins: `(N,)`; see `Prediction.margin`.
    """

    items: tuple[str, ...]
    concepts: tuple[str, ...]
    shared_px: Numbers
    true_px: Numbers
    predicted_px: Numbers
    scores: npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32]

    @property
    def right(self) -> Labels:
        """`(N,)`, whether each predicted map is right; see `IOU_MIN`."""
        union = self.true_px + self.predicted_px - self.shared_px
        right: Labels = ((union == 0) | (self.shared_px >= IOU_MIN * union)).all(axis=1)
        return right

    def selected(self, chosen: Labels) -> "MapPredictions":
        """Returns the predictions for some of the items."""
        return MapPredictions(
            items=tuple(item for item, is_chosen in zip(self.items, chosen, strict=True) if is_chosen),
            concepts=self.concepts,
            shared_px=self.shared_px[chosen],
            true_px=self.true_px[chosen],
            predicted_px=self.predicted_px[chosen],
            scores=self.scores[chosen],
            margins=self.margins[chosen],
        )

    @property
    def true_item_counts(self) -> Numbers:
        """`(C,)`, the number of items with pixels of each concept."""
        counts: Numbers = (self.true_px > 0).sum(axis=0)
        return counts

    def by_concept(self, weights: Numbers) -> Floats:
        """Returns `(C, B)`, the IoU of each concept in each draw of items; NaN without pixels. See `DrawnMetric`."""
        shared = (weights @ self.shared_px).T.astype(np.float64)
        union = (weights @ (self.true_px + self.predicted_px - self.shared_px)).T.astype(np.float64)
        ious: Floats = np.divide(shared, union, out=np.full(shared.shape, np.nan), where=union > 0)
        return ious


def joined(parts: Sequence[MapPredictions]) -> MapPredictions:
    """Returns predictions of models with the same concepts for different items, one after the other."""
    return MapPredictions(
        items=tuple(item for part in parts for item in part.items),
        concepts=parts[0].concepts,
        shared_px=np.concatenate([part.shared_px for part in parts]),
        true_px=np.concatenate([part.true_px for part in parts]),
        predicted_px=np.concatenate([part.predicted_px for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        margins=np.concatenate([part.margins for part in parts]),
    )


def mean_iou(predictions: MapPredictions, choices: EvaluationChoices, *, seed: int) -> Estimate | None:
    """Returns the mIoU with its interval; None if no pixel has a concept, truly or as predicted."""
    return estimate(predictions, _drawn(predictions, choices, seed))


def measure_maps(predictions: MapPredictions, choices: EvaluationChoices, *, seed: int) -> Metrics:
    """Computes all metrics of the predictions. Precision, recall, F1 and calibration are of the concepts that images contain.

    Raises:
        ValueError: there are no items.
    """
    if not predictions.items:
        raise ValueError("metrics require at least one item")
    truth, predicted = predictions.true_px > 0, predictions.predicted_px > 0
    labels = Predictions(Task.MULTILABEL, predictions.items, predictions.concepts, truth, predictions.scores, predicted)
    bins = reliability(labels, choices.calibration_bins)
    metrics = Metrics(
        item_count=len(predictions.items),
        concepts=[
            _concept(concept, truth[:, index], predicted[:, index])
            for index, concept in enumerate(predictions.concepts)
        ],
        reliability=bins,
        calibration_error=calibration_error(bins),
        log_loss=log_loss(predictions.scores, truth, "sigmoid"),
    )
    for concept, iou in zip(metrics.concepts, predictions.by_concept(once(len(predictions.items)))[:, 0], strict=True):
        if not np.isnan(iou):
            concept.iou = float(iou)
    if (mean := mean_iou(predictions, choices, seed=seed)) is not None:
        metrics.mean_iou.CopyFrom(mean)
    return metrics


def compare_maps(
    challenger: MapPredictions, champion: MapPredictions, choices: EvaluationChoices, *, champion_name: str, seed: int
) -> Comparison:
    """Returns the differences in mIoU, see `draws.compare`, and the metrics of the champion.

    Raises:
        ValueError: the items or concepts differ.
    """
    check_comparable(challenger, champion)
    return compare(
        challenger,
        champion,
        _drawn(challenger, choices, seed),
        champion_name=champion_name,
        champion_metrics=measure_maps(champion, choices, seed=seed),
    )


def _concept(concept: str, truth: Labels, predicted: Labels) -> ConceptMetrics:
    positives, said, hits = int(truth.sum()), int(predicted.sum()), int((truth & predicted).sum())
    metrics = ConceptMetrics(concept=concept, item_count=positives)
    if said:
        metrics.precision.CopyFrom(wilson(hits, said))
    if positives:
        metrics.recall.CopyFrom(wilson(hits, positives))
    if said or positives:
        metrics.f1 = 2 * hits / (said + positives)
    return metrics


def _drawn(predictions: MapPredictions, choices: EvaluationChoices, seed: int) -> Numbers:
    return draw_items(len(predictions.items), 0, choices.bootstrap_draws, np.random.default_rng(seed))
