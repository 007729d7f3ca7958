"""The work queue of Loops. Any number of workers in any number of replicas process it, and one worker at a time processes a Loop."""

from datetime import timedelta

import psycopg
import structlog
from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.storage.postgres import Connection, Postgres

from vesta_conductor.execution.driver import Driver, backoff
from vesta_conductor.metrics import ConductorMetrics
from vesta_conductor.store import queries

POLL_INTERVAL = timedelta(milliseconds=250)  # of an empty queue
VISIBILITY_TIMEOUT = timedelta(seconds=10)  # how soon a Loop is due again after its worker has died
LOCKED_DELAY = timedelta(milliseconds=500)  # delay before a Loop is retried that another worker has locked

log = structlog.get_logger()


class Worker:
    """Claims Loops that are due, one after another. `step` must be called from one thread only.

    A claim hides a Loop from other workers for the visibility timeout. An advisory lock, which ends with the connection, prevents two
    workers from reconciling one Loop. No transaction is open during calls to other services: it would block the outbox.
    """

    def __init__(self, postgres: Postgres, driver: Driver, clock: Clock, metrics: ConductorMetrics) -> None:
        self._postgres = postgres
        self._driver = driver
        self._clock = clock
        self._metrics = metrics
        self._connection: Connection | None = None

    def step(self) -> bool:
        """Reconciles the Loop that has been due longest; returns False if none is due.

        Raises:
            psycopg.Error: the database is unavailable; the next call reconnects.
        """
        try:
            return self._step(self._connected())
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection, which releases its locks."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._postgres.connect(autocommit=True)
        return self._connection

    def _step(self, connection: Connection) -> bool:
        now = self._clock.now()
        claimed = queries.claim_loop(connection, now=now, hidden_until=now + VISIBILITY_TIMEOUT)
        if claimed is None:
            return False
        loop = claimed["loop"]
        if not queries.try_lock_loop(connection, loop=loop):
            queries.postpone_loop(connection, loop=loop, due_time=now + LOCKED_DELAY)
            return True
        self._metrics.queue_lag.set((now - claimed["due_since"]).total_seconds())
        try:
            self._turn(connection, loop, claimed["generation"], claimed["failures"])
        finally:
            if not connection.closed:
                queries.unlock_loop(connection, loop=loop)
        return True

    def _turn(self, connection: Connection, loop: str, generation: int, failures: int) -> None:
        rest: timedelta | None = None
        try:
            with trace.span("turn", {}), self._metrics.turn_seconds.time():
                rest = self._driver.turn(loop, failures)
        except psycopg.Error:
            raise
        except Exception:
            log.exception("turn_failed", loop=loop, failures=failures)
        now = self._clock.now()
        queries.requeue_loop(
            connection,
            loop=loop,
            generation=generation,
            failures=failures + 1 if rest is None else 0,
            due_time=now + (backoff(failures) if rest is None else rest),
        )
