"""Creates snapshots, by writing a manifest of the current items to the object store, and compares snapshots."""

from vesta_common.errors import FailedPrecondition
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import Relabelling, Snapshot, SnapshotDiff, SnapshotStatistics, SplitStatistics

from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshots.manifest import ManifestRow, digest, read_manifest, write_manifest
from vesta_datasets.snapshots.statistics import diff, statistics

DIFF_NAMES_MAX = 1000


def write_snapshot(snapshot: Snapshot, rows: list[ManifestRow], shares: Shares, objects: ObjectStore) -> None:
    """Stores the manifest, and sets the snapshot's manifest key, digest, counts and statistics.

    Raises:
        FailedPrecondition: SNAPSHOT_EMPTY, no item is annotated.
    """
    if not any(row.annotated for row in rows):
        raise FailedPrecondition("no item of the dataset is annotated; annotate items first", reason="SNAPSHOT_EMPTY")
    stored = objects.put("manifests", write_manifest(rows))
    found = statistics(rows, shares)
    snapshot.manifest_key = stored.key
    snapshot.digest = digest(rows)
    snapshot.item_count = len(rows)
    snapshot.statistics.CopyFrom(
        SnapshotStatistics(
            splits=[
                SplitStatistics(
                    split=split.value,
                    item_count=counts.item_count,
                    labelled_count=counts.labelled_count,
                    concept_counts=dict(counts.concept_counts),
                    no_label_count=counts.no_label_count,
                    multiple_labels_count=counts.multiple_labels_count,
                    shapes_only_count=counts.shapes_only_count,
                    hash_assigned_count=counts.hash_assigned_count,
                )
                for split, counts in found.splits.items()
            ],
            reviewed_count=found.reviewed_count,
            control_count=found.control_count,
            imbalance=found.imbalance,
        )
    )


def compare(base: Snapshot, later: Snapshot, objects: ObjectStore) -> SnapshotDiff:
    """Returns the differences from `base` to `later`. At most `DIFF_NAMES_MAX` items of each kind are listed."""
    found = diff(read_manifest(objects.get(base.manifest_key)), read_manifest(objects.get(later.manifest_key)))
    return SnapshotDiff(
        added_count=len(found.added),
        removed_count=len(found.removed),
        relabelled_count=len(found.relabelled),
        added=found.added[:DIFF_NAMES_MAX],
        removed=found.removed[:DIFF_NAMES_MAX],
        relabelled=[
            Relabelling(
                item=change.name, labels_before=change.labels_before or (), labels_after=change.labels_after or ()
            )
            for change in found.relabelled[:DIFF_NAMES_MAX]
        ],
    )
