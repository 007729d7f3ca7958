"""The work of import and export operations, in batches. After a crash only one batch is repeated, and nothing is counted twice."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from vesta_common.errors import InvalidArgument
from vesta_common.media.image_formats import IMAGE_BYTES_MAX
from vesta_common.resources.names import project_of
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.connection.v1 import IngestedMedia, IngestMediaRequest, MediaFile, MediaServiceStub
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    ExportDatasetRequest,
    ExportDatasetResponse,
    ImportDatasetRequest,
    ImportDatasetResponse,
    NewItem,
    Split,
)

from vesta_datasets.archives.archives import pack, unpack
from vesta_datasets.archives.layout import ArchivedItem
from vesta_datasets.archives.scratch_folders import scratch_folder
from vesta_datasets.ingest.add_items import add_items
from vesta_datasets.items.annotations import concepts_of, same_annotations
from vesta_datasets.operations.worker import Claim
from vesta_datasets.snapshots.manifest import ManifestRow, read_manifest
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
        taken = self._take(request, batch, only_named)

        def keep(connection: Connection) -> ImportDatasetResponse:
            updated = ImportDatasetResponse()
            updated.CopyFrom(response)
            for entry, found in zip(batch, taken, strict=True):
                self._add(
                    connection, request.name, claim.operation.caller, entry, found, updated, reviewed=request.reviewed
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
            wanted = IngestMediaRequest(parent=project_of(request.name), files=files)
            results = iter(self._media.IngestMedia(wanted, timeout=INGEST_TIMEOUT_SECONDS).results)
        return [next(results) if rejection is None else rejection for rejection in rejected]

    def _add(
        self,
        connection: Connection,
        dataset: str,
        annotator: str,
        entry: ArchivedItem,
        found: IngestedMedia,
        response: ImportDatasetResponse,
        *,
        reviewed: bool,
    ) -> None:
        """Adds an image to the dataset, or a rejection to the response.

        An existing item with different accepted annotations is a rejection too.
        """
        if found.reason:
            _reject(response, entry.file_name, found.message)
            return
        try:
            with connection.transaction():
                (created,) = add_items(
                    self._store, connection, dataset, [_new_item(entry, found, reviewed=reviewed)], annotator
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

    def __init__(self, store: Store, objects: ObjectStore, work_folder: Path | None = None) -> None:
        self._store = store
        self._objects = objects
        self._work_folder = work_folder

    def __call__(self, claim: Claim, /) -> ExportDatasetResponse:
        """Writes the archive, and returns its key and size."""
        request = ExportDatasetRequest.FromString(claim.operation.request)
        annotated, concepts = self._annotated(request)
        with scratch_folder(self._work_folder, "vesta-export-") as scratch:
            entries = []
            for done, row in enumerate(annotated):
                if done % BATCH_FILES_MAX == 0:
                    claim.check()
                    with self._store.postgres.transaction() as connection:
                        claim.advance(connection, OperationProgress(done, len(annotated)))
                entries.append(self._fetched(row, scratch))
            archive = pack(entries, concepts, request.format, scratch / "out")
            key = f"{archive_folder(request.name)}/{claim.operation.name.rpartition('/')[2]}.zip"
            stored = self._objects.put_named(key, archive)
        return ExportDatasetResponse(archive_key=key, item_count=len(entries), size_bytes=stored.size_bytes)

    def _annotated(self, request: ExportDatasetRequest) -> tuple[list[ManifestRow], list[str]]:
        """Returns the items to export, and the concepts: those of the taxonomy, then any others that the items have."""
        with self._store.postgres.transaction() as connection:
            dataset = self._store.datasets.get(connection, request.name, counted=False)
            taxonomy = self._store.taxonomies.get(connection, dataset.taxonomy)
            snapshot = self._store.snapshots.get(connection, request.snapshot) if request.snapshot else None
        if snapshot:
            rows = read_manifest(self._objects.get(snapshot.manifest_key))
        else:
            rows = self._store.snapshots.read_manifest_rows(request.name)
        annotated = [row for row in rows if row.annotated]
        used = {concept for row in annotated for concept in concepts_of(_annotations_of(row))}
        return annotated, list(dict.fromkeys([*(concept.id for concept in taxonomy.concepts), *sorted(used)]))

    def _fetched(self, row: ManifestRow, folder: Path) -> ArchivedItem:
        """Downloads the image of an item to the folder."""
        suffix = ".png" if row.mime_type == "image/png" else ".jpg"
        path = folder / f"{row.name.rpartition('/')[2]}{suffix}"
        path.write_bytes(self._objects.get(row.object_key, sha256=row.sha256))
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


def _new_item(entry: ArchivedItem, found: IngestedMedia, *, reviewed: bool) -> NewItem:
    split = Split.Value(f"SPLIT_{entry.split}") if entry.split else Split.SPLIT_UNSPECIFIED
    annotations = None if entry.annotations is None else AnnotationList(annotations=entry.annotations)
    return NewItem(media=found.media, split=split, annotations=annotations, reviewed=reviewed)


def _differs(item: str, accepted: Iterable[Annotation], imported: Iterable[Annotation]) -> str:
    """Returns the message of a rejection because the item has other accepted annotations."""
    here, there = (", ".join(concepts_of(one)) or "none of the concepts" for one in (accepted, imported))
    difference = f"labelled {here}, but {there} in the archive" if here != there else "with different accepted shapes"
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
