"""Predictions for the labelled items of the test split: the evidence by which deployments limit the error rate of accepted predictions."""

from collections.abc import Sequence

import numpy as np
from vesta_common.media.predictions import margin_of_best, margin_to_thresholds
from vesta_common.risk_control import HELD_OUT_MAX, HeldOut, pack
from vesta_contracts.training.v1 import HeldOutPredictions

from vesta_training.example import Array, Split
from vesta_training.heads.linear_head import Head
from vesta_training.recipes.choices import Task
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
    evidence = held_out(head, stage.embed(test), [example.concepts for example in test])
    return pack(evidence, head.concepts, drawn_at_random=assignment.test_split_is_random)


def held_out(head: Head, embeddings: Array, labels: Sequence[Sequence[str]]) -> list[HeldOut]:
    """Returns the predictions of a head for items, compared with all labels of each item.

    Args:
        embeddings: `(N, D)`.
        labels: of the N items.
    """
    probabilities = head.probabilities(embeddings)
    predicted = (
        tuple(concept for concept, is_set in zip(head.concepts, row, strict=True) if is_set)
        for row in head.decide(probabilities)
    )
    return [
        HeldOut(float(margin), concepts, set(concepts) == set(true))
        for margin, concepts, true in zip(_margins(head, probabilities), predicted, labels, strict=True)
    ]


def _margins(head: Head, probabilities: Array) -> Array:
    if head.task is Task.CLASSIFICATION:
        return margin_of_best(probabilities)
    return margin_to_thresholds(probabilities, np.array(head.thresholds, np.float32))
