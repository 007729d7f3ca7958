"""What task types with objects have in common: which objects a model found, the scores of their concepts, and their uncertainty. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vesta_common.errors import FailedPrecondition
from vesta_common.media.boxes import box_ious
from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import OBJECTS
from vesta_common.media.predictions import margin_to_thresholds, share_to_certainty
from vesta_common.media.same_objects import are_same
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, ServingTask, Vocabulary, concept_scores

OVERLAP_MIN = 0.5
"""Predicted objects with at least this intersection over union may be one object."""
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Objects:
    """N objects in descending order of score.

    Attributes:
        rows: `(N,)`, their positions in the output of the model.
        boxes_xyxy: `(N, 4)` in pixels of the image, clipped to the area to predict.
        scores: `(N,)`.
        numbers: `(N,)`, of their concepts.
    """

    rows: Indices
    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float32]
    numbers: Indices

    def selected(self, places: Indices) -> "Objects":
        """Returns the objects at these places."""
        return Objects(self.rows[places], self.boxes_xyxy[places], self.scores[places], self.numbers[places])


class ObjectServingTask(ServingTask):
    """A task type whose predictions have objects with boxes."""

    compares_views = True

    def disagreement(
        self,
        outputs: ImageOutputs,
        mirrored: ImageOutputs,
        vocabulary: Vocabulary,
        policy: Policy,
        placement: Placement,
        width_px: int,
    ) -> str:
        """By the boxes of the predicted objects, which must be the same in the mirror image."""
        own = _predicted(found_objects(outputs[OBJECTS], vocabulary, placement), vocabulary, policy)
        other = found_objects(_mirrored_back(mirrored[OBJECTS], width_px), vocabulary, placement)
        return _difference(own, _predicted(other, vocabulary, policy), vocabulary)


def prediction_of(
    found: Objects,
    shapes: Sequence[Annotation],
    overlaps: Callable[[Indices], NDArray[np.float64]],
    vocabulary: Vocabulary,
    policy: Policy,
) -> Prediction:
    """Returns the prediction of objects. Those that reach the threshold of their concept are predicted. The score of a concept is that of
    its best object, or 0.

    Args:
        shapes: annotations with the shapes of the objects, in their order; concepts and scores are added.
        overlaps: returns the intersections over unions of the objects at K places, `(K, K)`.
    """
    thresholds = np.array(vocabulary.applied_thresholds(policy), np.float32)
    predicted = found.scores >= thresholds[found.numbers]
    margin = float(margin_to_thresholds(found.scores[None], thresholds[found.numbers])[0])
    best = np.zeros(len(vocabulary.concepts), np.float32)
    np.maximum.at(best, found.numbers, found.scores)
    shown = np.isin(np.arange(len(best)), found.numbers[predicted])
    concepts = [vocabulary.concepts[index] for index in np.flatnonzero(shown)]
    reason = policy.doubt(margin, concepts, _closest(found, thresholds, vocabulary))
    reason = reason or _crowding(found, np.flatnonzero(predicted), overlaps, vocabulary)
    for shape, number, score in zip(shapes, found.numbers, found.scores.tolist(), strict=True):
        shape.concept, shape.score = vocabulary.concepts[number], score
    return Prediction(
        model_version=vocabulary.model_version,
        scores=concept_scores(best, shown, thresholds, vocabulary),
        uncertain=bool(reason),
        uncertain_reason=reason,
        margin=margin,
        annotations=shapes,
    )


def found_objects(output: NDArray[Any], vocabulary: Vocabulary, placement: Placement) -> Objects:
    """Returns the objects whose boxes are visible in the area to predict.

    Args:
        output: `(K, 6)`, see `vesta.training.v1.ModelOutput`.

    Raises:
        FailedPrecondition: MODEL_OUTPUT_INVALID, the model returns concepts that it does not have.
    """
    boxes = placement.on_image(output[:, :4])
    scores, numbers = output[:, 4], output[:, 5].astype(np.intp)
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1) & (scores > 0))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    if kept.size and not 0 <= numbers[kept].min() <= numbers[kept].max() < len(vocabulary.concepts):
        raise FailedPrecondition(
            f"{vocabulary.model_version} returns objects with numbers of concepts that it does not have; register a model "
            f"for its {len(vocabulary.concepts)} concepts",
            reason="MODEL_OUTPUT_INVALID",
        )
    return Objects(kept, boxes[kept], scores[kept], numbers[kept])


def _closest(found: Objects, thresholds: NDArray[np.float32], vocabulary: Vocabulary) -> str:
    """Returns which object makes the margin small; empty without objects."""
    if not found.scores.size:
        return ""
    closest = int(share_to_certainty(found.scores, thresholds[found.numbers]).argmin())
    name, threshold = vocabulary.concepts[found.numbers[closest]], thresholds[found.numbers[closest]]
    return f"the score of a {name} is {found.scores[closest]:.2f}, close to its threshold {threshold:.2f}"


def _crowding(
    found: Objects, predicted: Indices, overlaps: Callable[[Indices], NDArray[np.float64]], vocabulary: Vocabulary
) -> str:
    """Returns how the predicted objects are crowded; empty if they are not."""
    if vocabulary.objects_max and len(found.scores) >= vocabulary.objects_max:
        return f"there are {len(found.scores)} objects, as many as the model can return"
    shares = np.triu(overlaps(predicted), 1)
    if shares.size and shares.max() >= OVERLAP_MIN:
        numbers = found.numbers[predicted][list(np.unravel_index(shares.argmax(), shares.shape))]
        first, second = (vocabulary.concepts[number] for number in numbers)
        return f"a {first} and a {second} overlap by {shares.max():.0%}, so they may be one object"
    return ""


def _predicted(found: Objects, vocabulary: Vocabulary, policy: Policy) -> Objects:
    thresholds = np.array(vocabulary.applied_thresholds(policy), np.float32)
    return found.selected(np.flatnonzero(found.scores >= thresholds[found.numbers]))


def _mirrored_back(output: NDArray[Any], width_px: int) -> NDArray[Any]:
    """Returns the objects of a mirrored input, `(K, 6)`, in the pixels of the input."""
    rows = output.copy()
    rows[:, 0], rows[:, 2] = width_px - output[:, 2], width_px - output[:, 0]
    return rows


def _difference(own: Objects, other: Objects, vocabulary: Vocabulary) -> str:
    """Returns how the objects of the mirror image differ; empty if both are the same."""
    for number in sorted({*own.numbers.tolist(), *other.numbers.tolist()}):
        counts = int((own.numbers == number).sum()), int((other.numbers == number).sum())
        if counts[0] != counts[1]:
            return f"two views disagree: {counts[0]} {vocabulary.concepts[number]} in the image, {counts[1]} in its mirror image"
    if not are_same(box_ious(own.boxes_xyxy, other.boxes_xyxy), own.numbers.tolist(), other.numbers.tolist()):
        return "two views disagree: an object lies elsewhere in the mirror image"
    return ""
