"""The work of import and export operations, in batches. After a crash only one batch is repeated, and nothing is counted twice."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from vesta_common.errors import InvalidArgument
from vesta_common.manifests import read_manifest, read_rows
from vesta_common.media.task_types import allowed_annotations
from vesta_common.prefetch import prefetched
from vesta_common.resources.names import project_of
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.connection.v1 import IngestedMedia, MediaServiceStub
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    Dataset,
    ExportDatasetRequest,
    ExportDatasetResponse,
    ImportDatasetRequest,
    ImportDatasetResponse,
    NewItem,
    Snapshot,
    Split,
)

from vesta_datasets.archives.archives import check, open_archive, pack
from vesta_datasets.archives.layout import ArchivedItem
from vesta_datasets.archives.scratch_folders import scratch_folder
from vesta_datasets.ingest.add_items import Added, add_valid_items
from vesta_datasets.items.annotations import concepts_of, same_annotations
from vesta_datasets.items.splits import Shares
from vesta_datasets.operations.converted import converted_to
from vesta_datasets.operations.incoming import IncomingFiles, Ingested
from vesta_datasets.operations.worker import Claim
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.snapshots.manifest import COLUMNS, ManifestRow, rows_of
from vesta_datasets.store import Store
from vesta_datasets.store.operations import OperationProgress
from vesta_datasets.task_types import task_type_of

ARCHIVES = "archives"
ARCHIVE_BYTES_MAX = 16 * 1024**3
REJECTIONS_MAX = 100
PROGRESS_ITEMS = 32
"""How many items an export writes between two updates of its progress."""


def archive_folder(name: str) -> str:
    """Returns the key prefix of the archives of a project."""
    return f"{ARCHIVES}/{project_of(name).partition('/')[2]}"


def owns(objects: ObjectStore, name: str, archive_key: str) -> bool:
    """Whether the archive exists and belongs to the project of `name`."""
    return (
        archive_key.startswith(f"{archive_folder(name)}/") and ".." not in archive_key and objects.exists(archive_key)
    )


class Import:
    """Imports an archive in batches. The items of a batch and the progress of the operation are committed in one transaction.

    The files of the next batch are ingested while a batch is committed.
    """

    def __init__(
        self, store: Store, objects: ObjectStore, media: MediaServiceStub, work_folder: Path | None = None
    ) -> None:
        self._store = store
        self._objects = objects
        self._incoming = IncomingFiles(store, media)
        self._work_folder = work_folder

    def __call__(self, claim: Claim, /) -> ImportDatasetResponse:
        """Imports the remaining items, and returns the totals of this and all previous attempts."""
        request = ImportDatasetRequest.FromString(claim.operation.request)
        response = ImportDatasetResponse.FromString(claim.operation.response)
        with (
            scratch_folder(self._work_folder, "vesta-import-") as scratch,
            ThreadPoolExecutor(1, thread_name_prefix="import") as thread,
        ):
            archive = scratch / "archive.zip"
            self._objects.download(request.archive_key, archive)
            with self._store.postgres.transaction() as connection:
                dataset = self._store.datasets.get(connection, request.name, counted=False)
            task = task_type_of(dataset)
            shapes = allowed_annotations(dataset.task_type).shapes
            opened = open_archive(archive, scratch / "files", request.format, shapes)
            done = claim.operation.done_count
            for batch in prefetched(self._incoming.batches(request.name, opened, done), thread):
                claim.check()
                done += len(batch)
                converted = [converted_to(task, ingested) for ingested in batch]
                response = self._import_batch(
                    claim, request, converted, response, OperationProgress(done, len(opened.items))
                )
        return response

    def _import_batch(
        self,
        claim: Claim,
        request: ImportDatasetRequest,
        batch: Sequence[Ingested],
        response: ImportDatasetResponse,
        progress: OperationProgress,
    ) -> ImportDatasetResponse:
        """Imports a batch and commits it with the updated response, which is returned."""
        new_items = [
            _new_item(entry, result, reviewed=request.reviewed) for entry, result, _ in batch if not result.reason
        ]
        known = {result.media.sha256 for _, result, is_known in batch if is_known}

        def keep(connection: Connection) -> ImportDatasetResponse:
            updated = ImportDatasetResponse()
            updated.CopyFrom(response)
            added = iter(
                add_valid_items(self._store, connection, request.name, new_items, claim.operation.caller, known)
            )
            for entry, result, _ in batch:
                why = result.message if result.reason else _count(updated, entry, next(added))
                if why:
                    _reject(updated, entry.file_name, why)
            claim.advance(connection, progress, updated.SerializeToString())
            return updated

        return self._store.postgres.run(keep)


class Export:
    """Exports a dataset or a snapshot to an archive. A retry writes the whole archive again, under the same key."""

    def __init__(
        self, store: Store, objects: ObjectStore, writer: SnapshotWriter, work_folder: Path | None = None
    ) -> None:
        self._store = store
        self._objects = objects
        self._writer = writer
        self._work_folder = work_folder

    def __call__(self, claim: Claim, /) -> ExportDatasetResponse:
        """Writes the archive, and returns its key and size. Memory does not depend on the number of items."""
        request = ExportDatasetRequest.FromString(claim.operation.request)
        with self._store.postgres.transaction() as connection:
            dataset = self._store.datasets.get(connection, request.name, counted=False)
            taxonomy = self._store.taxonomies.get(connection, dataset.taxonomy)
            snapshot = self._store.snapshots.get(connection, request.snapshot) if request.snapshot else None
        with (
            scratch_folder(self._work_folder, "vesta-export-") as scratch,
            self._opened(dataset, snapshot) as annotated,
        ):
            count = 0
            used: set[str] = set()
            with closing(annotated()) as rows:
                for row in rows:
                    entry = _entry(row, scratch)
                    check(entry, request.format)
                    used.update(concepts_of(entry.annotations or ()))
                    count += 1
            keypoints = {concept.id: list(concept.keypoints) for concept in taxonomy.concepts}
            concepts = keypoints | {concept: [] for concept in sorted(used) if concept not in keypoints}
            with closing(annotated()) as rows, closing(self._fetched(claim, rows, count, scratch)) as entries:
                archive = pack(entries, concepts, request.format, scratch / "out")
            key = f"{archive_folder(request.name)}/{claim.operation.name.rpartition('/')[2]}.zip"
            stored = self._objects.put_named(key, archive)
        return ExportDatasetResponse(archive_key=key, item_count=count, size_bytes=stored.size_bytes)

    @contextmanager
    def _opened(self, dataset: Dataset, snapshot: Snapshot | None) -> Iterator[Callable[[], Generator[ManifestRow]]]:
        """Opens the items to export, of a snapshot or the current ones. The function can be called repeatedly."""

        def annotated(batches: Iterable[Mapping[str, Sequence[Any]]]) -> Generator[ManifestRow]:
            return (row for batch in batches for row in rows_of(batch) if row.annotated)

        if snapshot:
            parts = read_manifest(self._objects, snapshot.manifest_key).parts
            yield lambda: annotated(read_rows(self._objects, parts, COLUMNS))
        else:
            with self._writer.draft(dataset.name, Shares.of(dataset)) as draft:
                yield lambda: annotated(self._writer.rows(draft))

    def _fetched(self, claim: Claim, rows: Iterable[ManifestRow], count: int, scratch: Path) -> Generator[ArchivedItem]:
        """Yields each item with its image, which is deleted when the next item is requested."""
        for done, row in enumerate(rows):
            if done % PROGRESS_ITEMS == 0:
                claim.check()
                with self._store.postgres.transaction() as connection:
                    claim.advance(connection, OperationProgress(done, count))
            entry = _entry(row, scratch)
            entry.path.write_bytes(self._objects.get(row.object_key, sha256=row.sha256))
            yield entry
            entry.path.unlink()


def _entry(row: ManifestRow, folder: Path) -> ArchivedItem:
    path = folder / f"{row.name.rpartition('/')[2]}{'.png' if row.mime_type == 'image/png' else '.jpg'}"
    return ArchivedItem(path.name, path, row.split, _annotations_of(row), row.width_px, row.height_px)


def _annotations_of(row: ManifestRow) -> list[Annotation]:
    return list(AnnotationList.FromString(row.annotations).annotations)


def _count(response: ImportDatasetResponse, entry: ArchivedItem, added: Added | InvalidArgument) -> str:
    """Counts an image as added or existing. Returns the reason if it is rejected instead.

    An existing item with different accepted annotations is a rejection too.
    """
    if isinstance(added, InvalidArgument):
        return str(added)
    created, accepted = added
    if accepted and entry.annotations is not None and not same_annotations(accepted.annotations, entry.annotations):
        return _differs(created.name, accepted.annotations, entry.annotations)
    response.duplicate_count += created.already_existed
    response.added_count += not created.already_existed
    return ""


def _new_item(entry: ArchivedItem, ingested: IngestedMedia, *, reviewed: bool) -> NewItem:
    split = Split.Value(f"SPLIT_{entry.split}") if entry.split else Split.SPLIT_UNSPECIFIED
    annotations = None if entry.annotations is None else AnnotationList(annotations=entry.annotations)
    return NewItem(media=ingested.media, split=split, annotations=annotations, reviewed=reviewed)


def _differs(item: str, accepted: Iterable[Annotation], imported: Iterable[Annotation]) -> str:
    """Returns the message of a rejection because the item has other accepted annotations."""
    here, in_archive = (
        ", ".join(concepts_of(annotations)) or "none of the concepts" for annotations in (accepted, imported)
    )
    difference = (
        f"labelled {here}, but {in_archive} in the archive" if here != in_archive else "with different accepted shapes"
    )
    return f"already exists as {item}, {difference}; if the archive is right, correct the item"


def _reject(response: ImportDatasetResponse, file_name: str, why: str) -> None:
    response.rejected_count += 1
    if len(response.rejections) < REJECTIONS_MAX:
        response.rejections.append(f"{file_name}: {why}")
