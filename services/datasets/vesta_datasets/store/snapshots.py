"""Snapshots in PostgreSQL, and the manifest rows of new snapshots."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vesta_common.resources.methods import existing
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import AcceptedAnnotations, AnnotationList, Snapshot

from vesta_datasets.snapshots.manifest import ManifestRow
from vesta_datasets.store.statements import queries


class Snapshots:
    """The table of snapshots."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def read_manifest_rows(self, dataset: str) -> list[ManifestRow]:
        """Returns a row for each item that is not excluded from snapshots. One statement reads them; no transaction is open afterwards."""
        with self._postgres.transaction() as connection:
            rows = queries.list_for_snapshot(connection, dataset=dataset)
        return [_manifest_row(row) for row in rows]

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


def _manifest_row(row: Mapping[str, Any]) -> ManifestRow:
    media = Media.FromString(bytes(row["media"]))
    facts: dict[str, Any] = {}
    if row["accepted"] is not None:
        accepted = AcceptedAnnotations.FromString(bytes(row["accepted"]))
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
