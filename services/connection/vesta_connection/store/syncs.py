"""Syncs and the files that they have processed in PostgreSQL, with the leases of the workers that run them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.events.summaries import summarised
from vesta_common.leases import Heartbeat, Lease, Leases, Row
from vesta_common.messages import set_times
from vesta_common.resources.methods import existing
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.connection.v1 import Rejection, Sync, SyncFailed, SyncProgressed, SyncSucceeded
from vesta_contracts.datasets.v1 import CreatedItem

from vesta_connection.ingest import RejectedFile
from vesta_connection.sources.batches import KnownFile
from vesta_connection.store.statements import queries

SERVICE = "connection"
REJECTIONS_MAX = 100
LEASE_DURATION = timedelta(seconds=30)
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
    outcome: CreatedItem | RejectedFile


class Syncs:
    """The tables of syncs and of processed files."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def count_unfinished(self, connection: Connection) -> list[dict[str, Any]]:
        """Counts unfinished Syncs by state, with the age of the oldest."""
        return list(queries.count_unfinished_syncs(connection))

    def count_unfinished_of(self, connection: Connection, source: str) -> int:
        """Counts the unfinished Syncs of a Source."""
        return int(queries.count_running_syncs(connection, source=source))

    def insert(self, connection: Connection, name: str, source: str) -> None:
        """Inserts a Sync for a worker to claim."""
        queries.insert_sync(connection, name=name, source=source, now=self._clock.now())

    def get(self, connection: Connection, name: str) -> Sync:
        """Returns a Sync.

        Raises:
            NotFound: it does not exist.
        """
        return _sync(existing(queries.find_sync(connection, name=name), name))

    def list_page(self, connection: Connection, source: str, before: tuple[datetime, str], limit: int) -> list[Sync]:
        """Returns a Source's Syncs, newest first."""
        rows = queries.list_syncs(connection, source=source, before_time=before[0], before_name=before[1], limit=limit)
        return [_sync(row) for row in rows]

    def request_cancel(self, connection: Connection, name: str) -> Sync:
        """Requests the cancellation of a Sync; returns a Sync that has ended unchanged.

        Raises:
            NotFound: it does not exist.
        """
        row = queries.request_cancel(connection, name=name, now=self._clock.now())
        return _sync(row) if row else self.get(connection, name)

    def claim(self) -> ClaimedSync | None:
        """Claims the oldest Sync without a lease, and marks it as running; returns None if there is none."""
        now = self._clock.now()
        with self._postgres.transaction() as connection:
            lease = _LEASES.claim(connection, now)
            if lease is None:
                return None
            row = queries.start_sync(connection, **lease.key, now=now)
        return ClaimedSync(lease, row["name"], row["source"], row["start_time"], row["cancel_requested"])

    def renew(self, claimed: ClaimedSync) -> bool:
        """Renews the lease; returns whether cancellation was requested. Raises LeaseLost."""
        with self._postgres.transaction() as connection:
            return bool(_LEASES.renew(connection, claimed.lease, self._clock.now())["cancel_requested"])

    def heartbeat(self, claimed: ClaimedSync, interval: timedelta, on_cancel_request: Callable[[], None]) -> Heartbeat:
        """Returns a context manager that renews the lease while its block runs. Calls `on_cancel_request` in its thread."""

        def read_request(_: Connection, row: Row) -> None:
            if row["cancel_requested"]:
                on_cancel_request()

        return _LEASES.heartbeat(self._postgres, claimed.lease, self._clock, interval, read_request)

    def release(self, claimed: ClaimedSync, *, counted: bool) -> None:
        """Releases the lease, so that the next worker can claim the Sync immediately.

        Args:
            counted: whether this was an attempt, and not interrupted by the service.
        """
        with self._postgres.transaction() as connection:
            _LEASES.release(connection, claimed.lease, counted=counted)

    def known_files(self, source: str) -> dict[str, KnownFile]:
        """Returns the files that earlier syncs processed, by file name."""
        with self._postgres.transaction() as connection:
            rows = queries.list_files(connection, source=source)
            return {row["file_name"]: KnownFile(row["fingerprint"], row["sync"]) for row in rows}

    def record_listing(self, claimed: ClaimedSync, found_count: int, unchanged_count: int, *, listed: bool) -> None:
        """Records the progress of the listing. Raises LeaseLost."""
        with self._postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            queries.record_listing(
                connection, name=claimed.name, found_count=found_count, unchanged_count=unchanged_count, listed=listed
            )

    def record_batch(self, claimed: ClaimedSync, results: Sequence[FileResult], *, publish: bool) -> None:
        """Records the results of a batch and its files in one transaction. `publish` also publishes the progress. Raises LeaseLost."""
        created = [result for result in results if isinstance(result.outcome, CreatedItem)]
        rejected = [result.outcome for result in results if isinstance(result.outcome, RejectedFile)]
        duplicates = sum(
            result.outcome.already_existed for result in created if isinstance(result.outcome, CreatedItem)
        )
        with self._postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            row = queries.record_batch(
                connection,
                name=claimed.name,
                added_count=len(created) - duplicates,
                duplicate_count=duplicates,
                rejected_count=len(rejected),
                rejections=json.dumps([vars(rejection) for rejection in rejected[:REJECTIONS_MAX]]),
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

    def end(self, claimed: ClaimedSync, state: Sync.State.ValueType, error: str, now: datetime) -> None:
        """Ends a Sync and publishes its outcome in one transaction. Raises LeaseLost."""
        name = claimed.name
        with self._postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            row = queries.end_sync(connection, name=name, state=Sync.State.Name(state), error=error, now=now)
            if state == Sync.SUCCEEDED:
                self._publish(connection, name, SyncSucceeded(sync=_sync(row)))
            elif state == Sync.FAILED:
                self._publish(connection, name, SyncFailed(sync=_sync(row)))

    def _publish(self, connection: Connection, name: str, payload: Any) -> None:
        outbox.publish(connection, new_event(SERVICE, name, summarised(payload), self._clock.now()))


def _sync(row: dict[str, Any]) -> Sync:
    sync = Sync(
        name=row["name"],
        state=Sync.State.Value(row["state"]),
        error=row["error"],
        rejections=[Rejection(**rejection) for rejection in row["rejections"][:REJECTIONS_MAX]],
        **{
            field: row[field]
            for field in (
                "found_count",
                "listed",
                "added_count",
                "unchanged_count",
                "duplicate_count",
                "rejected_count",
            )
        },
    )
    set_times(sync, row, "create_time", "start_time", "end_time")
    return sync
