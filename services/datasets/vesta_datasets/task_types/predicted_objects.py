"""The objects of a prediction, and the thresholds from which they count as predicted. Pure."""

from collections.abc import Mapping

from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.task_types.multi_label import UNDECIDED, threshold_of


def thresholds_of(prediction: Prediction) -> Mapping[str, float]:
    """Returns the minimum score of a predicted object, by concept."""
    return {score.concept: threshold_of(score) for score in prediction.scores}


def predicted_objects(prediction: Prediction) -> list[Annotation]:
    """Returns the objects whose scores reach the threshold of their concept, best first."""
    thresholds = thresholds_of(prediction)
    found = [one for one in prediction.annotations if one.score >= thresholds.get(one.concept, UNDECIDED)]
    return sorted(found, key=lambda annotation: -annotation.score)


def object_scores(prediction: Prediction) -> list[tuple[str, float]]:
    """Returns the concept and score of each object. For a prediction whose objects are stored apart, one object for each concept with a
    score: the best one.
    """
    if prediction.HasField("stored"):
        return [(score.concept, score.score) for score in prediction.scores if score.score > 0]
    return [(annotation.concept, annotation.score) for annotation in prediction.annotations]


def split_scores(prediction: Prediction) -> tuple[list[float], list[float]]:
    """Returns the scores of the predicted objects, and those of the other objects."""
    thresholds = thresholds_of(prediction)
    predicted, others = list[float](), list[float]()
    for concept, score in object_scores(prediction):
        (predicted if score >= thresholds.get(concept, UNDECIDED) else others).append(score)
    return predicted, others
