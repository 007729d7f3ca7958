"""Items of a detection dataset: the concepts of their boxes label them."""

from typing import Any

import numpy as np
import pytest
from datasets_builders import Datasets, a_medium, refusal, says
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_common.events.cloudevents import new_event
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, Mask, PixelBox, PixelPoint, Polygon, Ring, RotatedBox, TaskType
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    CreateSnapshotRequest,
    ItemAnnotations,
    SelectItemsRequest,
    Snapshot,
    Split,
)
from vesta_datasets.archives.masks import mask_of
from vesta_datasets.items.bounding_boxes import bounding_box
from vesta_datasets.store.pool import CandidatePool
from vesta_datasets.task_types.detection import Detection


def ring(*points: tuple[float, float]) -> Ring:
    return Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in points])


DIAMOND = (5 - 2**0.5, 5 - 2**0.5, 5 + 2**0.5, 5 + 2**0.5)


def a_box(concept: str, x: float = 1) -> Annotation:
    return Annotation(concept=concept, box=PixelBox(x_min_px=x, y_min_px=1, x_max_px=x + 5, y_max_px=9))


@pytest.fixture
def items(datasets: Datasets) -> tuple[str, list[str]]:
    """A detection dataset with four training items: two vans and a car, a van, no object, no annotations."""
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_DETECTION)
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(4)), split=Split.SPLIT_TRAIN)]
    annotate(datasets, dataset, names[0], [a_box("van"), a_box("car"), a_box("van", 4)])
    annotate(datasets, dataset, names[2], [])
    decision = TaskAccepted(task="t", item=names[1], annotations=[a_box("van")], annotators=["ada"])
    decision.accept_time.FromDatetime(datasets.store.clock.now())
    datasets.handle(new_event("annotation", "t", decision, datasets.store.clock.now()))
    return dataset, names


def annotate(datasets: Datasets, dataset: str, item: str, annotations: list[Annotation]) -> None:
    entry = ItemAnnotations(item=item, annotations=annotations)
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))


def test_items_with_boxes_and_without_objects_are_labelled(datasets: Datasets, items: tuple[str, list[str]]) -> None:
    dataset, names = items
    counts = datasets.counts(dataset)
    assert (counts.labelled_count, counts.annotated_count, counts.pool_count) == (3, 3, 1)
    assert sorted(datasets.listed(dataset, 'label = "van"')) == sorted(names[:2])
    assert datasets.listed(dataset, 'label = "car"') == [names[0]]
    assert datasets.listed(dataset, "NOT labelled") == [names[3]]


def test_a_snapshot_counts_the_images_of_each_concept(datasets: Datasets, items: tuple[str, list[str]]) -> None:
    dataset, _ = items
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    (train,) = [split for split in snapshot.statistics.splits if split.split == "TRAIN"]
    assert dict(train.concept_counts) == {"van": 2, "car": 1}
    assert (train.labelled_count, train.no_label_count, train.shapes_only_count) == (3, 1, 0)


def test_labels_of_the_whole_image_are_refused(datasets: Datasets, items: tuple[str, list[str]]) -> None:
    dataset, names = items
    refusal(InvalidArgument, lambda: annotate(datasets, dataset, names[3], says("van")), "SHAPE_NOT_OF_TASK")


def test_unlabelled_items_are_selected(datasets: Datasets, items: tuple[str, list[str]]) -> None:
    dataset, names = items
    datasets.scored(dataset, names)
    (selected,) = datasets.items.SelectItems(SelectItemsRequest(parent=dataset, count=5)).items
    assert selected.item == names[3]
    assert not selected.pre_annotations, "scores do not say where an object is"


def test_a_selection_reads_the_concept_of_each_labelled_object(
    datasets: Datasets, items: tuple[str, list[str]]
) -> None:
    dataset, names = items
    with datasets.store.postgres.transaction() as connection:
        rows = CandidatePool().read(connection, dataset, "", [], seed=1).rows
    answers = {row.name: row.answer for row in rows}
    assert answers == {names[0]: ["van", "car", "van"], names[1]: ["van"], names[2]: [], names[3]: None}


def test_a_selection_leaves_objects_that_are_stored_apart_to_the_model(
    datasets: Datasets, items: tuple[str, list[str]]
) -> None:
    dataset, names = items
    annotate(datasets, dataset, names[3], [a_box("van", number / 1000) for number in range(2000)])
    with datasets.store.postgres.transaction() as connection:
        rows = CandidatePool().read(connection, dataset, "", [], seed=1).rows
    assert [(row.held, row.answer) for row in rows if row.name == names[3]] == [(True, None)]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"box": PixelBox(x_min_px=1, y_min_px=2, x_max_px=3, y_max_px=5)}, (1, 2, 3, 5)),
        (
            {"polygon": Polygon(outline=ring((1, 2), (5, 3), (2, 9)), holes=[ring((2, 3), (3, 3), (2, 4))])},
            (1, 2, 5, 9),
        ),
        (
            {"rotated_box": RotatedBox(x_center_px=5, y_center_px=5, width_px=4, height_px=2, angle_deg=90)},
            (4, 3, 6, 7),
        ),
        ({"rotated_box": RotatedBox(x_center_px=5, y_center_px=5, width_px=2, height_px=2, angle_deg=-45)}, DIAMOND),
        # 4 x 3 pixels: the second and third of the first row, and the first of the second row.
        ({"mask": Mask(width_px=4, height_px=3, runs_px=[1, 2, 1, 1, 7])}, (0, 0, 3, 2)),
        # A run that goes on in the next row.
        ({"mask": Mask(width_px=4, height_px=3, runs_px=[6, 3, 3])}, (0, 1, 4, 3)),
    ],
)
def test_imported_shapes_become_the_boxes_around_them(
    shape: dict[str, Any], box: tuple[float, float, float, float]
) -> None:
    annotation = Annotation(concept="van", attributes={"cut": "true"}, **shape)
    (found,) = Detection().imported([annotation])
    assert (found.concept, dict(found.attributes)) == ("van", {"cut": "true"})
    corners = (found.box.x_min_px, found.box.y_min_px, found.box.x_max_px, found.box.y_max_px)
    assert corners == pytest.approx(box)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=4, max_size=4))
def test_the_box_around_a_mask_is_that_of_its_pixels(rows: list[list[bool]]) -> None:
    pixels = np.array(rows)
    box = bounding_box(Annotation(mask=mask_of(pixels)))
    if not pixels.any():
        assert box is None
        return
    ys, xs = np.nonzero(pixels)
    assert box == PixelBox(x_min_px=xs.min(), y_min_px=ys.min(), x_max_px=xs.max() + 1, y_max_px=ys.max() + 1)
