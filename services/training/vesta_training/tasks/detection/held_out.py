"""Predictions for the annotated items of the test split: the evidence by which deployments limit the error rate of accepted predictions."""

from collections.abc import Sequence

import numpy as np
from vesta_common.media.predictions import margin_to_thresholds
from vesta_common.media.same_objects import are_same
from vesta_common.risk_control import HELD_OUT_MAX, HeldOut, pack
from vesta_contracts.training.v1 import HeldOutPredictions

from vesta_training.metrics.objects import ObjectPredictions, object_ious, without_crowds
from vesta_training.tasks.detection.examples import BoxedExample


def held_out_predictions(
    predictions: ObjectPredictions, examples: Sequence[BoxedExample], *, drawn_at_random: bool
) -> HeldOutPredictions | None:
    """Compares predictions with all objects of each item, beside crowds; None if there are no items.

    Of many items, those with the lowest hashes are a random sample. A prediction is wrong if the item has an object of a concept that is
    not in the taxonomy.

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
        predicted, truth = without_crowds(found.selected(is_predicted), truth)
        is_same = are_same(object_ious(predicted, truth), predicted.numbers.tolist(), truth.numbers.tolist())
        is_correct = known.issuperset(examples[position].concepts) and is_same
        evidence.append(HeldOut(float(margin), concepts, is_correct))
    return pack(evidence, predictions.concepts, drawn_at_random=drawn_at_random) if evidence else None
