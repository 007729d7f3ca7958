"""Items of segmentation datasets: the concepts of their masks label them, and masks are joined and predicted by concept."""

import pytest
from datasets_builders import Datasets, a_medium, refusal
from vesta_common.errors import InvalidArgument
from vesta_contracts.common.v1 import Annotation, ConceptScore, Mask, PixelBox, Prediction, SegmentationMap, TaskType
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    GetItemRequest,
    ItemAnnotations,
    SelectItemsRequest,
    Split,
)
from vesta_datasets.task_types.maps import masks_of_map
from vesta_datasets.task_types.semantic_segmentation import SemanticSegmentation

PIXELS = SemanticSegmentation()


def a_mask(concept: str, *runs: int, width: int = 10) -> Annotation:
    height = 10
    runs_px = [*runs, height * width - sum(runs)]
    return Annotation(concept=concept, mask=Mask(height_px=height, width_px=width, runs_px=runs_px))


@pytest.mark.parametrize(
    "task_type", [TaskType.TASK_TYPE_INSTANCE_SEGMENTATION, TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION]
)
def test_items_with_masks_and_without_objects_are_labelled(datasets: Datasets, task_type: TaskType.ValueType) -> None:
    dataset = datasets.a_dataset(task_type=task_type)
    one, nothing, _ = (item.name for item in datasets.add(dataset, *map(a_medium, range(3)), split=Split.SPLIT_TRAIN))
    media = a_medium(0)
    pixels = media.width_px * media.height_px
    mask = Mask(height_px=media.height_px, width_px=media.width_px, runs_px=[3, 4, pixels - 7])
    entries = [
        ItemAnnotations(item=one, annotations=[Annotation(concept="van", mask=mask)]),
        ItemAnnotations(item=nothing),
    ]
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=entries))
    assert datasets.counts(dataset).labelled_count == 2
    assert datasets.listed(dataset, 'label = "van"') == [one]
    box = ItemAnnotations(item=one, annotations=[Annotation(concept="van", box=PixelBox(x_max_px=4, y_max_px=4))])
    request = BatchAnnotateItemsRequest(parent=dataset, items=[box])
    refusal(InvalidArgument, lambda: datasets.items.BatchAnnotateItems(request), "SHAPE_NOT_OF_TASK")


def test_imported_masks_of_a_concept_are_joined_and_smaller_ones_lie_on_top() -> None:
    assert PIXELS.imported([a_mask("van", 0, 50), a_mask("car", 10, 5), a_mask("van", 60, 5)]) == [
        a_mask("car", 10, 5),
        a_mask("van", 0, 10, 5, 35, 10, 5),
    ]
    assert PIXELS.imported([a_mask("van", 0, 5), a_mask("car", 0, 5)]) == [a_mask("car", 0, 5)]
    assert PIXELS.imported([]) == []


def test_imported_shapes_that_cannot_be_joined_are_kept() -> None:
    box = Annotation(concept="van", box=PixelBox(x_max_px=4, y_max_px=4))
    assert PIXELS.imported([box, a_mask("car", 10, 5)]) == [box, a_mask("car", 10, 5)]
    assert len(PIXELS.imported([a_mask("van", 10, 5), a_mask("van", 10, 5, width=9)])) == 2


def test_a_predicted_map_is_one_mask_for_each_concept() -> None:
    found = SegmentationMap(
        height_px=10, width_px=10, concepts=["van", "car", "bus"], runs_px=[10, 5, 5, 80], concept_numbers=[1, 2, 1, 0]
    )
    assert masks_of_map(found) == [a_mask("van", 0, 10, 5, 5), a_mask("car", 10, 5)]
    assert PIXELS.pre_annotations(Prediction(segmentation_map=found)) == masks_of_map(found)
    assert PIXELS.pre_annotations(Prediction()) == []


def test_a_large_map_is_stored_apart_and_read_for_suggestions(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION)
    (name,) = (item.name for item in datasets.add(dataset, a_medium(0), split=Split.SPLIT_TRAIN))
    side = 160  # a chessboard, the map with the most runs
    board = SegmentationMap(
        height_px=side,
        width_px=side,
        concepts=["van", "car"],
        runs_px=[1] * side * side,
        concept_numbers=[1, 2] * (side * side // 2),
    )
    whole = Prediction(
        model_version="m",
        scores=[ConceptScore(concept=concept, score=0.9, threshold=0.5, predicted=True) for concept in ("van", "car")],
        segmentation_map=board,
    )
    reduced = datasets.store.items.reduced(name, whole)
    assert (reduced.stored.is_segmentation_map, list(reduced.stored.concepts)) == (True, ["car", "van"])
    assert reduced.ByteSize() < 1000
    assert PIXELS.annotation_seconds(reduced) == PIXELS.annotation_seconds(whole) > 2
    datasets.predicts(dataset, {name: reduced})
    (chosen,) = datasets.items.SelectItems(SelectItemsRequest(parent=dataset, count=1)).items
    assert list(chosen.pre_annotations) == masks_of_map(board)
    assert datasets.items.GetItem(GetItemRequest(name=name)).prediction == whole
    assert datasets.listed(dataset, f"predicted_count = 2 AND predicted_area_min = {side * side // 2}") == [name]


def test_a_map_is_uncertain_by_the_presence_of_its_concepts_and_by_their_pixels() -> None:
    def predicted(score: float, margin: float) -> Prediction:
        return Prediction(scores=[ConceptScore(concept="van", score=score, threshold=0.5)], margin=margin)

    predictions = [predicted(1.0, 1.0), predicted(1.0, 0.4), predicted(0.6, 0.2), predicted(0.6, 0.0), None]
    certain, pixels, presence, both, unknown = PIXELS.uncertainty(predictions, ["van"]).margin.tolist()
    assert (certain, unknown) == (0.0, 1.0)
    assert 0 < pixels < presence < both < 1
