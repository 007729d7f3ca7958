"""Sources and Syncs in PostgreSQL."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.messages import copy_of, set_times
from vesta_common.resources.methods import body_of, existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.connection.v1 import Refusal, Source, Sync, SyncFailed, SyncProgressed, SyncSucceeded
from vesta_contracts.datasets.v1 import CreatedItem

from vesta_connection.ingest import Refused
from vesta_connection.sources.batches import Known
from vesta_connection.vault import Sealed, Vault

SERVICE = "connection"
REFUSALS_KEPT = 100

queries = load_queries("vesta_connection")


@dataclass
class ClaimedSync:
    """A Sync that this worker holds until its lease runs out. The lease's end fences its writes: two workers never have the same.

    Attributes:
        start_time: when the first worker began it.
        cancel_requested: whether it was asked to end before this worker took it.
    """

    name: str
    source: str
    start_time: datetime
    lease_expire_time: datetime
    cancel_requested: bool = False


@dataclass(frozen=True)
class FileResult:
    """What became of one file."""

    file_name: str
    fingerprint: str
    outcome: CreatedItem | Refused


class Store:
    """The service's tables.

    Args:
        vault: encrypts the secrets of sources.
    """

    def __init__(self, postgres: Postgres, clock: Clock, vault: Vault) -> None:
        self.postgres = postgres
        self._clock = clock
        self._vault = vault

    def count_unfinished_syncs(self, connection: Connection) -> list[dict[str, Any]]:
        """Unfinished Syncs by state, with the age of the oldest."""
        return list(queries.count_unfinished_syncs(connection))

    def insert_source(self, connection: Connection, source: Source, secret: str) -> None:
        """Keeps a new Source.

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
        """A Source without its secret.

        Raises:
            NotFound: there is none.
        """
        return resource_of(Source, existing(queries.find_source(connection, name=name), name))

    def get_source_with_secret(self, name: str) -> tuple[Source, str]:
        """A Source and its secret.

        Raises:
            NotFound: there is none.
            FailedPrecondition: SECRET_UNREADABLE.
        """
        with self.postgres.transaction() as connection:
            row = existing(queries.find_source(connection, name=name), name)
        return resource_of(Source, row), self._vault.open(_sealed(row))

    def lock_source(self, connection: Connection, name: str) -> tuple[Source, Sealed]:
        """A Source and its secret as it is stored, kept from others until the transaction ends.

        Raises:
            NotFound: there is none.
        """
        row = existing(queries.lock_source(connection, name=name), name)
        return resource_of(Source, row), _sealed(row)

    def list_sources(self, connection: Connection, parent: str, after: str, limit: int) -> list[Source]:
        """A project's Sources after a name, in order of name."""
        return [
            resource_of(Source, row)
            for row in queries.list_sources(connection, parent=parent, after=after, limit=limit)
        ]

    def update_source(self, connection: Connection, source: Source, sealed: Sealed) -> None:
        """Keeps a changed Source.

        Args:
            sealed: its secret, as `lock_source` answered it where no other one is set.

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
        """Sources whose secret is not encrypted with the first key."""
        with self.postgres.transaction() as connection:
            rows = queries.list_sources_to_reseal(connection, secret_key_id=self._vault.first_key_id)
        return [row["name"] for row in rows]

    def reseal_source(self, name: str) -> bool:
        """Encrypts a Source's secret with the first key; False where that, or the Source, is gone meanwhile.

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
        """Removes a Source with its Syncs."""
        queries.delete_source(connection, name=name)

    def count_running_syncs(self, connection: Connection, source: str) -> int:
        """Syncs of a Source that have not ended."""
        return int(queries.count_running_syncs(connection, source=source))

    def insert_sync(self, connection: Connection, name: str, source: str) -> None:
        """Keeps a new Sync, to be claimed by a worker."""
        queries.insert_sync(connection, name=name, source=source, now=self._clock.now())

    def get_sync(self, connection: Connection, name: str) -> Sync:
        """A Sync.

        Raises:
            NotFound: there is none.
        """
        return _sync(existing(queries.find_sync(connection, name=name), name))

    def list_syncs(self, connection: Connection, source: str, before: tuple[datetime, str], limit: int) -> list[Sync]:
        """A Source's Syncs, newest first."""
        rows = queries.list_syncs(connection, source=source, before_time=before[0], before_name=before[1], limit=limit)
        return [_sync(row) for row in rows]

    def cancel_sync(self, connection: Connection, name: str) -> Sync:
        """Asks a Sync to end; one that has ended is answered as it is.

        Raises:
            NotFound: there is none.
        """
        row = queries.request_cancel(connection, name=name, now=self._clock.now())
        return _sync(row) if row else self.get_sync(connection, name)

    def claim_sync(self, now: datetime, lease: timedelta) -> ClaimedSync | None:
        """Takes the oldest Sync that nobody works on."""
        expire = now + lease
        with self.postgres.transaction() as connection:
            row = queries.claim_sync(connection, now=now, lease_expire_time=expire)
        if row is None:
            return None
        return ClaimedSync(row["name"], row["source"], row["start_time"], expire, row["cancel_requested"])

    def renew_sync(self, claimed: ClaimedSync, now: datetime, lease: timedelta) -> bool | None:
        """Keeps the claim; answers whether the Sync was asked to end, None where another worker has taken it over."""
        expire = now + lease
        with self.postgres.transaction() as connection:
            row = queries.renew_sync(
                connection, name=claimed.name, held=claimed.lease_expire_time, lease_expire_time=expire
            )
        if row is None:
            return None
        claimed.lease_expire_time = expire
        return bool(row["cancel_requested"])

    def release_sync(self, claimed: ClaimedSync) -> None:
        """Gives a Sync back at once, for the next worker."""
        with self.postgres.transaction() as connection:
            queries.release_sync(connection, name=claimed.name, held=claimed.lease_expire_time)

    def known_files(self, source: str) -> dict[str, Known]:
        """What is remembered of a Source's files, by file name."""
        with self.postgres.transaction() as connection:
            rows = queries.list_files(connection, source=source)
            return {row["file_name"]: Known(row["fingerprint"], row["sync"]) for row in rows}

    def record_listing(self, claimed: ClaimedSync, found_count: int, unchanged_count: int, *, listed: bool) -> None:
        """Keeps how far the listing is, unless another worker has taken the Sync over."""
        with self.postgres.transaction() as connection:
            queries.record_listing(
                connection,
                name=claimed.name,
                held=claimed.lease_expire_time,
                found_count=found_count,
                unchanged_count=unchanged_count,
                listed=listed,
            )

    def record_batch(self, claimed: ClaimedSync, results: Sequence[FileResult], *, tell: bool) -> bool:
        """Keeps what became of a batch, and the files, in one transaction; publishes the progress where asked to.

        Returns:
            False, and nothing is kept, where another worker has taken the Sync over.
        """
        created = [result for result in results if isinstance(result.outcome, CreatedItem)]
        refused = [result.outcome for result in results if isinstance(result.outcome, Refused)]
        duplicates = sum(result.outcome.existed for result in created if isinstance(result.outcome, CreatedItem))
        with self.postgres.transaction() as connection:
            row = queries.record_batch(
                connection,
                name=claimed.name,
                held=claimed.lease_expire_time,
                added_count=len(created) - duplicates,
                duplicate_count=duplicates,
                refused_count=len(refused),
                refusals=json.dumps([vars(refusal) for refusal in refused[:REFUSALS_KEPT]]),
            )
            if row is None:
                return False
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
            if tell:
                self._publish(connection, claimed.name, SyncProgressed(sync=_sync(row)))
        return True

    def end_sync(self, claimed: ClaimedSync, state: Sync.State.ValueType, error: str, now: datetime) -> None:
        """Ends a Sync and publishes how, in one transaction. One that another worker has taken over stays as it is."""
        name = claimed.name
        with self.postgres.transaction() as connection:
            row = queries.end_sync(
                connection,
                name=name,
                held=claimed.lease_expire_time,
                state=Sync.State.Name(state),
                error=error,
                now=now,
            )
            if row is None:
                return
            if state == Sync.SUCCEEDED:
                self._publish(connection, name, SyncSucceeded(sync=_sync(row)))
            elif state == Sync.FAILED:
                self._publish(connection, name, SyncFailed(sync=_sync(row)))

    def _publish(self, connection: Connection, name: str, payload: Any) -> None:
        outbox.publish(connection, new_event(SERVICE, name, payload, self._clock.now()))


def _sealed(row: dict[str, Any]) -> Sealed:
    """The secret of a row, from before secrets were encrypted or after."""
    return Sealed("", row["secret"]) if row["secret"] else Sealed(row["secret_key_id"], row["secret_token"])


def _body(source: Source) -> bytes:
    """What is kept of a Source: all but its secret, its times and its etag."""
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
