"""Statistics of a snapshot, and the differences between two snapshots."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vesta_datasets.items.splits import Shares, Split, split_of
from vesta_datasets.snapshots.manifest import ManifestRow


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """Statistics of one split.

    Args:
        item_count: all items.
        labelled_count: items with accepted image labels, including items with none of the concepts.
        concept_counts: items by image label, the most frequent first.
        no_label_count: labelled items with none of the concepts.
        multiple_labels_count: labelled items with more than one concept.
        shapes_only_count: items with accepted shapes and no image label.
        hash_assigned_count: items that the split policy assigns to this split by their content hash.
    """

    item_count: int
    labelled_count: int
    concept_counts: Mapping[str, int]
    no_label_count: int = 0
    multiple_labels_count: int = 0
    shapes_only_count: int = 0
    hash_assigned_count: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a whole snapshot.

    Args:
        splits: every split, including empty ones.
        reviewed_count: items whose annotations a second person has checked.
        control_count: items that the random control arm drew.
        imbalance: items of the most frequent concept ÷ items of the rarest concept that occurs, in the training split. 1 if all
            are equally frequent, None if no item there has a label.
    """

    splits: Mapping[Split, SplitStatistics]
    reviewed_count: int
    control_count: int
    imbalance: float | None


@dataclass(frozen=True, slots=True)
class Relabelled:
    """An item whose image labels changed. None means that it had no accepted image labels."""

    name: str
    labels_before: tuple[str, ...] | None
    labels_after: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences between two manifests: the names of added and removed items, and the relabelled items, each sorted by name."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[Relabelled, ...]


def statistics(rows: Sequence[ManifestRow], shares: Shares) -> Statistics:
    """Computes the statistics of a manifest.

    Args:
        rows: of the manifest.
        shares: of the dataset's split policy.
    """
    splits = {split: _of_split([row for row in rows if row.split == split], shares) for split in Split}
    counts = splits[Split.TRAIN].concept_counts.values()
    return Statistics(
        splits=splits,
        reviewed_count=sum(row.reviewed for row in rows),
        control_count=sum(row.control for row in rows),
        imbalance=max(counts) / min(counts) if counts else None,
    )


def diff(before: Iterable[ManifestRow], after: Iterable[ManifestRow]) -> Difference:
    """Returns the differences from `before` to `after`. The order of labels is ignored."""
    old = {row.name: row for row in before}
    new = {row.name: row for row in after}
    return Difference(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        relabelled=tuple(
            Relabelled(name, old[name].labels, new[name].labels)
            for name in sorted(old.keys() & new.keys())
            if _label_set(old[name]) != _label_set(new[name])
        ),
    )


def _of_split(rows: Sequence[ManifestRow], shares: Shares) -> SplitStatistics:
    counts = Counter(label for row in rows for label in row.labels or ())
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    labelled = [row.labels for row in rows if row.labels is not None]
    return SplitStatistics(
        item_count=len(rows),
        labelled_count=len(labelled),
        concept_counts=dict(ordered),
        no_label_count=sum(not labels for labels in labelled),
        multiple_labels_count=sum(len(labels) > 1 for labels in labelled),
        shapes_only_count=sum(row.only_shapes for row in rows),
        hash_assigned_count=sum(split_of(row.sha256, shares) == row.split for row in rows),
    )


def _label_set(row: ManifestRow) -> frozenset[str] | None:
    return None if row.labels is None else frozenset(row.labels)
