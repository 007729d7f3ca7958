"""Answers of the previous version of serving, which states a prediction in fields of their own, become observations too."""

from vesta_contracts.common.v1 import ConceptScore, Prediction
from vesta_contracts.serving.v1 import ImagePrediction
from vesta_pipelining.event_handlers import prediction_of


def test_an_answer_of_the_previous_version_is_read() -> None:
    van, car = ConceptScore(concept="van", score=0.2, predicted=True), ConceptScore(concept="car", score=0.8)
    answer = ImagePrediction(labels=[van], other_labels=[car], model_version="v", uncertain=True, margin=0.25)
    expected = Prediction(scores=[car, van], model_version="v", uncertain=True, margin=0.25)
    assert prediction_of(answer) == expected
    assert prediction_of(ImagePrediction(prediction=expected)) == expected
