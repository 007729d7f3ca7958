"""The uncertainty of predicted objects, and what their annotation is expected to teach. Pure.

    gain = sum of difficulty / labelled objects of the concept x score over the objects / seconds to draw them all

The mean precision over concepts is to rise per second. If the missing precision of a concept falls as a power of the number of its labelled
objects, one more of them gains in proportion to what is missing, divided by that number. The former is estimated by the difficulty of the
concept; the latter are the accepted objects, and those that the model finds in images that are in a task. The score is the probability that
the object exists. So images are preferred with objects of rare and badly learned concepts among few others. The default strategy uses the
gain.

    uncertainty = 1 - exp(-sum of difficulty x doubt over the objects / number of objects)

The doubt about an object is 1 minus the distance of its score from the threshold, as a share of the largest possible distance. The sum is
damped by the number of objects, because an annotator draws them all: images are preferred whose objects are mostly doubtful. The difficulty
of a concept is the share of its predicted objects that are expected to be wrong, relative to the mean of all concepts, so that labels go to
the concepts that the model confuses (as in Yang et al., "Plug and Play Active Learning for Object Detection", CVPR 2024, which measures it
during training).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.annotation_cost import LOOK_SECONDS
from vesta_common.media.predictions import Floats
from vesta_contracts.common.v1 import Prediction

from vesta_datasets.task_types.image_labels import to_unit
from vesta_datasets.task_types.multi_label import UNDECIDED, binary_entropy, centred_on_thresholds
from vesta_datasets.task_types.predicted_objects import object_scores, thresholds_of
from vesta_datasets.task_types.uncertainty import Answers, Mask, Uncertainty

DOUBT_MIN: Final = 0.25
"""Objects with a lower score than this share of the threshold do not count: most detectors find many such in every image."""
DIFFICULTY_MAX: Final = 2.0
PRIOR_OBJECTS: Final = 10
"""How many objects of average difficulty are added to those of a concept, so that a few do not decide."""
PRIOR_LABELS: Final = 1
"""How many objects are added to the labelled ones of a concept, so that the first of a concept have a finite gain."""


class _Objects(NamedTuple):
    """M objects of all items: `(M,)` each."""

    item: NDArray[np.intp]
    concept: NDArray[np.intp]
    score: Floats
    threshold: Floats


def object_uncertainty(
    predictions: Sequence[Prediction | None],
    concepts: Sequence[str],
    held: Mask | None,
    answers: Answers,
    draw_seconds: float,
) -> Uncertainty:
    """Returns the uncertainty of N items. An item without a prediction has 1 and the mean gain, an item without objects 0.

    Args:
        concepts: objects of others are ignored.
        held: `(N,)`, whether the item is labelled, or in a task already; none is if None.
        answers: the concepts of the accepted objects of each item; None for an item that is not labelled, or has too many; what the
            model finds counts then. Empty if unknown.
        draw_seconds: for one object.
    """
    objects = _objects_of(predictions, concepts)
    centred = centred_on_thresholds(objects.score, objects.threshold)
    weights = difficulties(objects.concept, objects.score, objects.score >= objects.threshold, len(concepts))
    weight = weights[objects.concept]
    unknown = np.array([prediction is None for prediction in predictions], np.bool_)
    count = np.bincount(objects.item, minlength=len(predictions))

    def of_items(doubts: NDArray[np.floating]) -> Floats:
        total = np.bincount(objects.item, weight * doubts, len(predictions))
        return to_unit(np.where(unknown, 1.0, -np.expm1(-total / np.maximum(count, 1))))

    is_held = np.zeros(len(predictions), np.bool_) if held is None else held
    return Uncertainty(
        margin=of_items(1.0 - 2.0 * np.abs(centred - UNDECIDED)),
        entropy=of_items(binary_entropy(centred)),
        gain=_gains(
            objects, weights, unknown, is_held, _labelled_counts(objects, is_held, answers, concepts), draw_seconds
        ),
    )


def _labelled_counts(objects: _Objects, held: Mask, answers: Answers, concepts: Sequence[str]) -> NDArray[np.float64]:
    """Returns how many objects of each concept are labelled, or are expected to be in images that are in a task."""
    number = {concept: index for index, concept in enumerate(concepts)}
    accepted = [number[concept] for answer in answers for concept in answer or () if concept in number]
    expected = held.copy()
    expected[[index for index, answer in enumerate(answers) if answer is not None]] = False
    found = expected[objects.item]
    counts = np.bincount(objects.concept[found], objects.score[found], len(concepts)).astype(np.float64)
    np.add.at(counts, np.array(accepted, np.intp), 1)
    return counts


def _gains(
    objects: _Objects,
    difficulty: NDArray[np.float64],
    unknown: Mask,
    held: Mask,
    labelled: NDArray[np.float64],
    draw_seconds: float,
) -> Floats:
    """Returns the `(N,)` gains, as shares of the largest one of the items that are not held."""
    value = (difficulty / (labelled + PRIOR_LABELS))[objects.concept] * objects.score
    expected_count = np.bincount(objects.item, objects.score, len(held))
    gain = np.bincount(objects.item, value, len(held)) / (LOOK_SECONDS + draw_seconds * expected_count)
    if not unknown.all():
        gain[unknown] = gain[~unknown].mean()
    largest = float(gain[~held].max(initial=0.0))
    return to_unit(gain / largest) if largest > 0.0 else np.zeros(len(held), np.float32)


def difficulties(
    concept: NDArray[np.intp], score: Floats, predicted: NDArray[np.bool_], concept_count: int
) -> NDArray[np.float64]:
    """Returns the difficulty of each concept, at most `DIFFICULTY_MAX`; 1 is average.

    Args:
        concept: `(M,)` concept numbers of objects.
        score: `(M,)` probabilities that the objects are right.
        predicted: `(M,)`, whether the scores reach their thresholds. Other objects do not count.
    """
    doubts, found = 1.0 - score[predicted].astype(np.float64), concept[predicted]
    mean = float(doubts.mean()) if doubts.size else 0.0
    if mean <= 0.0:
        return np.ones(concept_count)
    total = np.bincount(found, doubts, concept_count) + PRIOR_OBJECTS * mean
    return np.minimum(total / (np.bincount(found, minlength=concept_count) + PRIOR_OBJECTS) / mean, DIFFICULTY_MAX)


def _objects_of(predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> _Objects:
    number = {concept: index for index, concept in enumerate(concepts)}
    rows = list[tuple[int, int, float, float]]()
    for index, prediction in enumerate(predictions):
        if prediction is None:
            continue
        thresholds = thresholds_of(prediction)
        for concept, score in object_scores(prediction):
            threshold = thresholds.get(concept, UNDECIDED)
            if concept in number and score >= DOUBT_MIN * threshold:
                rows.append((index, number[concept], score, threshold))
    item, concept_number, scores, threshold_values = zip(*rows, strict=True) if rows else ((), (), (), ())
    return _Objects(
        np.array(item, np.intp),
        np.array(concept_number, np.intp),
        np.array(scores, np.float32),
        np.array(threshold_values, np.float32),
    )
