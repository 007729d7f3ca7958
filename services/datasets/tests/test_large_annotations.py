"""Large annotations are stored by their hash, and nothing of them is lost; events and lists have a reference and a summary."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from archive_builders import unpack
from datasets_builders import NOON, Datasets, Ingest, a_medium, a_png, says
from vesta_common.errors import NotFound, Unavailable
from vesta_common.events.cloudevents import new_event
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.manifests import read_manifest, read_rows
from vesta_common.media.large_annotations import INLINE_BYTES_MAX, LargeAnnotations
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, Mask, PixelBox
from vesta_contracts.datasets.v1 import (
    AcceptedAnnotations,
    AnnotationList,
    ArchiveFormat,
    BatchAnnotateItemsRequest,
    CreateSnapshotRequest,
    DeleteDatasetRequest,
    ExportDatasetRequest,
    ExportDatasetResponse,
    GetItemRequest,
    ImportDatasetResponse,
    ItemAnnotated,
    ItemAnnotations,
    ListItemsRequest,
    Snapshot,
)
from vesta_datasets.operations.retention import DATASET_RETENTION, Retention
from vesta_datasets.operations.transfers import Export, Import
from vesta_datasets.operations.worker import Operations
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.snapshots.manifest import COLUMNS, rows_of
from vesta_datasets.store import Store
from vesta_datasets.store.operations import EXPORT, IMPORT

SIDE_PX = 1900
MIB = 1024 * 1024


def a_mask() -> Annotation:
    """Returns a mask of more than 3 MiB: every second pixel is inside."""
    return Annotation(concept="van", mask=Mask(height_px=SIDE_PX, width_px=SIDE_PX, runs_px=[1] * SIDE_PX**2))


def boxes(count: int = 1000) -> list[Annotation]:
    return [
        Annotation(concept="car", box=PixelBox(x_min_px=n, y_min_px=n / 4, x_max_px=n + 7, y_max_px=n / 4 + 9))
        for n in range(count)
    ]


def a_large_image(datasets: Datasets, dataset: str) -> str:
    """Adds an image of `SIDE_PX` × `SIDE_PX` pixels, and returns the name of its item."""
    media = a_medium(1)
    media.width_px = media.height_px = SIDE_PX
    stored = datasets.objects.put("media", a_png("van"))
    media.sha256, media.object_key, media.mime_type = stored.sha256, stored.key, "image/png"
    (item,) = datasets.add(dataset, media)
    return item.name


def annotate(datasets: Datasets, item: str, annotations: list[Annotation]) -> None:
    entry = ItemAnnotations(item=item, annotations=annotations)
    dataset = item.partition("/items/")[0]
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))


def accepted(datasets: Datasets, item: str) -> list[Annotation]:
    return list(datasets.items.GetItem(GetItemRequest(name=item)).accepted.annotations)


def stored_keys(datasets: Datasets) -> list[str]:
    return list(datasets.objects.list_keys("annotations/"))


def events_of(datasets: Datasets) -> list[ItemAnnotated]:
    with datasets.store.postgres.transaction() as connection:
        rows = connection.execute("SELECT value, headers FROM outbox ORDER BY id").fetchall()
    assert max(len(row["value"]) for row in rows) <= EVENT_BYTES_MAX
    return [
        ItemAnnotated.FromString(bytes(row["value"]))
        for row in rows
        if ["ce_type", "vesta.datasets.item.v1.annotated"] in row["headers"]
    ]


def test_small_annotations_stay_in_events(datasets: Datasets) -> None:
    item = a_large_image(datasets, datasets.a_dataset())
    annotate(datasets, item, boxes(3))
    (event,) = events_of(datasets)
    assert list(event.accepted.annotations) == boxes(3)
    assert stored_keys(datasets) == []


def test_a_large_answer_goes_from_its_event_to_the_item_a_snapshot_and_an_export(
    datasets: Datasets, tmp_path: Path
) -> None:
    dataset = datasets.a_dataset()
    item = a_large_image(datasets, dataset)
    answer = [a_mask(), *boxes()]
    reference = LargeAnnotations(datasets.objects).store(item, answer)
    assert reference is not None
    assert (reference.annotation_count, list(reference.concepts)) == (1001, ["car", "van"])
    assert 3 * MIB < reference.size_bytes < 8 * MIB
    told = TaskAccepted(task="t", item=item, stored=reference, annotators=["ada"])
    told.accept_time.FromDatetime(NOON)
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    assert accepted(datasets, item) == answer
    (event,) = events_of(datasets)
    assert (event.accepted.stored, list(event.accepted.annotations), event.accepted.task) == (reference, [], "t")
    (listed,) = datasets.items.ListItems(ListItemsRequest(parent=dataset, filter='concept = "van"')).items
    assert (listed.accepted.stored, list(listed.accepted.annotations)) == (reference, [])
    assert stored_keys(datasets) == [reference.object_key]

    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    parts = read_manifest(datasets.objects, snapshot.manifest_key).parts
    (row,) = (row for batch in read_rows(datasets.objects, parts, COLUMNS) for row in rows_of(batch))
    assert list(AnnotationList.FromString(row.annotations).annotations) == answer

    layout = ArchiveFormat.ARCHIVE_FORMAT_COCO
    operation = datasets.datasets.ExportDataset(ExportDatasetRequest(name=dataset, format=layout)).name
    export = Export(datasets.store, datasets.objects, SnapshotWriter(datasets.store, datasets.objects))
    assert Operations(datasets.store, {EXPORT: export}).step()
    exported, archive = ExportDatasetResponse(), tmp_path / "out.zip"
    assert datasets.operation(operation).response.Unpack(exported), datasets.operation(operation).error
    datasets.objects.download(exported.archive_key, archive)
    (found,) = unpack(archive, tmp_path / "in", layout)
    assert found.annotations == answer


def test_an_answer_with_labels_alone_keeps_large_shapes(datasets: Datasets) -> None:
    item = a_large_image(datasets, datasets.a_dataset())
    annotate(datasets, item, boxes())
    told = TaskAccepted(task="t", item=item, annotations=says("van"))
    told.accept_time.FromDatetime(datasets.store.clock.now() + timedelta(seconds=1))
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    assert accepted(datasets, item) == [*says("van"), *boxes()]
    late = TaskAccepted(task="older", item=item, annotations=says("car"), control=True)
    late.accept_time.FromDatetime(datasets.store.clock.now() - timedelta(seconds=1))
    datasets.handle(new_event("annotation", "older", late, datasets.store.clock.now()))
    assert accepted(datasets, item) == [*says("van"), *boxes()]
    assert datasets.listed(item.partition("/items/")[0], 'label = "van" AND concept = "car"') == [item]


def test_an_import_compares_large_annotations(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    annotate(datasets, a_large_image(datasets, dataset), [*says("van"), *boxes()])
    operation = datasets.begin_import(dataset, {"van/1.png": a_png("van")})
    importing = Import(datasets.store, datasets.objects, Ingest())  # type: ignore[arg-type]
    assert Operations(datasets.store, {IMPORT: importing}).step()
    response = ImportDatasetResponse()
    assert datasets.operation(operation).response.Unpack(response)
    assert "labelled car, van, but van in the archive" in response.rejections[0]


def test_annotations_that_are_missing_in_the_object_store_are_an_error(datasets: Datasets) -> None:
    item = a_large_image(datasets, datasets.a_dataset())
    annotate(datasets, item, boxes())
    for key in stored_keys(datasets):
        datasets.objects.delete(key)
    with pytest.raises(NotFound):
        accepted(datasets, item)


def test_large_annotations_wait_until_the_previous_version_has_ended(datasets: Datasets) -> None:
    during = Store(datasets.store.postgres, datasets.store.clock, LargeAnnotations(datasets.objects, is_updated=False))
    item = a_large_image(datasets, datasets.a_dataset())
    with pytest.raises(Unavailable) as refused:
        during.items.reduced(item, AcceptedAnnotations(annotations=boxes()))
    assert refused.value.reason == "UPDATE_RUNNING"


@pytest.mark.parametrize("excess_bytes", [0, 1])
def test_the_limit_of_inline_annotations_is_exact(datasets: Datasets, excess_bytes: int) -> None:
    entry = Annotation(concept="van", attributes={"note": ""})
    room = INLINE_BYTES_MAX + excess_bytes - AnnotationList(annotations=[entry]).ByteSize()
    for _ in range(4):  # the lengths of the enclosing fields grow with the text
        entry.attributes["note"] = "x" * room
        room += INLINE_BYTES_MAX + excess_bytes - AnnotationList(annotations=[entry]).ByteSize()
    stored = LargeAnnotations(datasets.objects).store("projects/acme/datasets/vans/items/1", [entry])
    assert (stored is None) == (excess_bytes == 0)


def test_the_objects_of_a_deleted_dataset_are_deleted_a_day_later(datasets: Datasets) -> None:
    datasets.advance(datetime.now(UTC) - datasets.store.clock.now())
    gone, kept = datasets.a_dataset("gone"), datasets.a_dataset("kept")
    for dataset in (gone, kept):
        annotate(datasets, a_large_image(datasets, dataset), boxes())
    datasets.advance(timedelta(minutes=1))
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=gone))
    retention = Retention(datasets.store, datasets.objects)
    datasets.advance(DATASET_RETENTION - timedelta(minutes=1))
    retention.step()
    assert len(stored_keys(datasets)) == 2
    datasets.advance(timedelta(minutes=2))
    retention.step()
    assert [key.split("/")[2] for key in stored_keys(datasets)] == ["kept"]
