"""Ingests the files of an archive: known images are recognised by their hash, others are sent to the connection service."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vesta_common.media.image_formats import IMAGE_BYTES_MAX
from vesta_common.resources.names import project_of
from vesta_contracts.connection.v1 import IngestedMedia, IngestMediaRequest, MediaFile, MediaServiceStub

from vesta_datasets.archives.archives import OpenArchive
from vesta_datasets.archives.layout import ArchivedItem, sha256_of
from vesta_datasets.store import Store

BATCH_FILES_MAX = 32
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Size limit of the files of one call: half of the size limit of a gRPC message."""
BATCH_ITEMS_MAX = 512
FILE_NAME_LENGTH_MAX = 1024
INGEST_TIMEOUT_SECONDS = 120.0


class Ingested(NamedTuple):
    """An image of an archive with its media, or with the reason of its rejection.

    Attributes:
        is_known: whether the dataset had the image when it was looked up.
    """

    entry: ArchivedItem
    result: IngestedMedia
    is_known: bool = False


@dataclass(frozen=True)
class _File:
    """An image of an archive.

    Attributes:
        result: its media if the dataset has the image, or the reason of its rejection; None if the file must be ingested.
    """

    entry: ArchivedItem
    result: IngestedMedia | None
    size_bytes: int = 0


class IncomingFiles:
    """Ingests the files of archives that a dataset does not have yet."""

    def __init__(self, store: Store, media: MediaServiceStub) -> None:
        self._store = store
        self._media = media

    def batches(self, dataset: str, archive: OpenArchive, done_count: int) -> Iterator[list[Ingested]]:
        """Yields the images after the first `done_count`, in order, in batches that have at most one call to the connection service.

        Raises:
            OSError: a file was lost from the scratch folder.
            UnreadableArchiveError: the files cannot be unpacked.
        """
        only_named = {entry.path for entry in archive.items if not (entry.sha256 or entry.is_there)}
        remaining = islice(archive.items, done_count, None)
        while chunk := list(islice(remaining, BATCH_ITEMS_MAX)):
            recognised = self._recognise(dataset, chunk, only_named)
            if any(file.result is None for file in recognised):
                archive.unpack_files()
            for batch in _in_batches(map(_measured, recognised)):
                yield self._ingest(dataset, batch)

    def _recognise(self, dataset: str, entries: Sequence[ArchivedItem], only_named: Collection[Path]) -> list[_File]:
        rejected = [_rejection_of(entry, only_named) for entry in entries]
        hashes = [
            "" if rejection else entry.sha256 or sha256_of(entry.path)
            for entry, rejection in zip(entries, rejected, strict=True)
        ]
        with self._store.postgres.transaction() as connection:
            known = self._store.items.find_by_file(connection, dataset, [digest for digest in hashes if digest])
        return [
            _File(entry, IngestedMedia(media=known[digest]) if digest in known else rejection)
            for entry, rejection, digest in zip(entries, rejected, hashes, strict=True)
        ]

    def _ingest(self, dataset: str, batch: Sequence[_File]) -> list[Ingested]:
        """Sends the files that must be ingested to the connection service."""
        files = [
            MediaFile(file_name=file.entry.file_name[-FILE_NAME_LENGTH_MAX:], data=file.entry.path.read_bytes())
            for file in batch
            if file.result is None
        ]
        results: Iterator[IngestedMedia] = iter(())
        if files:
            request = IngestMediaRequest(parent=project_of(dataset), files=files)
            results = iter(self._media.IngestMedia(request, timeout=INGEST_TIMEOUT_SECONDS).results)
        return [
            Ingested(
                file.entry, file.result or next(results), is_known=file.result is not None and not file.result.reason
            )
            for file in batch
        ]


def _rejection_of(entry: ArchivedItem, only_named: Collection[Path]) -> IngestedMedia | None:
    """Returns a rejection for an image that is missing, or whose annotations cannot be read; None otherwise.

    Args:
        only_named: paths of files that the archive names but does not contain. Any other missing file was lost from the scratch folder.
    """
    if entry.flaw:
        return IngestedMedia(reason="ANNOTATION_INVALID", message=entry.flaw)
    if entry.path in only_named:
        return IngestedMedia(reason="FILE_UNREADABLE", message="is referenced by the archive but not in it")
    return None


def _measured(file: _File) -> _File:
    """Adds the size of a file that must be ingested, or its rejection if it is too large."""
    if file.result is not None:
        return file
    size_bytes = file.entry.path.stat().st_size
    if size_bytes > IMAGE_BYTES_MAX:
        why = f"has more than {IMAGE_BYTES_MAX} bytes"
        return _File(file.entry, IngestedMedia(reason="IMAGE_TOO_LARGE", message=why))
    return _File(file.entry, None, size_bytes)


def _in_batches(files: Iterable[_File]) -> Iterator[list[_File]]:
    """Splits the files, in order, into batches whose files to ingest are within the limits of one call."""
    batch: list[_File] = []
    sent_count = size_bytes = 0
    for file in files:
        is_sent = file.result is None
        if is_sent and (sent_count == BATCH_FILES_MAX or size_bytes + file.size_bytes > BATCH_BYTES_MAX) and batch:
            yield batch
            batch, sent_count, size_bytes = [], 0, 0
        batch.append(file)
        sent_count += is_sent
        size_bytes += file.size_bytes
    if batch:
        yield batch
