"""Imports and exports: kept as operations, worked on by whoever claims them, taken up again after a kill."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from google.longrunning import operations_pb2
from google.rpc import code_pb2, status_pb2
from vesta_common.errors import InvalidArgument, VestaError, is_transient
from vesta_common.ids import new_id
from vesta_common.names import project_of
from vesta_common.objects import ObjectStore
from vesta_common.postgres import Connection
from vesta_common.resources import existing
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.connection.v1 import IngestMediaRequest, MediaFile, MediaServiceStub
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    Dataset,
    ExportDatasetRequest,
    ExportDatasetResponse,
    ImportDatasetRequest,
    ImportDatasetResponse,
    NewItem,
    Split,
    TransferProgress,
)

from vesta_datasets.adding import add_items
from vesta_datasets.archived import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives import pack, unpack
from vesta_datasets.manifest import read_manifest
from vesta_datasets.store import Store, queries

IMPORT = "import"
EXPORT = "export"
ARCHIVE_BYTES_MAX = 16 * 1024**3
BATCH_FILES_MAX = 32
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Of the files of one call: half of what a gRPC message may have."""
FILE_BYTES_MAX = 32 * 1024 * 1024
FILE_NAME_LENGTH_MAX = 1024
REFUSALS_KEPT = 100
LEASE = timedelta(minutes=2)
ATTEMPTS_MAX = 8
RETRY_FIRST = timedelta(seconds=5)
RETRY_MAX = timedelta(minutes=2)
INGEST_TIMEOUT_SECONDS = 120.0

log = structlog.get_logger()


def archive_folder(name: str) -> str:
    """Where a project's archives lie."""
    return f"archives/{project_of(name).partition('/')[2]}"


class Operations:
    """Keeps and works on operations. Any number of replicas may."""

    def __init__(self, store: Store, objects: ObjectStore, media: MediaServiceStub) -> None:
        self._store = store
        self._objects = objects
        self._media = media
        self.wake: Callable[[], None] = lambda: None

    def owns(self, name: str, archive_key: str) -> bool:
        """Whether the archive is there and belongs to the project of `name`."""
        return (
            archive_key.startswith(f"{archive_folder(name)}/")
            and ".." not in archive_key
            and self._objects.exists(archive_key)
        )

    def begin(self, connection: Connection, kind: str, name: str, request: Any) -> operations_pb2.Operation:
        """Queues an operation."""
        operation = f"{project_of(name)}/operations/{new_id()}"
        queries.insert_operation(
            connection, name=operation, kind=kind, request=request.SerializeToString(), now=self._store.clock.now()
        )
        return self.get(connection, operation)

    def get(self, connection: Connection, name: str) -> operations_pb2.Operation:
        """An operation as it stands. Raises NotFound."""
        row = existing(queries.find_operation(connection, name=name), name)
        operation = operations_pb2.Operation(name=name, done=row["done"])
        operation.metadata.Pack(TransferProgress(done_count=row["done_count"], total_count=row["total_count"]))
        if row["error"]:
            code = code_pb2.Code.Value(row["error_code"])
            operation.error.CopyFrom(status_pb2.Status(code=code, message=row["error"]))
        elif row["done"]:
            kind = ImportDatasetResponse if row["kind"] == IMPORT else ExportDatasetResponse
            operation.response.Pack(kind.FromString(bytes(row["response"])))
        return operation

    def step(self) -> bool:
        """Works on one operation, to its end or its next attempt; False where there is none."""
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            row = queries.claim_operation(connection, now=now, lease_expire_time=now + LEASE)
        if row is None:
            return False
        if row["attempt_count"] > ATTEMPTS_MAX:
            self._give_up(row)
            return True
        try:
            if row["kind"] == IMPORT:
                answer: Any = self._import(row["name"], ImportDatasetRequest.FromString(bytes(row["request"])))
            else:
                answer = self._export(row["name"], ExportDatasetRequest.FromString(bytes(row["request"])))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            code = _final_code(error)
            if code is None:
                self._postpone(row, error)
            else:
                log.info("operation_failed", operation=row["name"], error=str(error))
                self._end(row["name"], b"", str(error), code)
        else:
            self._end(row["name"], answer.SerializeToString())
        return True

    def _postpone(self, row: dict[str, Any], error: Exception) -> None:
        log.warning("operation_postponed", operation=row["name"], attempt=row["attempt_count"], exc_info=error)
        rest = min(RETRY_FIRST * 2 ** (row["attempt_count"] - 1), RETRY_MAX)
        with self._store.postgres.transaction() as connection:
            queries.postpone_operation(
                connection, name=row["name"], retry_time=self._store.clock.now() + rest, last_error=str(error)
            )

    def _give_up(self, row: dict[str, Any]) -> None:
        last = row["last_error"] or "the process that worked on it died"
        log.warning("operation_given_up", operation=row["name"], last_error=last)
        why = f"given up after {ATTEMPTS_MAX} attempts that got no further; the last one ended so: {last}"
        self._end(row["name"], b"", f"{why}. Mend that, or ask an operator to, and ask for it again", "ABORTED")

    def _import(self, operation: str, request: ImportDatasetRequest) -> ImportDatasetResponse:
        answer = ImportDatasetResponse()
        with tempfile.TemporaryDirectory(prefix="vesta-import-") as scratch:
            archive = Path(scratch) / "archive.zip"
            self._objects.download(request.archive_key, archive)
            items = unpack(archive, Path(scratch) / "files", request.format)
            done = 0
            for batch in _in_batches(items):
                self._import_batch(request, batch, answer)
                done += len(batch)
                self._advance(operation, done, len(items))
        return answer

    def _import_batch(
        self, request: ImportDatasetRequest, batch: Sequence[ArchivedItem], answer: ImportDatasetResponse
    ) -> None:
        small = [entry for entry in batch if entry.path.stat().st_size <= FILE_BYTES_MAX]
        for entry in batch:
            if entry not in small:
                _refuse(answer, entry.file_name, f"has more than {FILE_BYTES_MAX} bytes")
        files = [
            MediaFile(file_name=entry.file_name[-FILE_NAME_LENGTH_MAX:], data=entry.path.read_bytes())
            for entry in small
        ]
        if not files:
            return
        taken = self._media.IngestMedia(
            IngestMediaRequest(parent=project_of(request.name), files=files), timeout=INGEST_TIMEOUT_SECONDS
        )
        for entry, found in zip(small, taken.results, strict=True):
            if found.reason:
                _refuse(answer, entry.file_name, found.message)
                continue
            item = NewItem(
                media=found.media, split=Split.Value(f"SPLIT_{entry.split}") if entry.split else Split.SPLIT_UNSPECIFIED
            )
            if entry.annotations is not None:
                item.annotations.CopyFrom(AnnotationList(annotations=entry.annotations))
            try:
                created = self._store.postgres.run(
                    lambda connection, item=item: add_items(self._store, connection, request.name, [item], "")  # type: ignore[misc]
                )
            except InvalidArgument as error:
                _refuse(answer, entry.file_name, str(error))
                continue
            if created[0].existed:
                answer.duplicate_count += 1
            else:
                answer.added_count += 1

    def _export(self, operation: str, request: ExportDatasetRequest) -> ExportDatasetResponse:
        with self._store.postgres.transaction() as connection:
            dataset: Dataset = self._store.get_dataset(connection, request.name, counted=False)
            taxonomy = self._store.get_taxonomy(connection, dataset.taxonomy)
            snapshot = self._store.get_snapshot(connection, request.snapshot) if request.snapshot else None
            rows = [] if snapshot else self._store.manifest_rows(connection, request.name)
        if snapshot:
            rows = read_manifest(self._objects.get(snapshot.manifest_key))
        labelled = [row for row in rows if row.labels is not None]
        with tempfile.TemporaryDirectory(prefix="vesta-export-") as scratch:
            entries = []
            for done, row in enumerate(labelled):
                suffix = ".png" if row.mime_type == "image/png" else ".jpg"
                path = Path(scratch) / f"{row.name.rpartition('/')[2]}{suffix}"
                path.write_bytes(self._objects.get(row.object_key, sha256=row.sha256))
                annotations: list[Annotation] = list(AnnotationList.FromString(row.annotations).annotations)
                entries.append(ArchivedItem(path.name, path, row.split, annotations, row.width_px, row.height_px))
                if done % BATCH_FILES_MAX == 0:
                    self._advance(operation, done, len(labelled))
            concepts = dict.fromkeys(concept.id for concept in taxonomy.concepts)
            concepts |= dict.fromkeys(sorted({label for row in labelled for label in row.labels or ()}))
            archive = pack(entries, list(concepts), request.format, Path(scratch) / "out")
            key = f"{archive_folder(request.name)}/{new_id()}.zip"
            stored = self._objects.put_named(key, archive)
        return ExportDatasetResponse(archive_key=key, item_count=len(entries), size_bytes=stored.size_bytes)

    def _advance(self, operation: str, done: int, total: int) -> None:
        with self._store.postgres.transaction() as connection:
            queries.advance_operation(
                connection,
                name=operation,
                done_count=done,
                total_count=total,
                lease_expire_time=self._store.clock.now() + LEASE,
            )

    def _end(self, operation: str, response: bytes, error: str = "", error_code: str = "OK") -> None:
        with self._store.postgres.transaction() as connection:
            queries.end_operation(connection, name=operation, response=response, error=error, error_code=error_code)


def _final_code(error: Exception) -> str | None:
    """The name of the code that an operation ends with for this error; None where another attempt may go better."""
    if isinstance(error, UnreadableArchiveError):
        return "INVALID_ARGUMENT"
    return error.code.name if isinstance(error, VestaError) and not is_transient(error) else None


def _refuse(answer: ImportDatasetResponse, file_name: str, why: str) -> None:
    answer.refused_count += 1
    if len(answer.refusals) < REFUSALS_KEPT:
        answer.refusals.append(f"{file_name}: {why}")


def _in_batches(items: Iterable[ArchivedItem]) -> Iterator[list[ArchivedItem]]:
    """The items in order, so many together as fit into one call."""
    batch: list[ArchivedItem] = []
    size_bytes = 0
    for item in items:
        item_bytes = item.path.stat().st_size
        if batch and (len(batch) == BATCH_FILES_MAX or size_bytes + item_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item_bytes
    if batch:
        yield batch
