"""The objects of a prediction, and the thresholds from which they count as predicted. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from vesta_common.messages import copy_of
from vesta_contracts.common.v1 import Annotation, ObjectScores, Prediction

from vesta_datasets.task_types.maps import masks_of_map
from vesta_datasets.task_types.multi_label import UNDECIDED, threshold_of


def thresholds_of(prediction: Prediction) -> Mapping[str, float]:
    """Returns the minimum score of a predicted object, by concept."""
    return {score.concept: threshold_of(score) for score in prediction.scores}


def predicted_objects(prediction: Prediction) -> list[Annotation]:
    """Returns the objects whose scores reach the threshold of their concept, best first; of a map, one for each concept."""
    if prediction.HasField("segmentation_map"):
        return masks_of_map(prediction.segmentation_map)
    thresholds = thresholds_of(prediction)
    found = [one for one in prediction.annotations if one.score >= thresholds.get(one.concept, UNDECIDED)]
    return sorted(found, key=lambda annotation: -annotation.score)


def object_scores(prediction: Prediction) -> list[tuple[str, float]]:
    """Returns the concept and score of each object. For a prediction whose objects are stored apart, and that was stored by a version that
    did not keep their scores, one object for each concept with a score: the best one.
    """
    if not prediction.HasField("stored"):
        return [(annotation.concept, annotation.score) for annotation in prediction.annotations]
    if prediction.stored.object_scores:
        return [(kept.concept, score) for kept in prediction.stored.object_scores for score in kept.scores]
    return [(score.concept, score.score) for score in prediction.scores if score.score > 0]


def with_object_scores(reduced: Prediction, annotations: Iterable[Annotation]) -> Prediction:
    """Returns a prediction whose objects are stored apart with the scores of these objects."""
    scores = defaultdict[str, list[float]](list)
    for annotation in annotations:
        scores[annotation.concept].append(annotation.score)
    kept = copy_of(reduced)
    kept.stored.object_scores.extend(
        ObjectScores(concept=concept, scores=sorted(values, reverse=True)) for concept, values in sorted(scores.items())
    )
    return kept


def split_scores(prediction: Prediction) -> tuple[list[float], list[float]]:
    """Returns the scores of the predicted objects, and those of the other objects."""
    thresholds = thresholds_of(prediction)
    predicted, others = list[float](), list[float]()
    for concept, score in object_scores(prediction):
        (predicted if score >= thresholds.get(concept, UNDECIDED) else others).append(score)
    return predicted, others
