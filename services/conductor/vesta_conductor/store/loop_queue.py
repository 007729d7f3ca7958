"""The work queue of Loops in PostgreSQL: when each Loop is due, and the leases of the workers that reconcile them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vesta_common.clock import Clock
from vesta_common.leases import Heartbeat, Lease, Leases
from vesta_common.storage.postgres import Connection, Postgres

from vesta_conductor.store.statements import queries

LEASE_DURATION = timedelta(seconds=10)
_LEASES = Leases("loop_queue", LEASE_DURATION, key=("loop",), claimable="due_time <= %(now)s", order="due_time")


@dataclass(frozen=True)
class ClaimedLoop:
    """A Loop that this worker has claimed for one reconciliation.

    Attributes:
        due_since: when the Loop became due.
        generation: the number of events that have scheduled the Loop so far.
        failures: consecutive failed reconciliations.
    """

    lease: Lease
    loop: str
    due_since: datetime
    generation: int
    failures: int


def claim_loop(connection: Connection, now: datetime) -> ClaimedLoop | None:
    """Claims the Loop that has been due longest; returns None if none is due.

    The Loop is due again when the lease expires, or when an event schedules it earlier; neither is effective before it is requeued.
    """
    lease = _LEASES.claim(connection, now)
    if lease is None:
        return None
    row = lease.row
    queries.schedule_loop(connection, loop=row["loop"], due_time=row["lease_expire_time"])
    return ClaimedLoop(lease, row["loop"], row["due_time"], row["generation"], row["failures"])


def loop_heartbeat(
    postgres: Postgres, claimed: ClaimedLoop, clock: Clock, interval: timedelta | None = None
) -> Heartbeat:
    """Returns a context manager that renews the lease while its block runs."""
    return _LEASES.heartbeat(postgres, claimed.lease, clock, interval)


def verify_loop(connection: Connection, lease: Lease) -> None:
    """Checks the lease at the end of a transaction that writes to a Loop. Its row in the queue is locked last, as everywhere.

    Raises:
        LeaseLost: another worker has claimed the Loop, or it was deleted.
    """
    _LEASES.verify(connection, lease)


def requeue_loop(connection: Connection, claimed: ClaimedLoop, due_time: datetime, failures: int) -> None:
    """Releases a Loop and schedules its next reconciliation: at the due time, or earlier if an event has scheduled it since the claim.

    Raises:
        LeaseLost: another worker has claimed the Loop, or it was deleted.
    """
    _LEASES.verify(connection, claimed.lease)
    queries.requeue_loop(
        connection, loop=claimed.loop, generation=claimed.generation, failures=failures, due_time=due_time
    )
    _LEASES.release(connection, claimed.lease)
