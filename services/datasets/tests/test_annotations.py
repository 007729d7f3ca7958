"""Annotations of items: validated, accepted, reviewed, and counted."""

import pytest
from datasets_builders import Datasets, a_medium, refusal, says
from vesta_common.errors import (
    InvalidArgument,
)
from vesta_common.events.cloudevents import new_event
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, Keyframe, Mask, PixelBox, Track
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    CreateSnapshotRequest,
    GetItemRequest,
    ItemAnnotations,
    Snapshot,
)


def test_a_single_label_item_takes_shapes_but_no_second_label(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    box = Annotation(concept="van", box=PixelBox(x_max_px=9, y_max_px=9))

    def ask(*annotations: Annotation) -> None:
        entry = ItemAnnotations(item=item.name, annotations=annotations)
        datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))

    refusal(InvalidArgument, lambda: ask(*says("van", "car"), box), "LABEL_NOT_SINGLE")
    ask(*says("car"), box)


def test_a_correction_keeps_the_control_mark(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    told = TaskAccepted(task="t", item=item.name, annotations=says("van"), control=True)
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    datasets.annotate(dataset, item.name, "car")
    assert datasets.items.GetItem(GetItemRequest(name=item.name)).accepted.control


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        (says("bus"), "CONCEPT_UNKNOWN"),
        (says("van", "car"), "LABEL_NOT_SINGLE"),
        ([Annotation(concept="van")], "SHAPE_MISSING"),
        ([Annotation(concept="van", box=PixelBox(x_max_px=999, y_max_px=9))], "SHAPE_OUTSIDE_IMAGE"),
        ([Annotation(concept="van", box=PixelBox(x_max_px=9))], "SHAPE_INVALID"),
        ([Annotation(concept="van", track=Track(track_id="1", keyframes=[Keyframe()]))], "SHAPE_NEEDS_CLIP"),
        ([Annotation(concept="van", mask=Mask(height_px=9, width_px=9, runs_px=[81]))], "MASK_SIZE_MISMATCH"),
        ([Annotation(concept="van", mask=Mask(height_px=48, width_px=64, runs_px=[7]))], "MASK_RUNS_INVALID"),
    ],
)
def test_a_batch_with_invalid_annotations_is_rejected_as_a_whole(
    datasets: Datasets, annotations: list[Annotation], reason: str
) -> None:
    dataset = datasets.a_dataset()
    good, bad = datasets.add(dataset, a_medium(1), a_medium(2))
    entries = [
        ItemAnnotations(item=good.name, annotations=says("van")),
        ItemAnnotations(item=bad.name, annotations=annotations),
    ]
    request = BatchAnnotateItemsRequest(parent=dataset, items=entries)
    refusal(InvalidArgument, lambda: datasets.items.BatchAnnotateItems(request), reason)
    assert datasets.counts(dataset).labelled_count == 0


def test_only_annotations_checked_by_a_second_person_count_as_reviewed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    datasets.add(dataset, a_medium(2), labels=("van",), reviewed=True)
    third, fourth = datasets.add(dataset, a_medium(3), a_medium(4))
    entries = [
        ItemAnnotations(item=third.name, annotations=says("van")),
        ItemAnnotations(item=fourth.name, annotations=says("van"), reviewed=True),
    ]
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=entries))
    assert len(datasets.listed(dataset, "labelled")) == 4
    assert len(datasets.listed(dataset, "reviewed")) == 2
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    assert snapshot.statistics.reviewed_count == 2


def test_an_accepted_answer_is_stored_with_its_item_and_published(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    told = TaskAccepted(
        task="t", item=item.name, annotations=says("van"), annotators=["ada"], reviewer="rosa", control=True
    )
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    accepted = datasets.items.GetItem(GetItemRequest(name=item.name)).accepted
    assert ([one.concept for one in accepted.annotations], accepted.reviewed, accepted.control) == (["van"], True, True)
    assert datasets.event_types()[-1] == "item.v1.annotated"


def test_an_answer_for_a_deleted_item_changes_nothing(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    told = TaskAccepted(task="t", item=f"{dataset}/items/gone", annotations=says("van"))
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    assert datasets.event_types() == []
