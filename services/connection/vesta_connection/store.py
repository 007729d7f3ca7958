"""Stores Sources and Syncs in PostgreSQL."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.leases import Heartbeat, Lease, Leases, Row
from vesta_common.messages import copy_of, set_times
from vesta_common.resources.methods import body_of, existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.connection.v1 import Refusal, Source, Sync, SyncFailed, SyncProgressed, SyncSucceeded
from vesta_contracts.datasets.v1 import CreatedItem

from vesta_connection.ingest import Refused
from vesta_connection.sources.batches import KnownFile
from vesta_connection.vault import Sealed, Vault

SERVICE = "connection"
REFUSALS_KEPT = 100

LEASE_DURATION = timedelta(seconds=30)

queries = load_queries("vesta_connection")
_LEASES = Leases(
    "syncs",
    LEASE_DURATION,
    unfinished="state IN ('QUEUED', 'RUNNING')",
    claimable="""NOT EXISTS (
        SELECT FROM syncs AS older
        WHERE older.source = syncs.source AND older.state IN ('QUEUED', 'RUNNING')
          AND (older.create_time, older.name) < (syncs.create_time, syncs.name))""",
)
"""One worker at a time works on a Source: only its oldest unfinished Sync can be claimed."""


@dataclass(frozen=True)
class ClaimedSync:
    """A Sync that this worker has claimed.

    Attributes:
        start_time: when the first worker started the Sync.
        cancel_requested: whether cancellation was requested before this claim.
    """

    lease: Lease
    name: str
    source: str
    start_time: datetime
    cancel_requested: bool


@dataclass(frozen=True)
class FileResult:
    """The result for one file."""

    file_name: str
    fingerprint: str
    outcome: CreatedItem | Refused


class Store:
    """Reads and writes the service's tables.

    Args:
        vault: encrypts the secrets of sources.
    """

    def __init__(self, postgres: Postgres, clock: Clock, vault: Vault) -> None:
        self.postgres = postgres
        self._clock = clock
        self._vault = vault

    def count_unfinished_syncs(self, connection: Connection) -> list[dict[str, Any]]:
        """Counts unfinished Syncs by state, with the age of the oldest."""
        return list(queries.count_unfinished_syncs(connection))

    def insert_source(self, connection: Connection, source: Source, secret: str) -> None:
        """Inserts a Source.

        Raises:
            psycopg.errors.UniqueViolation: the name is taken.
            FailedPrecondition: SECRET_KEYS_MISSING.
        """
        sealed = self._vault.seal(secret)
        queries.insert_source(
            connection,
            name=source.name,
            parent=parent_of(source.name),
            body=_body(source),
            secret_key_id=sealed.key_id,
            secret_token=sealed.token,
            now=self._clock.now(),
        )

    def get_source(self, connection: Connection, name: str) -> Source:
        """Returns a Source without its secret.

        Raises:
            NotFound: it does not exist.
        """
        return resource_of(Source, existing(queries.find_source(connection, name=name), name))

    def get_source_with_secret(self, name: str) -> tuple[Source, str]:
        """Returns a Source and its secret.

        Raises:
            NotFound: it does not exist.
            FailedPrecondition: SECRET_UNREADABLE.
        """
        with self.postgres.transaction() as connection:
            row = existing(queries.find_source(connection, name=name), name)
        return resource_of(Source, row), self._vault.open(_sealed(row))

    def lock_source(self, connection: Connection, name: str) -> tuple[Source, Sealed]:
        """Returns a Source and its encrypted secret, and locks its row until the transaction ends.

        Raises:
            NotFound: it does not exist.
        """
        row = existing(queries.lock_source(connection, name=name), name)
        return resource_of(Source, row), _sealed(row)

    def list_sources(self, connection: Connection, parent: str, after: str, limit: int) -> list[Source]:
        """Returns a project's Sources with a name greater than `after`, ordered by name."""
        return [
            resource_of(Source, row)
            for row in queries.list_sources(connection, parent=parent, after=after, limit=limit)
        ]

    def update_source(self, connection: Connection, source: Source, sealed: Sealed) -> None:
        """Updates a Source.

        Args:
            sealed: its stored secret, as returned by `lock_source`; used if the update contains no new secret.

        Raises:
            FailedPrecondition: SECRET_KEYS_MISSING.
        """
        if source.bucket.secret_access_key:
            sealed = self._vault.seal(source.bucket.secret_access_key)
        queries.update_source(
            connection,
            name=source.name,
            body=_body(source),
            secret=sealed.token if sealed.is_plain else "",
            secret_key_id=sealed.key_id,
            secret_token="" if sealed.is_plain else sealed.token,
            now=self._clock.now(),
        )

    def list_sources_to_reseal(self) -> list[str]:
        """Returns the names of Sources whose secret is not encrypted with the first key."""
        with self.postgres.transaction() as connection:
            rows = queries.list_sources_to_reseal(connection, secret_key_id=self._vault.first_key_id)
        return [row["name"] for row in rows]

    def reseal_source(self, name: str) -> bool:
        """Encrypts a Source's secret with the first key; returns False if another replica did so or the Source was deleted.

        Raises:
            FailedPrecondition: SECRET_UNREADABLE, SECRET_KEYS_MISSING.
        """
        with self.postgres.transaction() as connection:
            row = queries.lock_source(connection, name=name)
            if row is None or self._vault.is_current(_sealed(row)):
                return False
            sealed = self._vault.seal(self._vault.open(_sealed(row)))
            queries.reseal_source(connection, name=name, secret_key_id=sealed.key_id, secret_token=sealed.token)
        return True

    def delete_source(self, connection: Connection, name: str) -> None:
        """Deletes a Source with its Syncs."""
        queries.delete_source(connection, name=name)

    def count_running_syncs(self, connection: Connection, source: str) -> int:
        """Counts the unfinished Syncs of a Source."""
        return int(queries.count_running_syncs(connection, source=source))

    def insert_sync(self, connection: Connection, name: str, source: str) -> None:
        """Inserts a Sync for a worker to claim."""
        queries.insert_sync(connection, name=name, source=source, now=self._clock.now())

    def get_sync(self, connection: Connection, name: str) -> Sync:
        """Returns a Sync.

        Raises:
            NotFound: it does not exist.
        """
        return _sync(existing(queries.find_sync(connection, name=name), name))

    def list_syncs(self, connection: Connection, source: str, before: tuple[datetime, str], limit: int) -> list[Sync]:
        """Returns a Source's Syncs, newest first."""
        rows = queries.list_syncs(connection, source=source, before_time=before[0], before_name=before[1], limit=limit)
        return [_sync(row) for row in rows]

    def cancel_sync(self, connection: Connection, name: str) -> Sync:
        """Requests the cancellation of a Sync; returns a Sync that has ended unchanged.

        Raises:
            NotFound: it does not exist.
        """
        row = queries.request_cancel(connection, name=name, now=self._clock.now())
        return _sync(row) if row else self.get_sync(connection, name)

    def claim_sync(self) -> ClaimedSync | None:
        """Claims the oldest Sync without a lease, and marks it as running; returns None if there is none."""
        now = self._clock.now()
        with self.postgres.transaction() as connection:
            lease = _LEASES.claim(connection, now)
            if lease is None:
                return None
            row = queries.start_sync(connection, **lease.key, now=now)
        return ClaimedSync(lease, row["name"], row["source"], row["start_time"], row["cancel_requested"])

    def renew_sync(self, claimed: ClaimedSync) -> bool:
        """Renews the lease; returns whether cancellation was requested. Raises LeaseLost."""
        with self.postgres.transaction() as connection:
            return bool(_LEASES.renew(connection, claimed.lease, self._clock.now())["cancel_requested"])

    def sync_heartbeat(
        self, claimed: ClaimedSync, interval: timedelta, on_cancel_request: Callable[[], None]
    ) -> Heartbeat:
        """Returns a context manager that renews the lease while its block runs. Calls `on_cancel_request` in its thread."""

        def read_request(_: Connection, row: Row) -> None:
            if row["cancel_requested"]:
                on_cancel_request()

        return _LEASES.heartbeat(self.postgres, claimed.lease, self._clock, interval, read_request)

    def release_sync(self, claimed: ClaimedSync, *, counted: bool) -> None:
        """Releases the lease, so that the next worker can claim the Sync immediately.

        Args:
            counted: whether this was an attempt, and not interrupted by the service.
        """
        with self.postgres.transaction() as connection:
            _LEASES.release(connection, claimed.lease, counted=counted)

    def known_files(self, source: str) -> dict[str, KnownFile]:
        """Returns the files that earlier syncs processed, by file name."""
        with self.postgres.transaction() as connection:
            rows = queries.list_files(connection, source=source)
            return {row["file_name"]: KnownFile(row["fingerprint"], row["sync"]) for row in rows}

    def record_listing(self, claimed: ClaimedSync, found_count: int, unchanged_count: int, *, listed: bool) -> None:
        """Records the progress of the listing. Raises LeaseLost."""
        with self.postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            queries.record_listing(
                connection, name=claimed.name, found_count=found_count, unchanged_count=unchanged_count, listed=listed
            )

    def record_batch(self, claimed: ClaimedSync, results: Sequence[FileResult], *, publish: bool) -> None:
        """Records the results of a batch and its files in one transaction. `publish` also publishes the progress. Raises LeaseLost."""
        created = [result for result in results if isinstance(result.outcome, CreatedItem)]
        refused = [result.outcome for result in results if isinstance(result.outcome, Refused)]
        duplicates = sum(result.outcome.existed for result in created if isinstance(result.outcome, CreatedItem))
        with self.postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            row = queries.record_batch(
                connection,
                name=claimed.name,
                added_count=len(created) - duplicates,
                duplicate_count=duplicates,
                refused_count=len(refused),
                refusals=json.dumps([vars(refusal) for refusal in refused[:REFUSALS_KEPT]]),
            )
            with connection.cursor() as cursor:
                cursor.executemany(
                    queries.put_file.sql,
                    [
                        {
                            "source": claimed.source,
                            "file_name": result.file_name,
                            "fingerprint": result.fingerprint,
                            "sync": claimed.name,
                            "item": result.outcome.name if isinstance(result.outcome, CreatedItem) else "",
                        }
                        for result in results
                    ],
                )
            if publish:
                self._publish(connection, claimed.name, SyncProgressed(sync=_sync(row)))

    def end_sync(self, claimed: ClaimedSync, state: Sync.State.ValueType, error: str, now: datetime) -> None:
        """Ends a Sync and publishes its outcome in one transaction. Raises LeaseLost."""
        name = claimed.name
        with self.postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            row = queries.end_sync(connection, name=name, state=Sync.State.Name(state), error=error, now=now)
            if state == Sync.SUCCEEDED:
                self._publish(connection, name, SyncSucceeded(sync=_sync(row)))
            elif state == Sync.FAILED:
                self._publish(connection, name, SyncFailed(sync=_sync(row)))

    def _publish(self, connection: Connection, name: str, payload: Any) -> None:
        outbox.publish(connection, new_event(SERVICE, name, payload, self._clock.now()))


def _sealed(row: dict[str, Any]) -> Sealed:
    """Returns the secret of a row, which may be unencrypted in rows of older versions."""
    return Sealed("", row["secret"]) if row["secret"] else Sealed(row["secret_key_id"], row["secret_token"])


def _body(source: Source) -> bytes:
    """Serializes a Source without its secret, times and etag."""
    kept = copy_of(source)
    if kept.WhichOneof("kind") == "bucket":
        kept.bucket.secret_access_key = ""
    return body_of(kept)


def _sync(row: dict[str, Any]) -> Sync:
    sync = Sync(
        name=row["name"],
        state=Sync.State.Value(row["state"]),
        error=row["error"],
        refusals=[Refusal(**refusal) for refusal in row["refusals"][:REFUSALS_KEPT]],
        **{
            field: row[field]
            for field in ("found_count", "listed", "added_count", "unchanged_count", "duplicate_count", "refused_count")
        },
    )
    set_times(sync, row, "create_time", "start_time", "end_time")
    return sync
