"""The work of import and export operations, in batches. After a crash only one batch is repeated, and nothing is counted twice."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from vesta_common.errors import InvalidArgument
from vesta_common.manifests import read_manifest, read_rows
from vesta_common.media.image_formats import IMAGE_BYTES_MAX
from vesta_common.resources.names import project_of
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.connection.v1 import IngestedMedia, IngestMediaRequest, MediaFile, MediaServiceStub
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

from vesta_datasets.archives.archives import check, pack, unpack
from vesta_datasets.archives.layout import ArchivedItem
from vesta_datasets.archives.scratch_folders import scratch_folder
from vesta_datasets.ingest.add_items import add_items
from vesta_datasets.items.annotations import concepts_of, same_annotations
from vesta_datasets.items.splits import Shares
from vesta_datasets.operations.worker import Claim
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.snapshots.manifest import COLUMNS, ManifestRow, rows_of
from vesta_datasets.store import Store
from vesta_datasets.store.operations import OperationProgress

ARCHIVES = "archives"
ARCHIVE_BYTES_MAX = 16 * 1024**3
BATCH_FILES_MAX = 32
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Size limit of the files of one call: half of the size limit of a gRPC message."""
FILE_NAME_LENGTH_MAX = 1024
REJECTIONS_MAX = 100
INGEST_TIMEOUT_SECONDS = 120.0


def archive_folder(name: str) -> str:
    """Returns the key prefix of the archives of a project."""
    return f"{ARCHIVES}/{project_of(name).partition('/')[2]}"


def owns(objects: ObjectStore, name: str, archive_key: str) -> bool:
    """Whether the archive exists and belongs to the project of `name`."""
    return (
        archive_key.startswith(f"{archive_folder(name)}/") and ".." not in archive_key and objects.exists(archive_key)
    )


class Import:
    """Imports an archive in batches. The items of a batch and the progress of the operation are committed in one transaction."""

    def __init__(
        self, store: Store, objects: ObjectStore, media: MediaServiceStub, work_folder: Path | None = None
    ) -> None:
        self._store = store
        self._objects = objects
        self._media = media
        self._work_folder = work_folder

    def __call__(self, claim: Claim, /) -> ImportDatasetResponse:
        """Imports the remaining items, and returns the totals of this and all previous attempts."""
        request = ImportDatasetRequest.FromString(claim.operation.request)
        response = ImportDatasetResponse.FromString(claim.operation.response)
        with scratch_folder(self._work_folder, "vesta-import-") as scratch:
            archive = scratch / "archive.zip"
            self._objects.download(request.archive_key, archive)
            items = unpack(archive, scratch / "files", request.format)
            only_named = {entry.path for entry in items if not entry.is_there}
            done = claim.operation.done_count
            for batch in _in_batches(items[done:]):
                claim.check()
                done += len(batch)
                response = self._import_batch(
                    claim, request, batch, only_named, response, OperationProgress(done, len(items))
                )
        return response

    def _import_batch(
        self,
        claim: Claim,
        request: ImportDatasetRequest,
        batch: Sequence[ArchivedItem],
        only_named: Collection[Path],
        response: ImportDatasetResponse,
        progress: OperationProgress,
    ) -> ImportDatasetResponse:
        """Imports a batch and commits it with the updated response, which is returned."""
        results = self._take(request, batch, only_named)

        def keep(connection: Connection) -> ImportDatasetResponse:
            updated = ImportDatasetResponse()
            updated.CopyFrom(response)
            for entry, ingested in zip(batch, results, strict=True):
                self._add(
                    connection,
                    request.name,
                    claim.operation.caller,
                    entry,
                    ingested,
                    updated,
                    reviewed=request.reviewed,
                )
            claim.advance(connection, progress, updated.SerializeToString())
            return updated

        return self._store.postgres.run(keep)

    def _take(
        self, request: ImportDatasetRequest, batch: Sequence[ArchivedItem], only_named: Collection[Path]
    ) -> list[IngestedMedia]:
        """Sends the files to the connection service. Returns for each file its media or the reason of its rejection."""
        rejected = [_rejection_of(entry, only_named) for entry in batch]
        files = [
            MediaFile(file_name=entry.file_name[-FILE_NAME_LENGTH_MAX:], data=entry.path.read_bytes())
            for entry, rejection in zip(batch, rejected, strict=True)
            if rejection is None
        ]
        results: Iterator[IngestedMedia] = iter(())
        if files:
            ingest_request = IngestMediaRequest(parent=project_of(request.name), files=files)
            results = iter(self._media.IngestMedia(ingest_request, timeout=INGEST_TIMEOUT_SECONDS).results)
        return [next(results) if rejection is None else rejection for rejection in rejected]

    def _add(
        self,
        connection: Connection,
        dataset: str,
        annotator: str,
        entry: ArchivedItem,
        ingested: IngestedMedia,
        response: ImportDatasetResponse,
        *,
        reviewed: bool,
    ) -> None:
        """Adds an image to the dataset, or a rejection to the response.

        An existing item with different accepted annotations is a rejection too.
        """
        if ingested.reason:
            _reject(response, entry.file_name, ingested.message)
            return
        try:
            with connection.transaction():
                (created,) = add_items(
                    self._store, connection, dataset, [_new_item(entry, ingested, reviewed=reviewed)], annotator
                )
        except InvalidArgument as error:
            _reject(response, entry.file_name, str(error))
            return
        if created.already_existed and entry.annotations is not None:
            accepted = self._store.items.get(connection, created.name).accepted.annotations
            if not same_annotations(accepted, entry.annotations):
                _reject(response, entry.file_name, _differs(created.name, accepted, entry.annotations))
                return
        response.duplicate_count += created.already_existed
        response.added_count += not created.already_existed


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
            concepts = list(dict.fromkeys([*(concept.id for concept in taxonomy.concepts), *sorted(used)]))
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
            if done % BATCH_FILES_MAX == 0:
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


def _rejection_of(entry: ArchivedItem, only_named: Collection[Path]) -> IngestedMedia | None:
    """Returns a rejection for an image that is missing or too large; None otherwise.

    Args:
        only_named: paths of files that the archive names but does not contain. Any other missing file was lost from the scratch folder.
    """
    if entry.path in only_named:
        return IngestedMedia(reason="FILE_UNREADABLE", message="is referenced by the archive but not in it")
    if entry.path.stat().st_size > IMAGE_BYTES_MAX:
        return IngestedMedia(reason="IMAGE_TOO_LARGE", message=f"has more than {IMAGE_BYTES_MAX} bytes")
    return None


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


def _in_batches(items: Iterable[ArchivedItem]) -> Iterator[list[ArchivedItem]]:
    """Splits the items, in order, into batches within the limits of one call."""
    batch: list[ArchivedItem] = []
    size_bytes = 0
    for item in items:
        item_bytes = item.path.stat().st_size if item.is_there else 0
        if batch and (len(batch) == BATCH_FILES_MAX or size_bytes + item_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item_bytes
    if batch:
        yield batch
