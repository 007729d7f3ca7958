"""Predictions for the annotated items of the test split: the evidence by which deployments limit the error rate of accepted predictions."""

from collections.abc import Sequence

from vesta_common.risk_control import HELD_OUT_MAX, HeldOut, pack
from vesta_contracts.training.v1 import HeldOutPredictions

from vesta_training.metrics.segmentation import MapPredictions
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample


def held_out_predictions(
    predictions: MapPredictions, examples: Sequence[MaskedExample], *, drawn_at_random: bool
) -> HeldOutPredictions | None:
    """Compares predictions with the map of each item; None if there are no items.

    A prediction is right if the pixels of each concept overlap the true ones with an IoU of at least 0.5, and no concept is missing or
    superfluous. It is wrong if the item has pixels of a concept that is not in the taxonomy. Of many items, those with the lowest hashes
    are a random sample.

    Args:
        examples: those of the predictions, in their order.
    """
    order = sorted(range(len(examples)), key=lambda position: examples[position].image_sha256)[:HELD_OUT_MAX]
    known, right, predicted = set(predictions.concepts), predictions.right, predictions.predicted_px > 0
    evidence = [
        HeldOut(
            margin=float(predictions.margins[position]),
            concepts=tuple(
                concept for concept, yes in zip(predictions.concepts, predicted[position], strict=True) if yes
            ),
            is_correct=bool(right[position]) and known.issuperset(examples[position].concepts),
        )
        for position in order
    ]
    return pack(evidence, predictions.concepts, drawn_at_random=drawn_at_random) if evidence else None
