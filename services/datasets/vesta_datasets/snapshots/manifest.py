"""The manifest of a snapshot: a Parquet file with one row per item, and a digest of its content.

The digest is computed over the rows and not over the file, so that it depends neither on the row order nor on the version of the
Parquet library. Rows are written in order of their names. The file contains its digest, which is verified when it is read.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT: Final = "vesta.snapshot.manifest.v1"

_SCHEMA: Final = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("object_key", pa.string(), nullable=False),
        pa.field("mime_type", pa.string(), nullable=False),
        pa.field("width_px", pa.int32(), nullable=False),
        pa.field("height_px", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.field("element", pa.string(), nullable=False))),
        pa.field("annotations", pa.binary(), nullable=False),
        pa.field("annotators", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("reviewer", pa.string(), nullable=False),
        pa.field("reviewed", pa.bool_(), nullable=False),
        pa.field("control", pa.bool_(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("accept_time", pa.timestamp("us", tz="UTC")),
    ]
)


class DamagedManifestError(ValueError):
    """The bytes are not a manifest, or were modified. The message states which; the object must be restored."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """An item at the time of the snapshot.

    Args:
        name: resource name of the item.
        sha256: of the stored bytes, hexadecimal.
        object_key: of the stored bytes.
        mime_type: "image/jpeg" or "image/png".
        width_px: of the stored image.
        height_px: of the stored image.
        split: "TRAIN", "VALIDATION" or "TEST".
        labels: the distinct concepts of the accepted image labels, sorted. Empty means "none of the concepts". None means that no
            image labels are accepted: the item has no accepted annotations, or shapes only.
        annotations: the accepted annotations, a serialised `vesta.datasets.v1.AnnotationList`; empty if there are none.
        annotators: resource names.
        reviewer: resource name; empty if there was no review.
        reviewed: whether a second person has checked the annotations.
        control: whether the random control arm drew the item.
        task: the task of the annotations; empty for imports.
        model_version: the model whose pre-annotations were shown; empty if none.
        accept_time: when the annotations were accepted, UTC in microseconds; None if there are no accepted annotations.
    """

    name: str
    sha256: str
    object_key: str
    mime_type: str
    width_px: int
    height_px: int
    split: str
    labels: tuple[str, ...] | None = None
    annotations: bytes = b""
    annotators: tuple[str, ...] = ()
    reviewer: str = ""
    reviewed: bool = False
    control: bool = False
    task: str = ""
    model_version: str = ""
    accept_time: datetime | None = None

    @property
    def annotated(self) -> bool:
        """Whether the item has accepted annotations: image labels, shapes, or "none of the concepts"."""
        return self.accept_time is not None

    @property
    def only_shapes(self) -> bool:
        """Whether the accepted annotations are shapes only."""
        return self.annotated and self.labels is None


def digest(rows: Iterable[ManifestRow]) -> str:
    """Returns the SHA-256 of the rows, independent of their order: 64 hexadecimal digits."""
    total = hashlib.sha256(FORMAT.encode())
    for row_digest in sorted(hashlib.sha256(_canonical(row)).digest() for row in rows):
        total.update(row_digest)
    return total.hexdigest()


def write_manifest(rows: Sequence[ManifestRow]) -> bytes:
    """Returns the rows as a Parquet file, sorted by name. The bytes do not depend on the order of the rows.

    Raises:
        ValueError: two rows have the same name.
    """
    ordered = sorted(rows, key=lambda row: row.name)
    for before, after in pairwise(ordered):
        if before.name == after.name:
            raise ValueError(f"two rows have the name {after.name}; a snapshot contains each item once")
    columns = {field.name: [getattr(row, field.name) for row in ordered] for field in fields(ManifestRow)}
    metadata = {"format": FORMAT, "digest": digest(ordered)}
    table = pa.table(columns, schema=_SCHEMA).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_manifest(content: bytes) -> list[ManifestRow]:
    """Returns the rows of a manifest, sorted by name.

    Raises:
        DamagedManifestError: the bytes are not Parquet, have another format, or do not match their digest.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise DamagedManifestError(f"the manifest cannot be read: {error}") from error
    metadata = table.schema.metadata or {}
    if metadata.get(b"format") != FORMAT.encode():
        raise DamagedManifestError(f"the manifest does not have the format {FORMAT}")
    rows = [_row(values) for values in table.select(_SCHEMA.names).to_pylist()]
    if metadata.get(b"digest") != digest(rows).encode():
        raise DamagedManifestError("the manifest does not match its digest")
    return rows


def _row(values: dict[str, Any]) -> ManifestRow:
    labels = values["labels"]
    return ManifestRow(
        **{
            **values,
            "labels": None if labels is None else tuple(labels),
            "annotators": tuple(values["annotators"]),
        }
    )


def _canonical(row: ManifestRow) -> bytes:
    """Returns the row as a JSON array of its fields, in the order of `ManifestRow`."""
    return json.dumps([_plain(getattr(row, field.name)) for field in fields(row)], separators=(",", ":")).encode()


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value
