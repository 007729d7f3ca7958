"""Items of segmentation datasets: the concepts of their masks label them, and masks are joined and predicted by concept."""

import pytest
from datasets_builders import Datasets, a_medium, refusal
from vesta_common.errors import InvalidArgument
from vesta_contracts.common.v1 import Annotation, Mask, PixelBox, Prediction, SegmentationMap, TaskType
from vesta_contracts.datasets.v1 import BatchAnnotateItemsRequest, ItemAnnotations, Split
from vesta_datasets.task_types.semantic_segmentation import SemanticSegmentation, masks_of_map

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
