"""Decides which files of a source a sync reads, and in which batches. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vesta_connection.sources.listing import SourceFile

BATCH_FILES = 64
BATCH_BYTES = 64 * 1024 * 1024
FILE_BYTES_GUESS = 8 * 1024 * 1024  # for files of unknown size, which may be up to four times as large


@dataclass(frozen=True)
class KnownFile:
    """A file of an earlier sync: its fingerprint when it was last processed, empty if it could not be read, and the sync's name."""

    fingerprint: str
    sync: str


@dataclass
class Listing:
    """Counts a source's files while they are listed.

    Attributes:
        found_count: files listed so far.
        unchanged_count: files that an earlier sync processed and that have not changed.
        to_read: files that this sync must read.
    """

    sync: str
    known: Mapping[str, KnownFile]
    found_count: int = 0
    unchanged_count: int = 0
    to_read: list[SourceFile] = field(default_factory=list)

    def add(self, file: SourceFile) -> None:
        """Adds a listed file. New and changed files are read, except those that this sync processed before it was killed."""
        self.found_count += 1
        known = self.known.get(file.file_name)
        if known is not None and known.sync == self.sync:
            return
        if known is None or known.fingerprint != file.fingerprint:
            self.to_read.append(file)
        else:
            self.unchanged_count += 1


def in_batches(files: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
    """Splits files into batches that fit into memory."""
    batch: list[SourceFile] = []
    size = 0
    for file in files:
        expected = file.size_bytes if file.size_bytes is not None else FILE_BYTES_GUESS
        if batch and (len(batch) == BATCH_FILES or size + expected > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += expected
    if batch:
        yield batch
