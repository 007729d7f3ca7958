"""Figures of objects: number, size, density and duplicates of boxes, of an item, in filters and in snapshots."""

from collections.abc import Sequence

import pytest
from datasets_builders import Datasets, a_medium, says
from hypothesis import given
from hypothesis import strategies as st
from vesta_contracts.common.v1 import (
    Annotation,
    ConceptScore,
    Keypoints,
    Mask,
    PixelBox,
    PixelPoint,
    Polygon,
    Prediction,
    Ring,
    RotatedBox,
    TaskType,
)
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    CreateSnapshotRequest,
    ItemAnnotations,
    Snapshot,
    Split,
)
from vesta_datasets.items.objects import area_px, duplicate_boxes, figures_of, size_of
from vesta_datasets.items.splits import Split as Part
from vesta_datasets.snapshots.statistics import SplitStatistics, Statistics


def a_box(x: float, side: float, concept: str = "van", **fields: float) -> Annotation:
    return Annotation(concept=concept, box=PixelBox(x_min_px=x, y_min_px=0, x_max_px=x + side, y_max_px=side), **fields)


def ring(*points: tuple[float, float]) -> Ring:
    return Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in points])


@pytest.mark.parametrize(
    ("annotation", "area"),
    [
        (a_box(1, 4), 16),
        (Annotation(rotated_box=RotatedBox(width_px=4, height_px=2, angle_deg=30)), 8),
        (Annotation(polygon=Polygon(outline=ring((0, 0), (8, 0), (8, 8)))), 32),
        (Annotation(polygon=Polygon(outline=ring((0, 0), (8, 0), (8, 8)), holes=[ring((5, 1), (7, 1), (7, 3))])), 30),
        (Annotation(mask=Mask(width_px=4, height_px=3, runs_px=[1, 2, 1, 1, 7])), 3),
        (Annotation(keypoints=Keypoints()), None),
    ],
)
def test_the_area_of_an_object_is_that_of_its_shape(annotation: Annotation, area: float | None) -> None:
    assert area_px(annotation) == (None if area is None else pytest.approx(area))


@pytest.mark.parametrize(("area", "size"), [(0, "small"), (1023.9, "small"), (1024, "medium"), (9216, "large")])
def test_sizes_are_those_of_coco(area: float, size: str) -> None:
    assert size_of(area) == size


@pytest.mark.parametrize(
    ("annotations", "found"),
    [
        ([], []),
        ([a_box(0, 10), a_box(0, 10), a_box(0, 10)], [1, 2]),
        ([a_box(0, 100), a_box(5, 100)], [1]),  # IoU 95 / 105
        ([a_box(0, 100), a_box(6, 100)], []),  # IoU 94 / 106
        ([a_box(0, 10), a_box(0, 10, "car")], []),
        ([a_box(0, 0), a_box(0, 0)], []),
    ],
)
def test_duplicates_are_boxes_of_one_concept_that_overlap_nearly_completely(
    annotations: list[Annotation], found: list[int]
) -> None:
    assert duplicate_boxes(annotations) == found


@given(st.lists(st.sampled_from([0.0, 0.3, 5.0, 50.0]), max_size=8), st.integers(1, 3))
def test_the_first_of_equal_boxes_is_no_duplicate(places: list[float], count: int) -> None:
    once = [a_box(x, 2) for x in sorted(set(places))]
    assert figures_of(once * count).duplicate_count == len(once) * (count - 1)


def test_many_boxes_are_compared_in_blocks() -> None:
    boxes = [a_box(3 * number, 2) for number in range(1200)]
    assert duplicate_boxes([*boxes, boxes[0], boxes[1199]]) == [1200, 1201]


@pytest.fixture
def items(datasets: Datasets) -> tuple[str, list[str]]:
    """A detection dataset with four items: three boxes of which two are nearly equal, a large box, no object, no annotations."""
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_DETECTION)
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(4)), split=Split.SPLIT_TRAIN)]
    annotate(datasets, dataset, names[0], [a_box(0, 4), a_box(0.1, 4), a_box(20, 8, "car")])
    annotate(datasets, dataset, names[1], [a_box(0, 40)])
    annotate(datasets, dataset, names[2], [])
    return dataset, names


def annotate(datasets: Datasets, dataset: str, item: str, annotations: Sequence[Annotation]) -> None:
    entry = ItemAnnotations(item=item, annotations=annotations)
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("object_count >= 1", [0, 1]),
        ("object_count = 0 AND labelled", [2]),
        ("duplicate_object_count > 0", [0]),
        ("object_area_min < 20", [0]),
        ("object_area_max >= 1600", [1]),
        ("predicted_count = 2", [3]),
        ("predicted_count = 0", [0, 1, 2]),
        ("predicted_area_max >= 100 AND predicted = van", [3]),
        ("predicted_count.van >= 2 AND predicted_area_min.van < 20", [3]),
        ("predicted_count.car >= 1", []),
    ],
)
def test_items_are_found_by_their_objects(
    datasets: Datasets, items: tuple[str, list[str]], text: str, found: list[int]
) -> None:
    dataset, names = items
    scores = [ConceptScore(concept="van", score=0.9, threshold=0.5, predicted=True)]
    objects = [a_box(0, 10, score=0.9), a_box(9, 4, score=0.6), a_box(0, 2, score=0.4)]
    datasets.predicts(dataset, {names[3]: Prediction(scores=scores, annotations=objects)})
    assert datasets.listed(dataset, text) == [names[index] for index in found]


def test_a_snapshot_counts_objects_by_concept_size_and_density(
    datasets: Datasets, items: tuple[str, list[str]]
) -> None:
    dataset, _ = items
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    (train,) = [split for split in snapshot.statistics.splits if split.split == "TRAIN"]
    assert (train.object_count, train.duplicate_box_count) == (4, 1)
    assert dict(train.object_counts) == {"van": 3, "car": 1}
    assert dict(train.size_counts) == {"small": 3, "medium": 1}
    assert dict(train.density_counts) == {"0": 1, "1": 1, "2": 1}
    assert snapshot.statistics.control_object_count == 0


def test_labels_of_images_are_no_objects() -> None:
    assert figures_of(says("van")).object_count == 0


def test_statistics_of_a_version_that_did_not_count_objects_are_incomplete() -> None:
    written = Statistics({split: SplitStatistics(1, 1, {}) for split in Part}, 0, 0).to_dict()
    assert Statistics.is_complete(written)
    assert not Statistics.is_complete({**written, "splits": {Part.TRAIN: {}}})
    del written["control_object_count"]
    assert not Statistics.is_complete(written)
    assert Statistics.of_dict(written).control_object_count == 0
