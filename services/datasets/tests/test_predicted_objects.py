"""Predictions with objects: how they select items, and what annotators see of them."""

import numpy as np
import pytest
from datasets_builders import Datasets, a_medium
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_contracts.common.v1 import Annotation, ConceptScore, PixelBox, Prediction, TaskType
from vesta_contracts.datasets.v1 import (
    BatchGetItemsRequest,
    GetItemRequest,
    SelectionStrategy,
    SelectItemsRequest,
    Split,
)
from vesta_datasets.selection import Reason, pool_builder
from vesta_datasets.task_types.detection import Detection
from vesta_datasets.task_types.object_uncertainty import difficulties

DETECTION = Detection()
CONCEPTS = ("van", "car")


def found(*objects: tuple[str, float], van: float = 0.5, car: float = 0.5) -> Prediction:
    """Returns a prediction of objects, given as concept and score; of each concept with its threshold."""
    thresholds = {"van": van, "car": car}
    best = {concept: max([score for one, score in objects if one == concept], default=0.0) for concept in thresholds}
    return Prediction(
        model_version="m",
        scores=[
            ConceptScore(
                concept=concept, score=best[concept], threshold=threshold, predicted=best[concept] >= threshold
            )
            for concept, threshold in thresholds.items()
        ],
        annotations=[
            Annotation(concept=concept, score=score, box=PixelBox(x_min_px=index, x_max_px=index + 1, y_max_px=1))
            for index, (concept, score) in enumerate(objects)
        ],
    )


def margins(*predictions: Prediction | None) -> list[float]:
    return DETECTION.uncertainty(predictions, CONCEPTS).margin.tolist()


def test_an_image_is_uncertain_by_the_doubts_about_its_objects() -> None:
    certain, empty, doubtful, unknown = margins(
        found(("van", 1.0), ("car", 1.0)), found(), found(("van", 0.5), ("car", 1.0)), None
    )
    assert (certain, empty, unknown) == (0, 0, 1)
    assert 0.3 < doubtful < 1


def test_doubt_is_measured_from_the_threshold_of_the_concept() -> None:
    below, at, above = margins(*(found(("van", score), van=0.8) for score in (0.5, 0.8, 0.95)))
    assert at > below
    assert at > above


def test_doubts_count_by_their_share_of_all_objects() -> None:
    doubtful, certain = ("van", 0.6), ("van", 1.0)
    images = ([doubtful], [doubtful] * 4, [doubtful] * 2 + [certain] * 2, [doubtful] + [certain] * 3)
    totals = -np.log1p(-np.array(margins(*(found(*objects) for objects in images))))
    assert totals / totals[0] == pytest.approx([1, 1, 0.5, 0.25], rel=1e-3)


def test_many_objects_far_below_the_threshold_do_not_matter() -> None:
    alone, with_noise = margins(found(("van", 0.6)), found(("van", 0.6), *[("van", 0.05)] * 100))
    assert alone == with_noise


def test_objects_of_concepts_that_the_model_confuses_count_more() -> None:
    pool = [*[found(("van", 0.55))] * 50, *[found(("car", 0.98))] * 50]
    van, car = margins(*pool, found(("van", 0.5)), found(("car", 0.5)))[-2:]
    assert van > car


def gains(*predictions: Prediction | None, held: int = 0) -> list[float]:
    """Returns the gains of items, of which the last ones are labelled or in a task."""
    count = len(predictions)
    found_gains = DETECTION.uncertainty(predictions, CONCEPTS, np.arange(count) >= count - held).gain
    assert found_gains is not None
    return found_gains.tolist()


def test_objects_of_a_concept_with_few_labels_gain_most() -> None:
    labelled = [found(*[("van", 0.9)] * 9, ("car", 0.9))] * 10
    rare, common = gains(found(("car", 0.9)), found(("van", 0.9)), *labelled, held=10)[:2]
    assert (rare, common) == (1, pytest.approx(1 / 8.2))  # (9 x 0.9 x 10 + 1) / (0.9 x 10 + 1) labelled objects


def test_labelled_objects_are_those_that_people_accepted_whatever_the_model_finds() -> None:
    # Two vans and four cars are accepted in the first image, of which the model finds none; the second is in a task, with two cars.
    items = [found(("van", 0.9)), found(("car", 0.9)), found(), found(("car", 0.9), ("car", 0.9))]
    held = np.array([False, False, True, True])
    answers = [None, None, ["van", "car", "car", "van", "bus", "car", "car"], None]
    gain = DETECTION.uncertainty(items, CONCEPTS, held, answers).gain
    assert gain is not None
    assert gain[:2].tolist() == [1, pytest.approx((2 + 1) / (4 + 1.8 + 1))]


def test_an_object_gains_less_among_others_that_must_be_drawn_too() -> None:
    labelled = [found(*[("van", 0.9)] * 9, ("car", 0.9))] * 10
    crowded = found(("car", 0.9), *[("van", 0.9)] * 9)
    alone, among_others = gains(found(("car", 0.9)), crowded, *labelled, held=10)[:2]
    assert alone > 2 * among_others > 0


def test_the_gain_of_a_pool_without_labels_is_by_difficulty_and_count_alone() -> None:
    badly, well, none, unknown = gains(found(("van", 0.6)), found(("car", 1.0)), found(), None)
    assert none == 0
    assert unknown == pytest.approx((badly + well) / 3)
    assert gains(found(), None) == [0, 0]
    assert gains(None) == [0]


@pytest.mark.parametrize(
    ("scores", "concept", "expected"),
    [
        ([], [], [1, 1]),
        ([1.0, 1.0], [0, 1], [1, 1]),
        # Ten objects of average difficulty (0.3) are added to each: (0.5 + 3) / 11 / 0.3, and (0.1 + 3) / 11 / 0.3.
        ([0.5, 0.9], [0, 1], [3.5 / 3.3, 3.1 / 3.3]),
    ],
)
def test_the_difficulty_of_a_concept_is_relative_to_all(
    scores: list[float], concept: list[int], expected: list[float]
) -> None:
    values = np.array(scores, np.float32)
    found_difficulties = difficulties(np.array(concept, np.intp), values, values >= 0.5, 2)
    assert found_difficulties == pytest.approx(expected, rel=1e-5)


objects = st.lists(st.tuples(st.sampled_from(("van", "car", "other")), st.floats(0, 1, width=32)), max_size=8)


@settings(deadline=None)
@given(st.lists(st.none() | objects.map(lambda drawn: found(*drawn)), max_size=6), st.integers(0, 6))
def test_uncertainties_are_shares(predictions: list[Prediction | None], held: int) -> None:
    uncertainty = DETECTION.uncertainty(predictions, CONCEPTS, np.arange(len(predictions)) < held)
    for values in (uncertainty.margin, uncertainty.entropy, uncertainty.worth):
        assert values.shape == (len(predictions),)
        assert ((values >= 0) & (values <= 1)).all()


def test_predicted_objects_are_suggested_best_first() -> None:
    prediction = found(("van", 0.5), ("car", 0.7), ("van", 0.9), ("van", 0.2), car=0.8)
    suggested = DETECTION.pre_annotations(prediction)
    assert [(one.concept, round(one.score, 3)) for one in suggested] == [("van", 0.9), ("van", 0.5)]
    assert all(one.HasField("box") for one in suggested)


def test_the_cost_of_an_image_grows_with_the_boxes_that_must_be_drawn() -> None:
    assert DETECTION.annotation_seconds(found()) == 2
    assert DETECTION.annotation_seconds(found(("van", 1.0))) == pytest.approx(2 + 1.6)
    prediction = found(("van", 0.75), ("car", 0.25))
    assert DETECTION.annotation_seconds(prediction) == pytest.approx(2 + 1.6 + 7 * 0.25 + 7 * 0.25)


def a_pool(datasets: Datasets, predictions: list[Prediction]) -> tuple[str, list[str]]:
    """Returns a detection dataset with a training item for each prediction."""
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_DETECTION)
    media = map(a_medium, range(len(predictions)))
    names = [one.name for one in datasets.add(dataset, *media, split=Split.SPLIT_TRAIN)]
    datasets.predicts(dataset, dict(zip(names, predictions, strict=True)))
    return dataset, names


def test_items_are_selected_by_their_objects_with_suggestions_and_their_cost(datasets: Datasets) -> None:
    predictions = [found(("van", 0.99)), found(("van", 0.5), ("car", 0.6)), found(("car", 0.8))]
    dataset, names = a_pool(datasets, predictions)
    request = SelectItemsRequest(parent=dataset, count=3, strategy=SelectionStrategy.SELECTION_STRATEGY_MARGIN)
    chosen = datasets.items.SelectItems(request).items
    assert [one.item for one in chosen] == [names[1], names[2], names[0]]
    assert [one.concept for one in chosen[0].pre_annotations] == ["car", "van"]
    assert chosen[0].annotation_seconds > chosen[2].annotation_seconds > 2
    assert datasets.listed(dataset, "predicted = car") == names[1:]


@pytest.mark.parametrize(
    ("task_type", "reason"),
    [(TaskType.TASK_TYPE_DETECTION, Reason.RANDOM), (TaskType.TASK_TYPE_CLASSIFICATION, Reason.TYPICAL)],
)
def test_the_first_items_are_random_where_annotators_draw_objects(
    datasets: Datasets, task_type: TaskType.ValueType, reason: Reason
) -> None:
    dataset = datasets.a_dataset(task_type=task_type)
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(6)), split=Split.SPLIT_TRAIN)]
    datasets.predicts(dataset, dict.fromkeys(names, Prediction(model_version="m")))
    chosen = datasets.items.SelectItems(SelectItemsRequest(parent=dataset, count=3)).items
    assert [one.reason for one in chosen] == [str(reason)] * 3


def test_the_default_selects_rare_objects_among_few_others(datasets: Datasets) -> None:
    crowd = [("van", 0.9)] * 12
    predictions = [found(*crowd), found(("car", 0.8), ("van", 0.9)), found(("car", 0.8), *crowd), found(*crowd)]
    dataset, names = a_pool(datasets, predictions)
    request = SelectItemsRequest(parent=dataset, count=1, excluded=[names[3]])
    (chosen,) = datasets.items.SelectItems(request).items
    assert (chosen.item, chosen.reason) == (names[1], str(Reason.INSTRUCTIVE_AND_TYPICAL))


def test_objects_that_are_stored_apart_are_read_for_suggestions(datasets: Datasets) -> None:
    whole = found(*[("van", 0.9)] * 1000)
    dataset, (name,) = a_pool(datasets, [found()])
    reduced = datasets.store.items.reduced(name, whole)
    assert reduced.stored.annotation_count == 1000
    datasets.predicts(dataset, {name: reduced})
    (chosen,) = datasets.items.SelectItems(SelectItemsRequest(parent=dataset, count=1)).items
    assert list(chosen.pre_annotations) == list(whole.annotations)
    assert datasets.items.GetItem(GetItemRequest(name=name)).prediction == whole


def test_objects_that_are_stored_apart_count_as_the_others(datasets: Datasets) -> None:
    whole = found(*[("van", 0.9 - number / 2000) for number in range(1000)], *[("car", 0.45)] * 3)
    reduced = datasets.store.items.reduced("projects/p/datasets/d/items/i", whole)
    dataset, (apart, within) = a_pool(datasets, [reduced, found(("car", 0.8))])
    assert datasets.listed(dataset, "predicted_count.van > 300 AND predicted_area_min = 1") == [apart]
    assert datasets.listed(dataset, f"predicted_count = {sum(one.score >= 0.5 for one in whole.annotations)}") == [
        apart
    ]
    assert datasets.listed(dataset, "predicted_count.car >= 1") == [within]
    kept = datasets.items.BatchGetItems(BatchGetItemsRequest(parent=dataset, names=[apart])).items[0].prediction
    assert kept.stored.object_key == reduced.stored.object_key
    assert margins(kept) == pytest.approx(margins(whole))
    assert DETECTION.annotation_seconds(kept) == pytest.approx(DETECTION.annotation_seconds(whole))


def test_a_prediction_whose_objects_were_deleted_with_their_dataset_is_still_stored(datasets: Datasets) -> None:
    dataset, (name,) = a_pool(datasets, [found()])
    lost = found(("van", 0.9))
    lost.ClearField("annotations")
    lost.stored.object_key = f"annotations/p/d/{'0' * 64}"
    datasets.predicts(dataset, {name: lost})
    assert datasets.listed(dataset, "predicted = van") == [name]
    assert datasets.listed(dataset, "predicted_count >= 1") == []


def test_a_response_stays_small_enough_for_a_message(datasets: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_builder, "SUGGESTIONS_BYTES_MAX", 100)
    dataset, _ = a_pool(datasets, [found(*[("van", 0.9)] * 10)] * 3)
    chosen = datasets.items.SelectItems(SelectItemsRequest(parent=dataset, count=3)).items
    assert [bool(one.pre_annotations) for one in chosen] == [True, False, False]
    assert all(one.annotation_seconds > 2 for one in chosen)
