"""What is to be read of a source, and in which batches. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vesta_connection.sources.listing import SourceFile

BATCH_FILES = 64
BATCH_BYTES = 64 * 1024 * 1024
FILE_BYTES_GUESS = 8 * 1024 * 1024  # where the store does not say; it may be four times that


@dataclass(frozen=True)
class Known:
    """What is remembered of a file: its fingerprint when it was last handled, empty if it could not be read, and by which sync."""

    fingerprint: str
    sync: str


@dataclass
class Listing:
    """Counts a source's files while they are listed.

    Attributes:
        found_count: files seen so far.
        unchanged_count: those that an earlier sync handled and that are as they were.
        to_read: those that this sync must read.
    """

    sync: str
    known: Mapping[str, Known]
    found_count: int = 0
    unchanged_count: int = 0
    to_read: list[SourceFile] = field(default_factory=list)

    def add(self, file: SourceFile) -> None:
        """Decides about one file: new and changed ones are read; those this very sync has handled before it was killed are not."""
        self.found_count += 1
        known = self.known.get(file.file_name)
        if known is not None and known.sync == self.sync:
            return
        if known is None or known.fingerprint != file.fingerprint:
            self.to_read.append(file)
        else:
            self.unchanged_count += 1


def in_batches(files: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
    """Cuts files into batches that are small enough to keep in memory."""
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
