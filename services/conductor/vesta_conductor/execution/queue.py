"""Workers that reconcile Loops. Any number in any number of replicas may run, and one at a time reconciles a Loop."""

from datetime import timedelta

import psycopg
import structlog
from vesta_common import trace
from vesta_common.backoff import exponential_backoff
from vesta_common.clock import Clock
from vesta_common.leases import LeaseLost
from vesta_common.storage.postgres import Postgres

from vesta_conductor.execution.driver import BACKOFF_FIRST, BACKOFF_MAX, Driver
from vesta_conductor.metrics import ConductorMetrics
from vesta_conductor.store.loop_queue import ClaimedLoop, claim_loop, loop_heartbeat, requeue_loop

POLL_INTERVAL = timedelta(milliseconds=250)  # of an empty queue
POLL_INTERVAL_OF_OTHERS = timedelta(seconds=1)  # one worker that polls often is enough for a single Loop

log = structlog.get_logger()


class Worker:
    """Claims Loops that are due, one after another. `step` must be called from one thread only.

    A heartbeat renews the lease during a long reconciliation. No transaction is open during calls to other services: it would block the
    outbox.

    Args:
        heartbeat_interval: interval at which the lease is renewed; by default a third of its duration.
    """

    def __init__(
        self,
        postgres: Postgres,
        driver: Driver,
        clock: Clock,
        metrics: ConductorMetrics,
        heartbeat_interval: timedelta | None = None,
    ) -> None:
        self._postgres = postgres
        self._driver = driver
        self._clock = clock
        self._metrics = metrics
        self._heartbeat_interval = heartbeat_interval

    def step(self) -> bool:
        """Reconciles the Loop that has been due longest; returns False if none is due.

        Raises:
            psycopg.Error: the database is unavailable.
        """
        now = self._clock.now()
        with self._postgres.transaction() as connection:
            claimed = claim_loop(connection, now)
        if claimed is None:
            return False
        self._metrics.queue_lag.set((now - claimed.due_since).total_seconds())
        try:
            self._turn(claimed)
        except LeaseLost as error:
            log.warning("loop_not_requeued", loop=claimed.loop, error=str(error))
        return True

    def _turn(self, claimed: ClaimedLoop) -> None:
        delay: timedelta | None = None
        with loop_heartbeat(self._postgres, claimed, self._clock, self._heartbeat_interval):
            try:
                with trace.span("turn", {}), self._metrics.turn_seconds.time():
                    delay = self._driver.turn(claimed.loop, claimed.failures, claimed.lease)
            except (psycopg.Error, LeaseLost):
                raise
            except Exception:
                log.exception("reconciliation_failed", loop=claimed.loop, failures=claimed.failures)
        failures = claimed.failures + 1 if delay is None else 0
        if delay is None:
            delay = exponential_backoff(failures, BACKOFF_FIRST, BACKOFF_MAX)
        with self._postgres.transaction() as connection:
            requeue_loop(connection, claimed, self._clock.now() + delay, failures)
