"""Snapshots in PostgreSQL, and the rows and changes of a dataset for new snapshots."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.resources.methods import existing
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import AcceptedAnnotations, AnnotationList, Snapshot

from vesta_datasets.snapshots.manifest import ManifestRow
from vesta_datasets.store.statements import queries

CHANGES_MAX = 10_000
ROWS_AT_ONCE = 200


class SnapshotBase(NamedTuple):
    """The manifest whose unchanged parts the next snapshot of a dataset shares.

    Attributes:
        version: increases with each replacement; 0 if there is no base.
        manifest_key: empty if there is no base.
    """

    version: int
    manifest_key: str


class SeenBase(NamedTuple):
    """A base, and the transactions whose changes are visible at the point in time of the new snapshot (a `pg_snapshot`)."""

    base: SnapshotBase
    visible: str


class Snapshots:
    """The table of snapshots."""

    def __init__(self, postgres: Postgres, large: LargeAnnotations) -> None:
        self._postgres = postgres
        self._large = large

    def find_base(self, dataset: str) -> SnapshotBase:
        """Returns the base of the next snapshot of a dataset."""
        with self._postgres.transaction() as connection:
            return _base_of(connection, dataset)

    @contextmanager
    def point_in_time(self, dataset: str, rows_at_once: int = ROWS_AT_ONCE) -> Iterator["PointInTime"]:
        """Opens a transaction that sees the items of a dataset as they are now. It locks nothing."""
        with self._postgres.point_in_time() as connection:
            yield PointInTime(connection, dataset, rows_at_once, self._large)

    def replace_base(self, connection: Connection, dataset: str, found: "SeenBase", manifest_key: str) -> None:
        """Makes a manifest the base of the next snapshot, and deletes the changes that it contains.

        Changes nothing if another snapshot has replaced the base since: its base contains other changes.
        """
        if queries.replace_snapshot_base(
            connection, dataset=dataset, seen_version=found.base.version, manifest_key=manifest_key
        ):
            queries.delete_item_changes(connection, dataset=dataset, visible=found.visible)

    def merge_changes(self, connection: Connection, changes_max: int = CHANGES_MAX) -> None:
        """Replaces the changes of each dataset that has more than `changes_max` by one that covers all of them."""
        queries.merge_item_changes(connection, changes_max=changes_max)

    def insert(self, connection: Connection, snapshot: Snapshot, now: datetime) -> None:
        """Inserts a snapshot. Raises psycopg.errors.UniqueViolation if the name exists."""
        dataset = "/".join(snapshot.name.split("/")[:4])
        queries.insert_snapshot(
            connection, name=snapshot.name, dataset=dataset, body=snapshot.SerializeToString(), now=now
        )

    def get(self, connection: Connection, name: str) -> Snapshot:
        """Returns a snapshot. Raises NotFound."""
        return Snapshot.FromString(bytes(existing(queries.find_snapshot(connection, name=name), name)["body"]))

    def list_page(
        self, connection: Connection, dataset: str, before: tuple[datetime, str], limit: int
    ) -> list[Snapshot]:
        """Lists the snapshots of a dataset, newest first, starting after `before`."""
        rows = queries.list_snapshots(
            connection, dataset=dataset, before_time=before[0], before_name=before[1], limit=limit
        )
        return [Snapshot.FromString(bytes(row["body"])) for row in rows]


class PointInTime:
    """The items of a dataset at one point in time, for a new snapshot."""

    def __init__(self, connection: Connection, dataset: str, rows_at_once: int, large: LargeAnnotations) -> None:
        self._large = large
        self._connection = connection
        self._dataset = dataset
        self._rows_at_once = rows_at_once
        visible: str = queries.visible_transactions(connection)
        self.seen = SeenBase(_base_of(connection, dataset), visible)

    def changed_parts(self, last_items: Sequence[str]) -> set[int]:
        """Returns the indices of the parts of the base whose ranges contain changed items.

        Args:
            last_items: the last item of each part, in order. Items after the last of them belong to the last part.
        """
        ranges = queries.list_changed_parts(self._connection, dataset=self._dataset, last_items=list(last_items))
        last = len(last_items) - 1
        return {
            part
            for found in ranges
            for part in range(min(found["first_part"], last), min(found["last_part"], last) + 1)
        }

    def rows(self, after: str) -> Generator[ManifestRow]:
        """Yields a row for each item whose name is greater than `after`, in order, without those that snapshots exclude."""
        with self._connection.cursor("snapshot") as cursor:
            cursor.itersize = self._rows_at_once
            cursor.execute(queries.list_for_snapshot.sql, {"dataset": self._dataset, "after": after}, binary=True)
            for row in cursor:
                yield _manifest_row(row, self._large)


def _base_of(connection: Connection, dataset: str) -> SnapshotBase:
    row = queries.find_snapshot_base(connection, dataset=dataset)
    return SnapshotBase(row["version"], row["manifest_key"]) if row else SnapshotBase(0, "")


def _manifest_row(row: Mapping[str, Any], large: LargeAnnotations) -> ManifestRow:
    media = Media.FromString(bytes(row["media"]))
    facts: dict[str, Any] = {}
    if row["accepted"] is not None:
        accepted = large.whole(AcceptedAnnotations.FromString(bytes(row["accepted"])))
        facts = {
            "labels": tuple(sorted(row["labels"])) if row["labelled"] else None,
            "annotations": AnnotationList(annotations=accepted.annotations).SerializeToString(deterministic=True),
            "annotators": tuple(accepted.annotators),
            "reviewer": accepted.reviewer,
            "reviewed": accepted.reviewed,
            "control": accepted.control,
            "task": accepted.task,
            "model_version": accepted.model_version,
            "accept_time": accepted.accept_time.ToDatetime(UTC),
        }
    return ManifestRow(
        name=row["name"],
        sha256=row["sha256"],
        object_key=media.object_key,
        mime_type=media.mime_type,
        width_px=media.width_px,
        height_px=media.height_px,
        split=row["split"],
        **facts,
    )
