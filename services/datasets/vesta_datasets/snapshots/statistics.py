"""Statistics of the rows of a snapshot. Those of its parts add up to its own."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from vesta_datasets.items.objects import area_px, duplicate_boxes, objects_of, size_of
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
        object_count: annotations other than image labels.
        object_counts: objects by concept, the most frequent first.
        size_counts: objects by size: small, medium or large; see `items/objects.py`.
        density_counts: annotated items by the number of their objects: the lower bounds of ranges, `DENSITIES`, as text.
        duplicate_box_count: boxes that are duplicates of another box of their item.
    """

    item_count: int
    labelled_count: int
    concept_counts: Mapping[str, int]
    no_label_count: int = 0
    multiple_labels_count: int = 0
    shapes_only_count: int = 0
    hash_assigned_count: int = 0
    object_count: int = 0
    object_counts: Mapping[str, int] = field(default_factory=dict)
    size_counts: Mapping[str, int] = field(default_factory=dict)
    density_counts: Mapping[str, int] = field(default_factory=dict)
    duplicate_box_count: int = 0


DENSITIES: Final = (0, 1, 2, 5, 10, 20, 50, 100)
_BY_KEY: Final = ("concept_counts", "object_counts", "size_counts", "density_counts")
_OF_SNAPSHOT: Final = ("reviewed_count", "control_count", "control_object_count")
_SUMMED: Final = tuple(field.name for field in fields(SplitStatistics) if field.name not in _BY_KEY)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a whole snapshot.

    Args:
        splits: every split, including empty ones.
        reviewed_count: items whose annotations a second person has checked.
        control_count: items that the random control arm drew.
        control_object_count: their objects.
    """

    splits: Mapping[Split, SplitStatistics]
    reviewed_count: int
    control_count: int
    control_object_count: int = 0

    @property
    def imbalance(self) -> float | None:
        """Items of the most frequent concept ÷ items of the rarest concept that occurs, in the training split.

        1 if all are equally frequent, None if no item there has a label.
        """
        counts = self.splits[Split.TRAIN].concept_counts.values()
        return max(counts) / min(counts) if counts else None

    @property
    def annotated_count(self) -> int:
        """Items with accepted annotations: image labels, shapes, or "none of the concepts"."""
        return sum(split.labelled_count + split.shapes_only_count for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns the statistics as JSON values."""
        return asdict(self)

    @staticmethod
    def is_complete(values: Mapping[str, Any]) -> bool:
        """Whether the values of `to_dict` were written by a version that counts objects."""
        return "control_object_count" in values and all(
            "object_counts" in counts for counts in values["splits"].values()
        )

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Statistics":
        """Reads the values of `to_dict`, also after a conversion to JSON."""
        splits = {Split(split): SplitStatistics(**counts) for split, counts in values["splits"].items()}
        return cls(splits, *(values.get(name, 0) for name in _OF_SNAPSHOT))


def statistics(rows: Sequence[ManifestRow], shares: Shares) -> Statistics:
    """Computes the statistics of rows.

    Args:
        shares: of the dataset's split policy.
    """
    splits = {split: _of_split([row for row in rows if row.split == split], shares) for split in Split}
    return Statistics(
        splits=splits,
        reviewed_count=sum(row.reviewed for row in rows),
        control_count=sum(row.control for row in rows),
        control_object_count=sum(
            len(objects_of(row.whole_annotations)) for row in rows if row.control and row.annotated
        ),
    )


def total(parts: Iterable[Statistics]) -> Statistics:
    """Returns the sums of the statistics of several parts."""
    by_key: dict[tuple[Split, str], Counter[str]] = {(split, name): Counter() for split in Split for name in _BY_KEY}
    counts: dict[Split, Counter[str]] = {split: Counter() for split in Split}
    of_snapshot: Counter[str] = Counter()
    for part in parts:
        of_snapshot.update({name: getattr(part, name) for name in _OF_SNAPSHOT})
        for split, found in part.splits.items():
            for name in _BY_KEY:
                by_key[split, name].update(getattr(found, name))
            counts[split].update({name: getattr(found, name) for name in _SUMMED})
    sums: dict[Split, dict[str, Any]] = {
        split: {name: _by_frequency(by_key[split, name]) for name in _BY_KEY}
        | {name: counts[split][name] for name in _SUMMED}
        for split in Split
    }
    splits = {split: SplitStatistics(**found) for split, found in sums.items()}
    return Statistics(splits, *(of_snapshot[name] for name in _OF_SNAPSHOT))


def _of_split(rows: Sequence[ManifestRow], shares: Shares) -> SplitStatistics:
    counts = Counter(label for row in rows for label in row.labels or ())
    labelled = [row.labels for row in rows if row.labels is not None]
    objects = [objects_of(row.whole_annotations) for row in rows if row.annotated]
    areas = [area_px(one) for found in objects for one in found]
    return SplitStatistics(
        item_count=len(rows),
        labelled_count=len(labelled),
        concept_counts=_by_frequency(counts),
        no_label_count=sum(not labels for labels in labelled),
        multiple_labels_count=sum(len(labels) > 1 for labels in labelled),
        shapes_only_count=sum(row.only_shapes for row in rows),
        hash_assigned_count=sum(split_of(row.sha256, shares) == row.split for row in rows),
        object_count=len(areas),
        object_counts=_by_frequency(Counter(one.concept for found in objects for one in found)),
        size_counts=_by_frequency(Counter(size_of(area) for area in areas if area is not None)),
        density_counts=_by_frequency(Counter(_density(len(found)) for found in objects)),
        duplicate_box_count=sum(len(duplicate_boxes(found)) for found in objects),
    )


def _density(object_count: int) -> str:
    """Returns the lower bound of the range of a number of objects."""
    return str(DENSITIES[bisect_right(DENSITIES, object_count) - 1])


def _by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    """Sorts counts, the greatest first."""
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
