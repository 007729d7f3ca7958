"""The differences between two snapshots. Parts that both contain are not read."""

from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from vesta_common.manifests import Part, read_batches, read_manifest
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import Relabelling, SnapshotDiff

DIFF_NAMES_MAX = 1000
_COLUMNS = ("name", "labels")
_NONE = pa.RecordBatch.from_pylist([], pa.schema({"name": pa.string(), "labels": pa.list_(pa.string())}))


def compare(base_key: str, later_key: str, objects: ObjectStore) -> SnapshotDiff:
    """Returns the differences between two manifests, given by their keys.

    Raises:
        DataLoss: an object of a snapshot is missing or damaged.
    """
    base, later = read_manifest(objects, base_key).parts, read_manifest(objects, later_key).parts
    shared = {part.key for part in base} & {part.key for part in later}

    def changed(parts: Iterable[Part]) -> Generator[pa.RecordBatch]:
        return read_batches(objects, (part for part in parts if part.key not in shared), _COLUMNS)

    with closing(changed(base)) as before, closing(changed(later)) as after:
        return diff(before, after)


def diff(before: Iterable[pa.RecordBatch], after: Iterable[pa.RecordBatch]) -> SnapshotDiff:
    """Returns the differences between items. At most `DIFF_NAMES_MAX` items of each kind are listed.

    The order of labels is ignored.

    Args:
        before: batches with the columns `name` and `labels`, ordered by name over all batches. Labels are None if the item has no
            accepted image labels.
        after: likewise.
    """
    found = SnapshotDiff()
    for old, new in _ranges(iter(before), iter(after)):
        if old["name"].equals(new["name"]):  # as in most ranges, because most changes are labels
            _add_relabelled(found, old, new)
            continue
        in_both_old, in_both_new = pc.is_in(old["name"], new["name"]), pc.is_in(new["name"], old["name"])
        removed, added = old["name"].filter(pc.invert(in_both_old)), new["name"].filter(pc.invert(in_both_new))
        found.removed_count += len(removed)
        found.removed.extend(removed[: DIFF_NAMES_MAX - len(found.removed)].to_pylist())
        found.added_count += len(added)
        found.added.extend(added[: DIFF_NAMES_MAX - len(found.added)].to_pylist())
        _add_relabelled(found, old.filter(in_both_old), new.filter(in_both_new))
    return found


def _ranges(
    before: Iterator[pa.RecordBatch], after: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Yields the items of consecutive ranges of names, before and after."""
    old, new = next(before, None), next(after, None)
    while old is not None or new is not None:
        end = min(batch["name"][-1].as_py() for batch in (old, new) if batch is not None)
        (old_items, old), (new_items, new) = _divided(old, end), _divided(new, end)
        yield old_items, new_items
        old, new = old or next(before, None), new or next(after, None)


def _divided(batch: pa.RecordBatch | None, end: str) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Returns the items whose names are at most `end`, and the others; None if there are no others."""
    if batch is None:
        return _NONE, None
    count = bisect_right(batch["name"], end, key=pa.StringScalar.as_py)
    return batch[:count], batch[count:] if count < len(batch) else None


def _add_relabelled(found: SnapshotDiff, old: pa.RecordBatch, new: pa.RecordBatch) -> None:
    """Adds the differences between the labels of the same items."""
    if old["labels"].equals(new["labels"]):
        return
    indices = np.flatnonzero(_unequal(old["labels"], new["labels"]))
    found.relabelled_count += len(indices)
    for index in indices[: DIFF_NAMES_MAX - len(found.relabelled)].tolist():
        item, labels_before, labels_after = (
            column[index].as_py() for column in (new["name"], old["labels"], new["labels"])
        )
        found.relabelled.append(
            Relabelling(item=item, labels_before=labels_before or (), labels_after=labels_after or ())
        )


def _unequal(old: pa.ListArray, new: pa.ListArray) -> NDArray[np.bool_]:
    """Returns which lists differ as sets; None differs from an empty list. Lists of one label are not converted to Python."""
    old_counts, new_counts = (pc.fill_null(pc.list_value_length(lists), -1).to_numpy() for lists in (old, new))
    unequal: NDArray[np.bool_] = old_counts != new_counts
    same = np.flatnonzero(~unequal)
    old_same, new_same = old.take(same), new.take(same)
    texts = pc.not_equal(old_same.flatten(), new_same.flatten()).to_numpy(zero_copy_only=False)
    unequal[same[pc.list_parent_indices(old_same).to_numpy()[texts]]] = True
    for index in np.flatnonzero(
        unequal & (old_counts >= 0) & (new_counts >= 0) & (old_counts + new_counts > 2)
    ).tolist():
        unequal[index] = set(old[index].as_py()) != set(new[index].as_py())
    return unequal
