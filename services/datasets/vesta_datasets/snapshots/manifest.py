"""The rows of a snapshot: their Parquet schema, and digests that depend on the rows alone.

A digest depends neither on the version of the Parquet library nor on its settings. docs/snapshot-manifest.md describes it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from vesta_common.manifests import FORMAT
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import AnnotationList

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
_NO_TIME: Final = -(2**63)


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
    def whole_annotations(self) -> Sequence[Annotation]:
        """The accepted annotations; none if there are none."""
        return AnnotationList.FromString(self.annotations).annotations

    @property
    def only_shapes(self) -> bool:
        """Whether the accepted annotations are shapes only."""
        return self.annotated and self.labels is None


COLUMNS: Final = tuple(field.name for field in fields(ManifestRow))


def rows_of(batch: Mapping[str, Sequence[Any]]) -> Iterator[ManifestRow]:
    """Yields the rows of a batch with all columns."""
    for values in zip(*(batch[name] for name in COLUMNS), strict=True):
        row = ManifestRow(*values)
        labels = None if row.labels is None else tuple(row.labels)
        yield replace(row, labels=labels, annotators=tuple(row.annotators))


def table_of(rows: Sequence[ManifestRow]) -> pa.Table:
    """Returns the rows as a table with one column per field."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, _SCHEMA)


def digest_of_rows(table: pa.Table) -> str:
    """Returns the SHA-256 of the rows of a part, in their order: 64 hexadecimal digits."""
    total = hashlib.sha256()
    for column in table.columns:
        _update(total, column.combine_chunks())
    return total.hexdigest()


def digest_of_parts(digests: Iterable[str]) -> str:
    """Returns the digest of a snapshot: the SHA-256 of the digests of its parts, in order."""
    total = hashlib.sha256(FORMAT.encode())
    for digest in digests:
        total.update(bytes.fromhex(digest))
    return total.hexdigest()


def _update(total: Any, values: pa.Array) -> None:
    """Adds a column: the lengths of texts and lists as int32 (-1 for null), then their content; other types as integers."""
    kind = values.type
    if pa.types.is_list(kind):
        _update(total, pc.fill_null(pc.list_value_length(values), -1))
        _update(total, values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        _update(total, pc.fill_null(pc.binary_length(values), -1))
        total.update(_bytes_of(values.cast(pa.binary())))
    elif pa.types.is_timestamp(kind):
        _update(total, pc.fill_null(values.cast(pa.int64()), _NO_TIME))
    else:
        width = pa.uint8() if pa.types.is_boolean(kind) else kind
        total.update(values.cast(width).to_numpy(zero_copy_only=False).tobytes())


def _bytes_of(values: pa.BinaryArray) -> memoryview:
    """Returns the concatenated values."""
    _, offsets, content = values.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset) if len(values) else [0]
    return memoryview(content or b"")[bounds[0] : bounds[-1]]
