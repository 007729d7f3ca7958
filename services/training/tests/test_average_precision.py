"""Average precision equals that of pycocotools, and its bootstrap draws equal it when each item is drawn once."""

import numpy as np
import pytest
from object_predictions import CONCEPTS, by_pycocotools, check_with_pycocotools, nothing, some_predictions, with_masks
from vesta_common.media.boxes import box_ious
from vesta_training.metrics.average_precision import average_precisions, drawn_precisions
from vesta_training.metrics.detection import compare_objects, measure_objects
from vesta_training.metrics.draws import draw_items, interval, mean_over_concepts
from vesta_training.metrics.objects import ObjectPredictions, Objects, match_concept, over_concepts
from vesta_training.recipes.choices import EvaluationChoices

CHOICES = EvaluationChoices(bootstrap_draws=200)


@pytest.mark.parametrize("seed", range(5))
def test_map_equals_that_of_pycocotools(seed: int) -> None:
    predictions = some_predictions(seed)

    metrics = measure_objects(predictions, CHOICES, seed=0)

    check_with_pycocotools(metrics, predictions)


@pytest.mark.parametrize("seed", range(3))
def test_map_of_masks_equals_that_of_pycocotools(seed: int) -> None:
    predictions = with_masks(some_predictions(seed), seed)

    metrics = measure_objects(predictions, CHOICES, seed=0)

    check_with_pycocotools(metrics, predictions, "segm")
    assert metrics.mean_average_precision.value != pytest.approx(
        measure_objects(some_predictions(seed), CHOICES, seed=0).mean_average_precision.value, abs=1e-3
    )


def test_drawing_each_item_once_gives_the_value_itself_for_masks() -> None:
    predictions = with_masks(some_predictions(1), 1)
    once = np.ones((1, len(predictions.items)), dtype=np.int64)

    values = average_precisions(predictions)

    for number in range(3):
        matches = match_concept(predictions, number)
        assert drawn_precisions(matches, (0,), once)[0] == pytest.approx(values.at_50[number], abs=1e-9)
        assert drawn_precisions(matches, range(10), once)[0] == pytest.approx(values.by_area[0, number], abs=1e-9)


def test_objects_keep_their_masks_when_they_are_chosen() -> None:
    (*_, objects) = with_masks(some_predictions(1), 1).found
    assert objects.masks is not None

    chosen = objects.selected(np.array([1, 0]))

    assert chosen.masks is not None
    assert [one.tolist() for one in chosen.masks] == [objects.masks[1].tolist(), objects.masks[0].tolist()]
    assert objects.selected(objects.scores > 2).masks == ()


def test_concepts_have_the_average_precision_of_pycocotools() -> None:
    predictions = some_predictions(7)

    metrics = measure_objects(predictions, CHOICES, seed=0)

    precision = by_pycocotools(predictions).eval["precision"][..., 0, -1]
    for number, concept in enumerate(metrics.concepts[:3]):
        assert concept.average_precision_50 == pytest.approx(precision[0, :, number].mean(), abs=1e-6)
        assert concept.average_precision == pytest.approx(precision[:, :, number].mean(), abs=1e-6)
    assert not metrics.concepts[3].HasField("average_precision_50")


@pytest.mark.parametrize("seed", range(3))
def test_drawing_each_item_once_gives_the_value_itself(seed: int) -> None:
    predictions = some_predictions(seed)
    once = np.ones((1, len(predictions.items)), dtype=np.int64)

    values = average_precisions(predictions)

    for number in range(3):
        matches = match_concept(predictions, number)
        assert drawn_precisions(matches, (0,), once)[0] == pytest.approx(values.at_50[number], abs=1e-9)
        assert drawn_precisions(matches, range(10), once)[0] == pytest.approx(values.by_area[0, number], abs=1e-9)
    assert np.isnan(drawn_precisions(match_concept(predictions, 3), (0,), once)[0])


def test_an_item_that_is_drawn_twice_counts_as_two_items() -> None:
    predictions = some_predictions(2, 12)
    weights = np.array([[2, 0, 1, 1, 3, 0, 1, 1, 1, 0, 1, 1]])
    repeated = [position for position, count in enumerate(weights[0]) for _ in range(count)]
    expanded = ObjectPredictions(
        tuple(f"items/{number}" for number in range(len(repeated))),
        CONCEPTS,
        tuple(predictions.truth[position] for position in repeated),
        tuple(predictions.found[position] for position in repeated),
        (0.5,) * 4,
    )

    drawn = [drawn_precisions(match_concept(predictions, number), (0,), weights)[0] for number in range(2)]

    assert drawn == pytest.approx(average_precisions(expanded).at_50[:2], abs=0.02)  # equal scores are ordered by item


def test_a_model_that_finds_nothing_has_a_map_of_zero() -> None:
    predictions = some_predictions(0)
    blind = ObjectPredictions(
        predictions.items, CONCEPTS, predictions.truth, (nothing(),) * len(predictions.items), (0.5,) * 4
    )

    metrics = measure_objects(blind, CHOICES, seed=0)

    assert metrics.mean_average_precision_50.value == 0
    assert not metrics.concepts[0].HasField("precision")
    assert metrics.concepts[0].recall.value == 0


def test_without_true_objects_there_is_no_map() -> None:
    predictions = some_predictions(0, 1)

    metrics = measure_objects(predictions, CHOICES, seed=0)

    assert not metrics.HasField("mean_average_precision_50")
    assert metrics.item_count == 1


def test_the_interval_of_map_contains_it_and_shrinks_with_items() -> None:
    few, many = (measure_objects(some_predictions(0, count), CHOICES, seed=0) for count in (15, 150))

    widths = []
    for metrics in (few, many):
        estimate = metrics.mean_average_precision_50
        assert estimate.low < estimate.value < estimate.high
        widths.append(estimate.high - estimate.low)
    assert widths[1] < widths[0] / 2


def test_precision_and_recall_count_objects_at_the_threshold() -> None:
    box, far = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    truth = Objects(np.array([box, far]), np.zeros(2, dtype=np.int64), np.ones(2))
    found = Objects(np.array([box, box, far]), np.zeros(3, dtype=np.int64), np.array([0.9, 0.8, 0.3]))
    predictions = ObjectPredictions(("items/1",), ("cell",), (truth,), (found,), (0.5,))

    (concept,) = measure_objects(predictions, CHOICES, seed=0).concepts

    assert (concept.precision.value, concept.recall.value, concept.f1) == (0.5, 0.5, 0.5)
    assert (concept.item_count, concept.object_count) == (1, 2)


def test_a_better_challenger_is_better_with_confidence_and_an_equal_one_is_not() -> None:
    champion = some_predictions(0, 120, jitter_px=14, missed=0.5)

    better = compare_objects(
        some_predictions(0, 120, jitter_px=2, missed=0.05), champion, CHOICES, champion_name="c", seed=0
    )
    equal = compare_objects(champion, champion, CHOICES, champion_name="c", seed=0)

    assert better.difference.low > 0
    assert (equal.difference.low, equal.difference.value, equal.difference.high) == (0, 0, 0)
    assert better.concepts[0].difference.low > 0
    assert not better.concepts[3].HasField("difference")
    assert better.champion_metrics.mean_average_precision_50.value < 0.5


def test_models_on_other_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="the same items"):
        compare_objects(some_predictions(0, 5), some_predictions(0, 6), CHOICES, champion_name="c", seed=0)


def test_predictions_over_other_concepts_drop_unknown_ones() -> None:
    predictions = over_concepts(some_predictions(0), ("plate", "new"))

    assert {int(number) for found in predictions.found for number in found.numbers} == {0}
    assert sum(len(one.scores) for one in predictions.truth) == sum(
        int((one.numbers == 1).sum()) for one in some_predictions(0).truth
    )


def test_overlap_of_empty_and_disjoint_boxes_is_zero() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 5, 5]], dtype=np.float64)

    assert box_ious(boxes, boxes).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert box_ious(boxes[:0], boxes).shape == (0, 3)


def test_draws_without_objects_are_left_out_of_intervals() -> None:
    drawn = np.array([[np.nan, 0.5, 1.0], [np.nan, np.nan, 0.0]])

    assert np.isnan(mean_over_concepts(drawn)[0])
    assert mean_over_concepts(drawn)[1:].tolist() == [0.5, 0.5]
    assert interval(0.7, np.array([np.nan, np.nan])).high == 0.7


def test_very_many_objects_are_drawn_less_often() -> None:
    generator = np.random.default_rng(0)

    assert len(draw_items(4, 100, 500, generator)) == 500
    assert len(draw_items(4, 1_000_000, 2000, generator)) == 200
