"""Cuts the rows of a snapshot into parts whose boundaries depend on the rows alone.

Whether a part ends after a row depends on the hash of its name, so that a change moves only the boundaries beside it: two
snapshots have all parts in common that lie in unchanged ranges, whatever snapshots were made before.
"""

import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from vesta_common.manifests import Part

from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshots.manifest import ManifestRow, digest_of_rows, table_of
from vesta_datasets.snapshots.statistics import statistics


class PartLimits(NamedTuple):
    """Sizes of parts. Other sizes result in other digests.

    Attributes:
        rows_mean: the mean number of rows.
        rows_max: the largest number of rows.
        annotation_bytes_max: a part ends after the row with which its annotations reach this size.
    """

    rows_mean: int = 4096
    rows_max: int = 8192
    annotation_bytes_max: int = 8 * 1024 * 1024


PART_LIMITS = PartLimits()
ROW_GROUP_ROWS = 1024
"""Rows of a part that are encoded together. With all rows of a part, encoding needs 14 MiB more."""


def cut(rows: Iterable[ManifestRow], limits: PartLimits) -> Iterator[list[ManifestRow]]:
    """Yields the rows of each part.

    Args:
        rows: ordered by name, from the beginning of a part on.

    Raises:
        ValueError: the rows are not ordered, or two have the same name.
    """
    part: list[ManifestRow] = []
    annotation_bytes, last = 0, ""
    for row in rows:
        if row.name <= last:
            raise ValueError(f"{row.name} follows {last}; a snapshot contains each item once, in order of their names")
        part.append(row)
        last = row.name
        annotation_bytes += len(row.annotations)
        if (
            zlib.crc32(row.name.encode()) % limits.rows_mean == 0
            or len(part) == limits.rows_max
            or annotation_bytes >= limits.annotation_bytes_max
        ):
            yield part
            part, annotation_bytes = [], 0
    if part:
        yield part


def write_part(rows: list[ManifestRow], shares: Shares, path: Path) -> Part:
    """Writes the rows of a part to a Parquet file. The part has no key until the file is stored."""
    table = table_of(rows)
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    return Part(
        key="",
        digest=digest_of_rows(table),
        first_item=rows[0].name,
        last_item=rows[-1].name,
        item_count=len(rows),
        statistics=statistics(rows, shares).to_dict(),
    )


def revise(
    parts: Sequence[Part], changed: Collection[int], rows: Callable[[str], Generator[ManifestRow]], limits: PartLimits
) -> Iterator[Part | list[ManifestRow]]:
    """Yields the content of a dataset in order: unchanged parts of its previous snapshot, and the rows of new parts.

    Args:
        parts: of the previous snapshot; empty if there is none.
        changed: indices of the parts in whose ranges items may have changed. A range starts after the last item of the previous part;
            the last range has no end.
        rows: returns the current rows after a name, in order.
    """
    index_of = {part.last_item: index for index, part in enumerate(parts)}
    index = 0
    while index < max(len(parts), 1):
        if parts and index not in changed:
            yield parts[index]
            index += 1
            continue
        after = parts[index - 1].last_item if index else ""
        index = max(len(parts), 1)
        with closing(rows(after)) as current:
            for part in cut(current, limits):
                yield part
                following = index_of.get(part[-1].name, len(parts)) + 1
                if following < len(parts) and following not in changed:
                    index = following
                    break
