"""Chunks of events: limited by items, limited by bytes, and one item that is too large by itself."""

import pytest
from vesta_contracts.common.v1 import ConceptScore, Prediction
from vesta_contracts.serving.v1 import ItemPrediction, PredictionCreated
from vesta_serving.scoring.event_chunks import cut

BYTES_MAX = 1_000_000


def a_prediction(number: int = 0, concept_count: int = 3, id_length: int = 8, dimension: int = 4) -> ItemPrediction:
    scores = [ConceptScore(concept=f"{index:0{id_length}d}", score=1.0 / (index + 2)) for index in range(concept_count)]
    return ItemPrediction(
        item=f"projects/acme/datasets/vans/items/{number:026d}",
        prediction=Prediction(scores=scores, uncertain=True, margin=0.25),
        embedding=bytes(4 * dimension),
    )


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (64, [64]), (65, [64, 1]), (130, [64, 64, 2])], ids=str
)
def test_small_predictions_are_divided_by_their_number(count: int, sizes: list[int]) -> None:
    assert [len(part) for part in cut([a_prediction()] * count, 64, BYTES_MAX)] == sizes


@pytest.mark.parametrize(("concept_count", "id_length"), [(1_000, 8), (1_000, 128), (10_000, 20)])
def test_predictions_over_many_concepts_are_divided_by_their_size_and_none_is_lost(
    concept_count: int, id_length: int
) -> None:
    asked = [a_prediction(number, concept_count, id_length, dimension=1_280) for number in range(64)]
    parts = cut(asked, 64, BYTES_MAX)

    assert [entry for part in parts for entry in part] == asked
    assert all(PredictionCreated(predictions=part).ByteSize() <= BYTES_MAX for part in parts)


def test_an_item_that_exceeds_the_size_limit_keeps_its_best_scores_and_its_uncertainty() -> None:
    large = a_prediction(concept_count=10_000, id_length=128, dimension=1_280)
    ((kept,),) = cut([large], 64, BYTES_MAX)

    said = kept.prediction.scores
    assert list(said) == list(large.prediction.scores[: len(said)])
    assert (kept.prediction.uncertain, kept.prediction.margin, kept.embedding) == (True, 0.25, large.embedding)
    assert 0.98 * BYTES_MAX < PredictionCreated(predictions=[kept]).ByteSize() <= BYTES_MAX


def test_predicted_concepts_are_kept_before_better_scores() -> None:
    large = a_prediction(concept_count=10_000, id_length=128)
    large.prediction.scores[9_998].predicted = True  # its threshold is very low
    ((kept,),) = cut([large], 64, BYTES_MAX)

    said = [found.concept for found in kept.prediction.scores]
    assert (said[0], said[-1]) == (large.prediction.scores[0].concept, large.prediction.scores[9_998].concept)
    assert [found.score for found in kept.prediction.scores] == sorted(
        (f.score for f in kept.prediction.scores), reverse=True
    )
    assert len(said) < 10_000
