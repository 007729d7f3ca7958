"""The work of scoring in PostgreSQL: passes over datasets, new items, and the leases of the workers that score them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.leases import Heartbeat, Lease, Leases
from vesta_common.storage.postgres import Connection, Postgres

from vesta_serving.store.rows import Pass, pass_of
from vesta_serving.store.statements import queries

LEASE_DURATION = timedelta(seconds=60)
_PASS_LEASES = Leases(
    "passes",
    LEASE_DURATION,
    key=("deployment", "dataset"),
    unfinished="NOT done",
    claimable="""
        EXISTS (SELECT FROM deployments WHERE deployments.name = passes.deployment AND stable <> '')
        AND NOT EXISTS (
            SELECT FROM backoffs
            WHERE backoffs.deployment = passes.deployment AND backoffs.dataset = passes.dataset AND retry_time > %(now)s)""",
    order="deployment, dataset",
)
_ARRIVAL_LEASES = Leases(
    "arrivals",
    LEASE_DURATION,
    key=("deployment", "item"),
    claimable="""
        (deployment, dataset) = (
            SELECT first.deployment, first.dataset FROM arrivals AS first JOIN deployments ON deployments.name = first.deployment
            WHERE stable <> '' AND (first.lease_expire_time IS NULL OR first.lease_expire_time <= %(now)s)
              AND NOT EXISTS (
                  SELECT FROM backoffs
                  WHERE backoffs.deployment = first.deployment AND backoffs.dataset = first.dataset AND retry_time > %(now)s)
            ORDER BY first.deployment, first.dataset LIMIT 1)""",
    order="item",
)
"""A batch has items of one deployment and one dataset: of the first that has claimable items and is not in backoff."""


@dataclass(frozen=True, kw_only=True)
class ClaimedPass(Pass):
    """A scoring pass whose next page this worker has claimed."""

    lease: Lease


@dataclass(frozen=True)
class Arrival:
    """A new item to score.

    Attributes:
        traceparent: of the trace that added the item; empty if there is none.
    """

    deployment: str
    item: str
    object_key: str
    sha256: str
    traceparent: str = ""


@dataclass(frozen=True, kw_only=True)
class ClaimedArrival(Arrival):
    """A new item that this worker has claimed."""

    lease: Lease


class Scoring:
    """The tables of passes and arrivals."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def count_arrivals(self, connection: Connection) -> list[dict[str, Any]]:
        """Counts new items by whether a worker is scoring them."""
        return list(queries.count_arrivals(connection))

    def claim_pass(self) -> ClaimedPass | None:
        """Claims a pass that has no lease, whose deployment has a stable version, and that is not in backoff."""
        with self._postgres.transaction() as connection:
            lease = _PASS_LEASES.claim(connection, self._clock.now())
        return ClaimedPass(**vars(pass_of(lease.row)), lease=lease) if lease else None

    def pass_heartbeat(self, claimed: ClaimedPass, interval: timedelta | None = None) -> Heartbeat:
        """Returns a context manager that renews the lease of a pass while its block runs."""
        return _PASS_LEASES.heartbeat(self._postgres, claimed.lease, self._clock, interval)

    def advance_pass(
        self,
        connection: Connection,
        claimed: ClaimedPass,
        page_token: str,
        scored_count: int,
        item_count: int,
        *,
        done: bool,
    ) -> bool:
        """Records a page of a pass and releases the pass.

        The end of a pass locks the deployment until the transaction ends. When passes end at the same time, the last one therefore
        sees that all others are done, in any replica.

        Returns:
            Whether this page completes all passes of the deployment; true for exactly one page.

        Raises:
            LeaseLost: a newer generation has restarted the pass, another worker has claimed it, or the deployment was deleted.
        """
        if done:
            queries.lock_deployment(connection, name=claimed.deployment)
        _PASS_LEASES.verify(connection, claimed.lease)
        queries.advance_pass(
            connection,
            deployment=claimed.deployment,
            dataset=claimed.dataset,
            page_token=page_token,
            scored_count=scored_count,
            item_count=item_count,
            done=done,
        )
        return done and not queries.count_unfinished_passes(connection, deployment=claimed.deployment)

    def release_pass(self, claimed: ClaimedPass) -> None:
        """Releases the lease of a pass."""
        with self._postgres.transaction() as connection:
            _PASS_LEASES.release(connection, claimed.lease)

    def add_arrival(self, connection: Connection, dataset: str, item: str, object_key: str, sha256: str) -> None:
        """Queues a new item, with the current trace, for every deployment that scores its dataset."""
        traceparent = trace.carrier().get("traceparent", "")
        for row in list(queries.list_deployments_of_dataset(connection, dataset=dataset)):
            queries.put_arrival(
                connection,
                deployment=row["deployment"],
                item=item,
                object_key=object_key,
                sha256=sha256,
                traceparent=traceparent,
            )

    def claim_arrivals(self, limit: int) -> list[ClaimedArrival]:
        """Claims new items of one deployment and dataset that have no lease and are not in backoff."""
        with self._postgres.transaction() as connection:
            leases = _ARRIVAL_LEASES.claim_many(connection, self._clock.now(), limit)
        fields = ("deployment", "item", "object_key", "sha256", "traceparent")
        return [ClaimedArrival(**{field: lease.row[field] for field in fields}, lease=lease) for lease in leases]

    def arrivals_heartbeat(self, arrivals: Sequence[ClaimedArrival], interval: timedelta | None = None) -> Heartbeat:
        """Returns a context manager that renews the leases of new items while its block runs."""
        leases = [arrival.lease for arrival in arrivals]
        return _ARRIVAL_LEASES.heartbeat(self._postgres, leases, self._clock, interval)

    def delete_arrivals(self, connection: Connection, arrivals: Sequence[ClaimedArrival]) -> None:
        """Deletes new items of one deployment.

        Raises:
            LeaseLost: another worker has claimed one of them, or the deployment was deleted.
        """
        _ARRIVAL_LEASES.verify(connection, *(arrival.lease for arrival in arrivals))
        items = [arrival.item for arrival in arrivals]
        queries.delete_arrivals(connection, deployment=arrivals[0].deployment, items=items)

    def release_arrivals(self, arrivals: Sequence[ClaimedArrival]) -> None:
        """Releases the leases of new items."""
        with self._postgres.transaction() as connection:
            _ARRIVAL_LEASES.release(connection, *(arrival.lease for arrival in arrivals))
