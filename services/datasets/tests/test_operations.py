"""Imports and exports complete although their workers crash, and their responses are correct."""

import hashlib
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from archive_builders import unpack
from datasets_builders import PROJECT, Datasets, Ingest, a_medium, a_png, says
from google.protobuf.message import Message
from google.rpc.code_pb2 import FAILED_PRECONDITION
from vesta_common.errors import FailedPrecondition, Unavailable
from vesta_common.storage.storage_guard import RETRY_AFTER, storage_full
from vesta_common.trace import calling
from vesta_contracts.common.v1 import Annotation, PixelBox, TaskType
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    BatchAnnotateItemsRequest,
    ExportDatasetRequest,
    ExportDatasetResponse,
    GetItemRequest,
    ImportDatasetResponse,
    ItemAnnotations,
)
from vesta_datasets.archives.scratch_folders import scratch_folder
from vesta_datasets.items.annotations import labels_of
from vesta_datasets.operations.incoming import BATCH_BYTES_MAX, BATCH_FILES_MAX
from vesta_datasets.operations.transfers import Export, Import
from vesta_datasets.operations.worker import ATTEMPTS_MAX, Claim, Operations
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.store.operations import EXPORT, IMPORT, LEASE_DURATION, OperationProgress

BATCHES = 3
MANY = BATCHES * BATCH_FILES_MAX


class Killed(BaseException):
    """Simulates the crash of a worker in the middle of its work."""


def photographs(count: int, size_bytes: int = 100) -> dict[str, bytes]:
    return {f"van/{number:03}.jpg": os.urandom(size_bytes) for number in range(count)}


def a_worker(
    datasets: Datasets, ingest: Ingest, heartbeat: timedelta | None = None, work_folder: Path | None = None
) -> Operations:
    store, objects = datasets.store, datasets.objects
    importing = Import(store, objects, ingest, work_folder)  # type: ignore[arg-type]
    exporting = Export(store, objects, SnapshotWriter(store, objects, work_folder), work_folder)
    return Operations(store, {IMPORT: importing, EXPORT: exporting}, heartbeat)


def answer_of(datasets: Datasets, operation: str) -> ImportDatasetResponse:
    answer = ImportDatasetResponse()
    found = datasets.operation(operation)
    assert found.response.Unpack(answer), found
    return answer


def test_files_are_sent_in_messages_below_the_size_limit(datasets: Datasets) -> None:
    operation = datasets.begin_import(datasets.a_dataset(), photographs(9, BATCH_BYTES_MAX // 4))
    ingest = Ingest()
    assert a_worker(datasets, ingest).step()
    assert answer_of(datasets, operation).added_count == 9
    assert ingest.calls == 3


def test_an_operation_waits_for_disk_space_without_a_limit(datasets: Datasets) -> None:
    operation = datasets.begin_import(datasets.a_dataset(), photographs(1))

    def fail_first(call: int) -> None:
        if call <= 2 * ATTEMPTS_MAX:
            raise storage_full(None)

    worker = a_worker(datasets, Ingest(fail_first))
    for _ in range(2 * ATTEMPTS_MAX):
        assert worker.step()
        assert not worker.step(), "it rests between attempts"
        datasets.advance(RETRY_AFTER + timedelta(seconds=1))
    assert worker.step()
    assert answer_of(datasets, operation).added_count == 1


@pytest.mark.parametrize(("error", "told"), [(Unavailable("nobody answers"), "nobody answers"), (KeyError("x"), "'x'")])
def test_an_operation_that_fails_repeatedly_ends_with_its_error(
    datasets: Datasets, error: Exception, told: str
) -> None:
    operation = datasets.begin_import(datasets.a_dataset(), photographs(1))

    def fail(call: int) -> None:
        raise error

    ingest = Ingest(fail)
    worker = a_worker(datasets, ingest)
    for _ in range(ATTEMPTS_MAX + 1):
        assert worker.step()
        assert not worker.step(), "it rests between attempts"
        datasets.advance(timedelta(minutes=5))
    found = datasets.operation(operation)
    assert ingest.calls == ATTEMPTS_MAX
    assert found.done
    assert f"after {ATTEMPTS_MAX} attempts" in found.error.message
    assert told in found.error.message


def test_a_waiting_operation_does_not_block_others(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    stuck, other = datasets.begin_import(dataset, photographs(1)), datasets.begin_import(dataset, photographs(2))

    def fail(call: int) -> None:
        if call == 1:
            raise Unavailable("nobody answers")

    worker = a_worker(datasets, Ingest(fail))
    assert worker.step()
    assert worker.step()
    assert (datasets.operation(stuck).done, datasets.operation(other).done) == (False, True)


def test_after_a_kill_the_response_counts_all_added_items(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    operation = datasets.begin_import(dataset, photographs(MANY))

    def die(call: int) -> None:
        if call == BATCHES:
            raise Killed

    with pytest.raises(Killed):
        a_worker(datasets, Ingest(die)).step()
    assert not a_worker(datasets, Ingest()).step(), "the lease stands"
    datasets.advance(LEASE_DURATION * 2)
    ingest = Ingest()
    assert a_worker(datasets, ingest).step()
    answer = answer_of(datasets, operation)
    assert (answer.added_count, answer.duplicate_count, ingest.calls) == (MANY, 0, 1)
    assert datasets.counts(dataset).item_count == MANY


@pytest.mark.parametrize("reviewed", [False, True])
def test_labels_of_an_import_are_reviewed_on_request(datasets: Datasets, *, reviewed: bool) -> None:
    dataset = datasets.a_dataset()
    datasets.begin_import(dataset, {"van/1.jpg": b"1"}, reviewed=reviewed)
    assert a_worker(datasets, Ingest()).step()
    assert len(datasets.listed(dataset, "labelled")) == 1
    assert len(datasets.listed(dataset, "reviewed")) == reviewed


def test_a_worker_whose_lease_expired_changes_nothing(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    operation = datasets.begin_import(dataset, photographs(MANY))

    def sleep_too_long(call: int) -> None:
        if call == 2:
            datasets.advance(LEASE_DURATION * 2)
            assert a_worker(datasets, Ingest()).step()

    assert a_worker(datasets, Ingest(sleep_too_long)).step()
    answer = answer_of(datasets, operation)
    assert (answer.added_count, answer.duplicate_count) == (MANY, 0)
    assert datasets.counts(dataset).item_count == MANY
    assert datasets.event_types().count("item.v1.created") == MANY


def test_shapes_of_an_archive_become_boxes_in_a_detection_dataset(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_DETECTION)
    listed = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48} for number in (1, 2)],
        "categories": [{"id": 1, "name": "van"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [[1, 2, 9, 2, 5, 7]],
                "bbox": [1, 2, 8, 5],
            }
        ],
    }
    files = {
        "annotations/instances_train.json": json.dumps(listed).encode(),
        "images/1.jpg": b"1",
        "images/2.jpg": b"2",
    }
    datasets.begin_import(dataset, files, ArchiveFormat.ARCHIVE_FORMAT_COCO)
    assert a_worker(datasets, Ingest()).step()
    items = [datasets.items.GetItem(GetItemRequest(name=name)) for name in datasets.listed(dataset, "labelled")]
    box = PixelBox(x_min_px=1, y_min_px=2, x_max_px=9, y_max_px=7)
    found = sorted([list(item.accepted.annotations) for item in items], key=len)
    assert found == [[], [Annotation(concept="van", box=box)]]


def labels_in(datasets: Datasets, dataset: str) -> list[list[str]]:
    items = [datasets.items.GetItem(GetItemRequest(name=name)) for name in datasets.listed(dataset, "labelled")]
    return [list(labels_of(item.accepted.annotations)) for item in items]


def test_labels_that_arrive_after_their_images_are_accepted(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    for files in ({"1.jpg": b"1"}, {"van/1.jpg": b"1"}, {"van/1.jpg": b"1", "van/again.jpg": b"1"}):
        operation = datasets.begin_import(dataset, files)
        assert a_worker(datasets, Ingest()).step()
    assert labels_in(datasets, dataset) == [["van"]]
    assert answer_of(datasets, operation) == ImportDatasetResponse(duplicate_count=2)


def test_images_that_the_dataset_has_are_not_ingested_again(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    plain, with_metadata = {"1.jpg": b"1"}, {"2.jpg": b"2EXIF in May"}
    datasets.begin_import(dataset, {**plain, **with_metadata})
    assert a_worker(datasets, Ingest()).step()
    files = {"van/1.jpg": b"1", "car/2.jpg": b"2EXIF in May", "car/3.jpg": b"3"}
    operation, ingest = datasets.begin_import(dataset, files), Ingest()
    assert a_worker(datasets, ingest).step()
    assert answer_of(datasets, operation) == ImportDatasetResponse(duplicate_count=2, added_count=1)
    assert ingest.file_names == ["car/3.jpg"]
    assert labels_in(datasets, dataset) == [["van"], ["car"], ["car"]]


def test_the_next_batch_is_ingested_while_a_batch_is_committed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    operation = datasets.begin_import(dataset, photographs(MANY))
    is_ingested = threading.Event()

    def note(call: int) -> None:
        if call == 2:
            is_ingested.set()

    with datasets.store.postgres.transaction() as connection, ThreadPoolExecutor(1) as thread:
        datasets.store.datasets.get(connection, dataset, lock=True)  # so that no batch can be committed
        done = thread.submit(a_worker(datasets, Ingest(note)).step)
        assert is_ingested.wait(30)
        connection.commit()
        assert done.result(60)
    assert answer_of(datasets, operation).added_count == MANY


def test_an_image_with_an_invalid_label_is_rejected_and_its_batch_is_imported(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    operation = datasets.begin_import(dataset, {"car/1.jpg": b"1", "spoon/2.jpg": b"2", "van/3.jpg": b"3"})
    assert a_worker(datasets, Ingest()).step()
    answer = answer_of(datasets, operation)
    assert (answer.added_count, answer.rejected_count) == (2, 1)
    assert answer.rejections[0].startswith("spoon/2.jpg: annotations[0] has the concept 'spoon'")
    assert labels_in(datasets, dataset) == [["car"], ["van"]]


def test_labels_of_an_archive_are_attributed_to_the_caller(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    with calling(f"{PROJECT}/members/ada", "engineer"):
        datasets.begin_import(dataset, {"van/1.jpg": b"1"})
    assert a_worker(datasets, Ingest()).step()
    (name,) = datasets.listed(dataset)
    accepted = datasets.items.GetItem(GetItemRequest(name=name)).accepted
    assert list(accepted.annotators) == [f"{PROJECT}/members/ada"]


def test_labels_that_contradict_accepted_ones_are_rejected_by_name(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    operation = datasets.begin_import(dataset, {"car/1.jpg": b"1EXIF in May", "van/1.jpg": b"1EXIF in June"})
    assert a_worker(datasets, Ingest()).step()
    answer = answer_of(datasets, operation)
    assert labels_in(datasets, dataset) == [["car"]]
    assert (answer.added_count, answer.duplicate_count, answer.rejected_count) == (1, 0, 1)
    assert "van/1.jpg: already exists" in answer.rejections[0]
    assert "labelled car, but van in the archive" in answer.rejections[0]


def test_a_long_operation_keeps_its_lease(datasets: Datasets) -> None:
    datasets.begin_import(datasets.a_dataset(), photographs(1))
    intruders: list[bool] = []

    def take_long(call: int) -> None:
        for _ in range(2):
            datasets.advance(LEASE_DURATION * 0.9)
            wanted, deadline = datasets.store.clock.now() + LEASE_DURATION, time.monotonic() + 10
            while datasets.lease_expire_time() < wanted and time.monotonic() < deadline:
                pass
            intruders.append(a_worker(datasets, Ingest()).step())

    assert a_worker(datasets, Ingest(take_long), heartbeat=timedelta(milliseconds=5)).step()
    assert intruders == [False, False]


def test_a_stopping_service_releases_its_operations_immediately(datasets: Datasets) -> None:
    operation = datasets.begin_import(datasets.a_dataset(), photographs(MANY))
    worker = a_worker(datasets, Ingest(lambda call: worker.stop()))
    assert worker.step()
    assert not datasets.operation(operation).done
    assert a_worker(datasets, Ingest()).step()
    assert answer_of(datasets, operation).added_count == MANY


def test_an_export_that_crashes_repeatedly_is_failed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    request = ExportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_COCO)
    operation = datasets.datasets.ExportDataset(request).name

    def die(claim: Claim) -> Message:
        with datasets.store.postgres.transaction() as connection:
            claim.advance(connection, OperationProgress(1, 2))
        raise Killed

    for _ in range(ATTEMPTS_MAX + 1):
        with pytest.raises(Killed):
            Operations(datasets.store, {EXPORT: die}).step()
        datasets.advance(LEASE_DURATION * 2)
    assert Operations(datasets.store, {EXPORT: die}).step()
    assert "the process that executed it crashed" in datasets.operation(operation).error.message


@pytest.mark.parametrize("layout", [ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, ArchiveFormat.ARCHIVE_FORMAT_COCO])
def test_an_export_without_labels_fails_with_its_reason(datasets: Datasets, layout: ArchiveFormat.ValueType) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1))
    operation = datasets.datasets.ExportDataset(ExportDatasetRequest(name=dataset, format=layout)).name
    assert a_worker(datasets, Ingest()).step()
    error = datasets.operation(operation).error
    assert (error.code, "no item is labelled" in error.message) == (FAILED_PRECONDITION, True)


def test_an_image_missing_from_its_archive_is_rejected_by_name(datasets: Datasets) -> None:
    told = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in (1, 2)],
        "categories": [{"id": 1, "name": "van"}],
        "annotations": [],
    }
    files = {"annotations/instances_train.json": json.dumps(told).encode(), "images/1.png": b"1"}
    operation = datasets.begin_import(datasets.a_dataset(), files, ArchiveFormat.ARCHIVE_FORMAT_COCO)
    assert a_worker(datasets, Ingest()).step()
    answer = answer_of(datasets, operation)
    assert (answer.added_count, answer.rejected_count) == (1, 1)
    assert list(answer.rejections) == ["images/2.png: is referenced by the archive but not in it"]


def test_files_that_are_deleted_during_an_import_are_unpacked_again_and_none_is_rejected(
    datasets: Datasets, tmp_path: Path
) -> None:
    dataset = datasets.a_dataset()
    operation = datasets.begin_import(dataset, photographs(MANY))

    def delete(call: int) -> None:
        if call == 1:
            shutil.rmtree(tmp_path / "work")

    worker = a_worker(datasets, Ingest(delete), work_folder=tmp_path / "work")
    assert worker.step()
    assert not datasets.operation(operation).done
    datasets.advance(timedelta(minutes=1))
    assert worker.step()
    answer = answer_of(datasets, operation)
    assert (answer.added_count, answer.rejected_count) == (MANY, 0)
    assert list((tmp_path / "work").iterdir()) == []


def test_an_operation_without_a_work_folder_fails_with_its_reason(datasets: Datasets, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    operation = datasets.begin_import(datasets.a_dataset(), photographs(1))
    assert a_worker(datasets, Ingest(), work_folder=tmp_path / "file").step()
    found = datasets.operation(operation)
    assert (found.done, found.error.code) == (True, FAILED_PRECONDITION)
    assert "VESTA_DATASETS_WORK_FOLDER" in found.error.message


def test_a_deleted_work_folder_causes_another_attempt(tmp_path: Path) -> None:
    def lose() -> None:
        with scratch_folder(tmp_path / "work", "x-"):
            shutil.rmtree(tmp_path / "work")
            raise ValueError("cannot be unpacked")

    with pytest.raises(Unavailable) as lost:
        lose()
    assert lost.value.reason == "SCRATCH_FOLDER_LOST"
    with pytest.raises(FailedPrecondition) as refused:
        scratch_folder(Path("/dev/null"), "x-").__enter__()
    assert refused.value.reason == "SCRATCH_FOLDER_UNUSABLE"


def test_items_whose_names_differ_only_in_the_suffix_are_exported_separately(
    datasets: Datasets, tmp_path: Path
) -> None:
    dataset = datasets.a_dataset()
    for file_name, concept in (("a.gif", "van"), ("a.png", "car")):
        media, picture = a_medium(0), a_png(concept)
        media.sha256, media.perceptual_hash = hashlib.sha256(picture).hexdigest(), 0
        media.object_key, media.mime_type = f"media/{media.sha256}", "image/png"
        media.provenance.file_name = file_name
        datasets.objects.put_named(media.object_key, picture)
        datasets.add(dataset, media, labels=(concept,))
    layout = ArchiveFormat.ARCHIVE_FORMAT_COCO
    operation = datasets.datasets.ExportDataset(ExportDatasetRequest(name=dataset, format=layout)).name
    assert a_worker(datasets, Ingest()).step()
    told, archive = ExportDatasetResponse(), tmp_path / "out.zip"
    assert datasets.operation(operation).response.Unpack(told)
    datasets.objects.download(told.archive_key, archive)
    found = {item.path.read_bytes(): item.annotations for item in unpack(archive, tmp_path / "in", layout)}
    assert found == {a_png(concept): says(concept) for concept in ("van", "car")}


def test_an_item_with_shapes_alone_is_exported_with_them(datasets: Datasets, tmp_path: Path) -> None:
    dataset = datasets.a_dataset()
    stored, media = datasets.objects.put("media", a_png("van")), a_medium(1)
    media.sha256, media.object_key, media.mime_type = stored.sha256, stored.key, "image/png"
    (item,) = datasets.add(dataset, media)
    box = Annotation(concept="car", box=PixelBox(x_min_px=1, y_min_px=2, x_max_px=9, y_max_px=8))
    entry = ItemAnnotations(item=item.name, annotations=[box])
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))
    layout = ArchiveFormat.ARCHIVE_FORMAT_COCO
    operation = datasets.datasets.ExportDataset(ExportDatasetRequest(name=dataset, format=layout)).name
    assert a_worker(datasets, Ingest()).step()
    told, archive = ExportDatasetResponse(), tmp_path / "out.zip"
    assert datasets.operation(operation).response.Unpack(told), datasets.operation(operation).error
    datasets.objects.download(told.archive_key, archive)
    assert [found.annotations for found in unpack(archive, tmp_path / "in", layout)] == [[box]]


def test_an_export_that_its_layout_cannot_contain_fails_with_its_reason(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1), labels=())
    datasets.objects.put_named(a_medium(1).object_key, b"1")
    request = ExportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER)
    operation = datasets.datasets.ExportDataset(request).name
    assert a_worker(datasets, Ingest()).step()
    error = datasets.operation(operation).error
    assert item.name.rpartition("/")[2] in error.message
    assert "COCO" in error.message
    assert error.code == FAILED_PRECONDITION
