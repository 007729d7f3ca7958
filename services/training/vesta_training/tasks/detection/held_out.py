"""Predictions for the annotated items of the test split: the evidence by which deployments limit the error rate of accepted predictions."""

from collections.abc import Sequence

import numpy as np
from vesta_common.media.boxes import box_ious
from vesta_common.media.predictions import margin_to_thresholds
from vesta_common.risk_control import HELD_OUT_MAX, HeldOut, pack
from vesta_contracts.training.v1 import HeldOutPredictions

from vesta_training.metrics.objects import IOUS, ObjectPredictions, Objects
from vesta_training.tasks.detection.examples import BoxedExample


def held_out_predictions(
    predictions: ObjectPredictions, examples: Sequence[BoxedExample], *, drawn_at_random: bool
) -> HeldOutPredictions | None:
    """Compares predictions with all boxes of each item; None if there are no items.

    Of many items, those with the lowest hashes are a random sample. A prediction is wrong if the item has a box of a concept that is not
    in the taxonomy.

    Args:
        examples: those of the predictions, in their order.
    """
    order = sorted(range(len(examples)), key=lambda position: examples[position].image_sha256)[:HELD_OUT_MAX]
    known = set(predictions.concepts)
    thresholds = np.array(predictions.thresholds)
    evidence = []
    for position in order:
        found, truth = predictions.found[position], predictions.truth[position]
        own = thresholds[found.numbers]
        is_predicted = found.scores >= own
        margin = margin_to_thresholds(found.scores[None].astype(np.float32), own.astype(np.float32))[0]
        concepts = tuple(predictions.concepts[number] for number in np.unique(found.numbers[is_predicted]))
        predicted = Objects(found.boxes_xyxy_px[is_predicted], found.numbers[is_predicted], found.scores[is_predicted])
        is_correct = known.issuperset(examples[position].concepts) and are_same(predicted, truth)
        evidence.append(HeldOut(float(margin), concepts, is_correct))
    return pack(evidence, predictions.concepts, drawn_at_random=drawn_at_random) if evidence else None


def are_same(predicted: Objects, truth: Objects) -> bool:
    """Whether each predicted object is a true one of its concept, with an IoU of at least 0.5, and none is missing."""
    if len(predicted.scores) != len(truth.scores):
        return False
    overlap = box_ious(predicted.boxes_xyxy_px, truth.boxes_xyxy_px)
    overlap[predicted.numbers[:, None] != truth.numbers[None]] = 0
    free = np.ones(len(truth.scores), dtype=np.bool_)
    for row in overlap[np.argsort(-predicted.scores, kind="stable")]:
        possible = np.where(free, row, 0)
        best = int(possible.argmax())
        if possible[best] < IOUS[0]:
            return False
        free[best] = False
    return True
