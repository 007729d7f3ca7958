"""Predictions for the labelled items of the test split: the evidence by which deployments limit the error rate of accepted predictions."""

import numpy as np
from vesta_common.media.predictions import margin_of_best, margin_to_thresholds
from vesta_common.risk_control import HELD_OUT_MAX, HeldOut, pack
from vesta_contracts.training.v1 import HeldOutPredictions

from vesta_training.example import Array, Split
from vesta_training.heads.linear_head import Head
from vesta_training.recipes.recipe import Task
from vesta_training.tasks.assignment import Assignment
from vesta_training.tasks.classification.stage import Stage


def held_out_predictions(assignment: Assignment, stage: Stage, head: Head) -> HeldOutPredictions | None:
    """Predicts the labelled items of the test split; None if there are none.

    Items that are not examples count too, because a deployed model predicts such images like all others: a prediction is wrong if the
    item has none of the concepts, several labels and a model for one, or a label that is not in the taxonomy. Of many items, those with
    the lowest hashes are a random sample.
    """
    test = sorted(
        (example for example in assignment.examples if example.split is Split.TEST),
        key=lambda example: example.image_sha256,
    )[:HELD_OUT_MAX]
    if not test:
        return None
    probabilities = head.probabilities(stage.embed(test))
    predicted = [
        tuple(concept for concept, is_set in zip(head.concepts, row, strict=True) if is_set)
        for row in head.decide(probabilities)
    ]
    evidence = [
        HeldOut(float(margin), concepts, set(concepts) == set(example.concepts))
        for margin, concepts, example in zip(_margins(head, probabilities), predicted, test, strict=True)
    ]
    return pack(evidence, head.concepts, drawn_at_random=assignment.test_split_is_random)


def _margins(head: Head, probabilities: Array) -> Array:
    if head.task is Task.CLASSIFICATION:
        return margin_of_best(probabilities)
    return margin_to_thresholds(probabilities, np.array(head.thresholds, np.float32))
