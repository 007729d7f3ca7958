"""The differences between two snapshots. Parts that both contain are not read."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

from vesta_common.manifests import Part, read_manifest, read_rows
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import Relabelling, SnapshotDiff

DIFF_NAMES_MAX = 1000

Labelled = tuple[str, Sequence[str] | None]
"""The name of an item and its image labels; None if it has no accepted image labels."""


def compare(base_key: str, later_key: str, objects: ObjectStore) -> SnapshotDiff:
    """Returns the differences between two manifests, given by their keys.

    Raises:
        DataLoss: an object of a snapshot is missing or damaged.
    """
    base, later = read_manifest(objects, base_key).parts, read_manifest(objects, later_key).parts
    shared = {part.key for part in base} & {part.key for part in later}

    def changed(parts: Iterable[Part]) -> Generator[Labelled]:
        own = (part for part in parts if part.key not in shared)
        for rows in read_rows(objects, own, ["name", "labels"]):
            yield from zip(rows["name"], rows["labels"], strict=True)

    with closing(changed(base)) as before, closing(changed(later)) as after:
        return diff(before, after)


def diff(before: Iterable[Labelled], after: Iterable[Labelled]) -> SnapshotDiff:
    """Returns the differences between items, both ordered by name. At most `DIFF_NAMES_MAX` items of each kind are listed.

    The order of labels is ignored.
    """
    found = SnapshotDiff()
    olds, news = iter(before), iter(after)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old[0] < new[0]):
            assert old is not None
            found.removed_count += 1
            if found.removed_count <= DIFF_NAMES_MAX:
                found.removed.append(old[0])
            old = next(olds, None)
        elif old is None or new[0] < old[0]:
            found.added_count += 1
            if found.added_count <= DIFF_NAMES_MAX:
                found.added.append(new[0])
            new = next(news, None)
        else:
            if old[1] != new[1] and _as_set(old[1]) != _as_set(new[1]):
                found.relabelled_count += 1
                if found.relabelled_count <= DIFF_NAMES_MAX:
                    found.relabelled.append(
                        Relabelling(item=new[0], labels_before=old[1] or (), labels_after=new[1] or ())
                    )
            old, new = next(olds, None), next(news, None)
    return found


def _as_set(labels: Sequence[str] | None) -> frozenset[str] | None:
    return None if labels is None else frozenset(labels)
