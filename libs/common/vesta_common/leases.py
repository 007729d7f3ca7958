"""Leases on rows: a worker claims a row of a table for a limited time, and a fencing token rejects its writes once another has claimed it.

The table has the columns `lease_expire_time timestamptz`, `fencing_token bigint NOT NULL DEFAULT 0` and
`attempt_count integer NOT NULL DEFAULT 0`. A row can be claimed while it is unfinished and its lease is null or expired; a postponed row
has the time of its next attempt there. A claim increments the fencing token and the attempt count.

All operations run in the caller's transaction. A worker that writes to other rows, or to other columns of its own row, calls `verify`
first in the same transaction: it locks the row, so that no other worker can claim it before the commit.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, LiteralString, Self

import structlog
from psycopg import sql

from vesta_common.clock import Clock
from vesta_common.storage.postgres import Connection, Postgres

RENEWALS_PER_LEASE = 3

log = structlog.get_logger()

Row = Mapping[str, Any]


class LeaseLost(Exception):
    """The lease is not valid any more: another worker has claimed the row, or the row was finished or deleted.

    The transaction must be rolled back, and the worker must stop its work on the row.
    """


@dataclass(frozen=True)
class Lease:
    """A row that this worker has claimed.

    Attributes:
        key: the values of the key columns, by column.
        fencing_token: unique per claim of the row, increasing.
        attempt_count: the number of counted attempts, including this one.
        row: the columns of the row after the claim.
    """

    key: Row
    fencing_token: int
    attempt_count: int
    row: Row


class Leases:
    """The leases on the rows of one table. Thread-safe.

    The conditions are SQL on the columns of the table, which can be qualified with its name, and can contain `%(now)s`.

    Args:
        duration: how long a claim or a renewal lasts.
        key: the columns of the primary key, of type `text`.
        unfinished: whether the row has work left. A lease on a row that is finished is lost.
        claimable: further condition for a claim. A lease stays valid while it does not hold.
        order: which row is claimed first.
    """

    def __init__(
        self,
        table: LiteralString,
        duration: timedelta,
        *,
        key: Sequence[LiteralString] = ("name",),
        unfinished: LiteralString = "true",
        claimable: LiteralString = "true",
        order: LiteralString = "create_time",
    ) -> None:
        self._table = table
        self._key = tuple(key)
        self._duration = duration
        parts = {
            "table": sql.Identifier(table),
            "unfinished": sql.SQL(unfinished),
            "claimable": sql.SQL(claimable),
            "order": sql.SQL(order),
            "key": sql.SQL(", ").join(map(sql.Identifier, key)),
            "own_key": sql.SQL(", ").join(sql.Identifier(table, column) for column in key),
            "chosen_key": sql.SQL(", ").join(sql.Identifier("chosen", column) for column in key),
            "key_values": sql.SQL(", ").join(sql.SQL("{}::text[]").format(sql.Placeholder(column)) for column in key),
        }
        self._claim, self._lock, self._renew, self._release = (
            sql.SQL(statement).format(**parts) for statement in (_CLAIM, _LOCK, _RENEW, _RELEASE)
        )

    def claim(self, connection: Connection, now: datetime) -> Lease | None:
        """Claims the first row; returns None if there is none."""
        leases = self.claim_many(connection, now, 1)
        return leases[0] if leases else None

    def claim_many(self, connection: Connection, now: datetime, limit: int) -> list[Lease]:
        """Claims the first rows, at most `limit`. Rows that another transaction has locked are skipped."""
        rows = connection.execute(
            self._claim, {"now": now, "expire_time": now + self._duration, "limit": limit}
        ).fetchall()
        return [
            Lease({column: row[column] for column in self._key}, row["fencing_token"], row["attempt_count"], row)
            for row in rows
        ]

    def verify(self, connection: Connection, *leases: Lease) -> None:
        """Locks the rows until the end of the transaction.

        Raises:
            LeaseLost: one of the leases is lost.
        """
        rows = connection.execute(self._lock, self._parameters(leases)).fetchall()
        if len(rows) < len(leases):
            raise self._lost(leases[0])

    def renew(self, connection: Connection, leases: Lease | Sequence[Lease], now: datetime) -> Row:
        """Renews a lease, or several, from now on. Returns the current columns of one of the rows.

        Raises:
            LeaseLost: one of the leases is lost.
        """
        leases = _sequence(leases)
        parameters = {**self._parameters(leases), "expire_time": now + self._duration}
        rows = connection.execute(self._renew, parameters).fetchall()
        if len(rows) < len(leases):
            raise self._lost(leases[0])
        return rows[0]

    def release(self, connection: Connection, *leases: Lease, counted: bool = True) -> None:
        """Releases the rows, so that another worker can claim them immediately. Does nothing to those whose lease is lost.

        Args:
            counted: whether this was an attempt. If not, the attempt count is decremented.
        """
        self._release_until(connection, leases, None, counted=counted)

    def postpone(self, connection: Connection, lease: Lease, until: datetime, *, counted: bool = True) -> None:
        """Releases the row, so that a worker can claim it at the given time. Does nothing if the lease is lost.

        Args:
            counted: whether this was an attempt. If not, the attempt count is decremented.
        """
        self._release_until(connection, [lease], until, counted=counted)

    def heartbeat(
        self,
        postgres: Postgres,
        leases: Lease | Sequence[Lease],
        clock: Clock,
        interval: timedelta | None = None,
        on_renewal: Callable[[Connection, Row], None] | None = None,
    ) -> "Heartbeat":
        """Returns a context manager that renews a lease, or several, in a thread while its block runs.

        Release the rows after the block: a renewal that waits for their release would claim them again.

        Args:
            interval: between two renewals; by default a third of the duration.
            on_renewal: called with the current columns of one of the rows in the transaction of each renewal.
        """

        def renew() -> None:
            with postgres.transaction() as connection:
                row = self.renew(connection, leases, clock.now())
                if on_renewal is not None:
                    on_renewal(connection, row)

        return Heartbeat(renew, interval or self._duration / RENEWALS_PER_LEASE, self._described(_sequence(leases)[0]))

    def _release_until(
        self, connection: Connection, leases: Sequence[Lease], until: datetime | None, *, counted: bool
    ) -> None:
        connection.execute(self._release, {**self._parameters(leases), "until": until, "uncounted": int(not counted)})

    def _parameters(self, leases: Sequence[Lease]) -> dict[str, Any]:
        columns = {column: [lease.key[column] for lease in leases] for column in self._key}
        return {**columns, "fencing_tokens": [lease.fencing_token for lease in leases]}

    def _lost(self, lease: Lease) -> LeaseLost:
        return LeaseLost(
            f"the lease on {self._described(lease)} is lost: another worker has claimed it, or it was finished or deleted; "
            "stop the work on it"
        )

    def _described(self, lease: Lease) -> str:
        return f"{self._table} {' '.join(map(str, lease.key.values()))}"


def _sequence(leases: Lease | Sequence[Lease]) -> Sequence[Lease]:
    return [leases] if isinstance(leases, Lease) else leases


class Heartbeat:
    """Renews leases in a thread while a block runs. Continues with a warning if the database is unavailable.

    Attributes:
        lost: set when the lease is lost; it is not renewed any more then.
    """

    def __init__(self, renew: Callable[[], None], interval: timedelta, described: str) -> None:
        self.lost = threading.Event()
        self._renew = renew
        self._interval = interval
        self._described = described
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)

    def check(self) -> None:
        """Checks the result of the last renewal, without a query.

        Raises:
            LeaseLost: the lease is lost.
        """
        if self.lost.is_set():
            raise LeaseLost(f"the lease on {self._described} was lost during the work; stop it")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval.total_seconds()):
            try:
                self._renew()
            except LeaseLost as error:
                log.warning("lease_lost", error=str(error))
                self.lost.set()
                return
            except Exception as error:  # noqa: BLE001 - the next renewal may succeed
                log.warning("lease_renewal_failed", lease=self._described, error=str(error))


# A common table expression is executed once; a subquery of the UPDATE could be executed again and lock more rows than the limit.
_CLAIM = """
WITH chosen AS (
    SELECT {key} FROM {table}
    WHERE ({unfinished}) AND (lease_expire_time IS NULL OR lease_expire_time <= %(now)s) AND ({claimable})
    ORDER BY {order} LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE {table}
SET lease_expire_time = %(expire_time)s, fencing_token = fencing_token + 1, attempt_count = attempt_count + 1
FROM chosen WHERE ({own_key}) = ({chosen_key})
RETURNING {table}.*
"""
_HELD = (
    "({key}, fencing_token) IN (SELECT * FROM unnest({key_values}, %(fencing_tokens)s::bigint[])) AND ({unfinished})"
)
_LOCK = f"SELECT FROM {{table}} WHERE {_HELD} ORDER BY {{key}} FOR UPDATE"
_RENEW = f"UPDATE {{table}} SET lease_expire_time = %(expire_time)s WHERE {_HELD} RETURNING *"
_RELEASE = f"""
UPDATE {{table}} SET lease_expire_time = %(until)s, attempt_count = greatest(attempt_count - %(uncounted)s, 0)
WHERE {_HELD}
"""
