"""Reads the manifests of snapshots: an index of parts, each a Parquet file. docs/snapshot-manifest.md describes both.

Memory is bounded by a few parts, or by a batch of rows if the manifest is a single file, as earlier versions wrote them.
"""

import json
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from vesta_common.errors import DataLoss, NotFound
from vesta_common.storage.objects import ObjectStore

FORMAT: Final = "vesta.snapshot.manifest.v2"
FORMAT_OF_ONE_FILE: Final = "vesta.snapshot.manifest.v1"
BATCH_ROWS: Final = 4096
PARTS_AHEAD: Final = 2
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a manifest: the rows of consecutive items.

    Attributes:
        key: of the Parquet file.
        digest: SHA-256 of the rows; empty for a manifest that is a single file.
        first_item, last_item: resource names, both included; empty for a manifest that is a single file.
        statistics: counts of the rows, which add up to those of the snapshot.
    """

    key: str
    digest: str
    first_item: str
    last_item: str
    item_count: int
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a snapshot.

    Attributes:
        digest: of the snapshot.
        parts: in the order of the names of their items. No two have an item in common.
    """

    digest: str
    parts: tuple[Part, ...]

    def to_json(self) -> bytes:
        """Returns the index. Equal manifests have equal bytes."""
        content = {"format": FORMAT, "digest": self.digest, "parts": [asdict(part) for part in self.parts]}
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def read_manifest(objects: ObjectStore, key: str) -> Manifest:
    """Returns the manifest that is stored under a key. A manifest that is a single Parquet file is its own only part.

    Raises:
        DataLoss: MANIFEST_UNREADABLE, the object is missing or is not a manifest; OBJECT_CORRUPT, it does not match its hash.
    """
    with _downloaded(objects, key) as path:
        with path.open("rb") as file:
            is_parquet = file.read(len(_PARQUET)) == _PARQUET
        try:
            return _of_one_file(key, path) if is_parquet else _of_index(path.read_bytes())
        except (ValueError, TypeError, KeyError, pa.ArrowException) as error:
            raise _unreadable(key, f"is not a manifest ({error})") from error


def read_rows(objects: ObjectStore, parts: Iterable[Part], columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Yields the rows of parts in order, as batches of at most `BATCH_ROWS` rows: values by column.

    Raises:
        DataLoss: MANIFEST_UNREADABLE, a part is missing or cannot be read; OBJECT_CORRUPT, it does not match its hash.
    """
    for batch in read_batches(objects, parts, columns):
        yield batch.to_pydict()


def read_batches(objects: ObjectStore, parts: Iterable[Part], columns: Sequence[str]) -> Generator[pa.RecordBatch]:
    """Yields the rows of parts as `read_rows` does, as Arrow batches, none of which is empty."""
    with closing(_contents(objects, parts)) as contents:
        for part, content in contents:
            if content is not None:
                yield from read_file(pa.BufferReader(content), columns, part.key)
                continue
            with _downloaded(objects, part.key) as path:
                yield from read_file(path, columns, part.key)


def read_file(file: Path | pa.BufferReader, columns: Sequence[str], key: str) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the file of a part, as `read_batches` does.

    Args:
        key: of the part, for errors.
    """
    try:
        with pq.ParquetFile(file, pre_buffer=False) as content:
            for batch in content.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                if len(batch):
                    yield batch.select(list(columns))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise _unreadable(key, f"cannot be read ({error})") from error


def _contents(objects: ObjectStore, parts: Iterable[Part]) -> Generator[tuple[Part, bytes | None]]:
    """Yields each part with its content, and requests the next ones meanwhile; None for a manifest that is a single file."""
    with ThreadPoolExecutor(PARTS_AHEAD, "manifest-parts") as pool:
        requested: deque[tuple[Part, Future[bytes] | None]] = deque()
        try:
            for part in parts:
                requested.append((part, pool.submit(_content, objects, part.key) if part.digest else None))
                if len(requested) > PARTS_AHEAD:
                    yield _received(*requested.popleft())
            while requested:
                yield _received(*requested.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _received(part: Part, content: Future[bytes] | None) -> tuple[Part, bytes | None]:
    return part, content.result() if content is not None else None


def _content(objects: ObjectStore, key: str) -> bytes:
    try:
        return objects.get(key)
    except NotFound as error:
        raise _unreadable(key, "is missing") from error


@contextmanager
def _downloaded(objects: ObjectStore, key: str) -> Iterator[Path]:
    """Downloads an object to a temporary file, which is deleted on exit."""
    with tempfile.TemporaryDirectory(prefix="vesta-manifest-") as folder:
        path = Path(folder) / "object"
        try:
            objects.download(key, path)
        except NotFound as error:
            raise _unreadable(key, "is missing") from error
        yield path


def _of_index(content: bytes) -> Manifest:
    index = json.loads(content)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    return Manifest(index["digest"], tuple(Part(**part) for part in index["parts"]))


def _of_one_file(key: str, path: Path) -> Manifest:
    with pq.ParquetFile(path) as file:
        described = file.schema_arrow.metadata or {}
        digest = described.get(b"digest", b"").decode()
        return Manifest(digest, (Part(key, "", "", "", file.metadata.num_rows),))


def _unreadable(key: str, what: str) -> DataLoss:
    return DataLoss(
        f"the object {key} of a snapshot {what}; restore it from a backup, or create another snapshot",
        reason="MANIFEST_UNREADABLE",
        metadata={"key": key},
    )
