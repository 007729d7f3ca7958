"""What a snapshot holds, and what changed between two of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vesta_datasets.manifest import ManifestRow
from vesta_datasets.splits import Split


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """One side: how many items, how many that somebody decided on, and those by concept (most frequent first)."""

    item_count: int
    labelled_count: int
    concept_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """A whole snapshot.

    Args:
        splits: every side, empty ones too.
        reviewed_count: items that a second person looked at.
        control_count: items that the random control arm drew.
        imbalance: items of the most frequent concept ÷ those of the rarest that occurs, on the training side; 1 where
            all are equal, 0 where nothing is labelled.
    """

    splits: Mapping[Split, SplitStatistics]
    reviewed_count: int
    control_count: int
    imbalance: float


@dataclass(frozen=True, slots=True)
class Relabelled:
    """An item whose labels changed; None says that nobody had decided."""

    name: str
    labels_before: tuple[str, ...] | None
    labels_after: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one manifest to another: names added and removed, items relabelled, each sorted by name."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[Relabelled, ...]


def statistics(rows: Sequence[ManifestRow]) -> Statistics:
    """The figures of one manifest."""
    splits = {split: _of_split([row for row in rows if row.split == split]) for split in Split}
    counts = splits[Split.TRAIN].concept_counts.values()
    return Statistics(
        splits=splits,
        reviewed_count=sum(row.reviewed for row in rows),
        control_count=sum(row.control for row in rows),
        imbalance=max(counts) / min(counts) if counts else 0.0,
    )


def diff(before: Iterable[ManifestRow], after: Iterable[ManifestRow]) -> Difference:
    """What changed from `before` to `after`. The order of labels is no change."""
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


def _of_split(rows: Sequence[ManifestRow]) -> SplitStatistics:
    counts = Counter(label for row in rows for label in row.labels or ())
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return SplitStatistics(len(rows), sum(row.labels is not None for row in rows), dict(ordered))


def _label_set(row: ManifestRow) -> frozenset[str] | None:
    return None if row.labels is None else frozenset(row.labels)
