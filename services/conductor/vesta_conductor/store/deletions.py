"""The deletion of Projects in PostgreSQL, with the leases of the workers that run its passes."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vesta_common.clock import Clock
from vesta_common.leases import Heartbeat, Lease, Leases
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.conductor.v1 import Project

from vesta_conductor.store.rows import project_of
from vesta_conductor.store.statements import queries

LEASE_DURATION = timedelta(minutes=2)
_LEASES = Leases(
    "projects", LEASE_DURATION, unfinished="state = 'DELETING'", order="coalesce(lease_expire_time, delete_time)"
)


@dataclass(frozen=True)
class ClaimedDeletion:
    """A Project whose next pass of deletion this worker has claimed.

    Attributes:
        failures: consecutive failed passes.
    """

    lease: Lease
    project: Project
    failures: int


def claim_deletion(connection: Connection, now: datetime) -> ClaimedDeletion | None:
    """Claims the Project whose next pass has been due longest; returns None if none is due."""
    lease = _LEASES.claim(connection, now)
    return ClaimedDeletion(lease, project_of(lease.row), lease.row["failures"]) if lease else None


def deletion_heartbeat(postgres: Postgres, claimed: ClaimedDeletion, clock: Clock) -> Heartbeat:
    """Returns a context manager that renews the lease while its block runs."""
    return _LEASES.heartbeat(postgres, claimed.lease, clock)


def put_deletion(
    connection: Connection, claimed: ClaimedDeletion, message: str, due_time: datetime, failures: int
) -> None:
    """Stores the result of a pass, and releases the Project until the next one is due. Raises LeaseLost."""
    _LEASES.verify(connection, claimed.lease)
    queries.put_deletion(connection, name=claimed.project.name, message=message, failures=failures)
    _LEASES.postpone(connection, claimed.lease, due_time)


def end_deletion(connection: Connection, claimed: ClaimedDeletion, now: datetime) -> None:
    """Sets a Project without contents to DELETED. Raises LeaseLost."""
    _LEASES.verify(connection, claimed.lease)
    queries.end_deletion(connection, name=claimed.project.name, now=now)
