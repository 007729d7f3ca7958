"""The prediction log: entries are buffered and written in batches, so that logging does not delay responses."""

import queue
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter
from vesta_common.clock import Clock
from vesta_common.errors import is_transient
from vesta_contracts.serving.v1 import Prediction

from vesta_serving.store import Store

LINES_WAITING_MAX = 20_000
LINES_TOGETHER_MAX = 1_000
FLUSH_INTERVAL = timedelta(milliseconds=200)
PRUNE_INTERVAL = timedelta(minutes=10)
PRUNE_LINES_MAX = 5_000

log = structlog.get_logger()


class PredictionLog:
    """Writes log entries asynchronously.

    Entries wait while the database is unavailable, and a shutdown writes them first. A kill loses the entries of the last 200 ms, but no
    data that the loop uses.

    Args:
        keep: the retention of entries.
    """

    def __init__(self, store: Store, clock: Clock, registry: CollectorRegistry, keep: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._waiting: queue.Queue[tuple[str, Prediction]] = queue.Queue(LINES_WAITING_MAX)
        self._dropped = Counter(
            "vesta_serving_log_lines_dropped_total",
            "Entries of the prediction log that were lost: the queue was full, or the insertion failed",
            registry=registry,
        )
        self._taken: list[tuple[str, Prediction]] = []  # taken from the queue and not yet written

    def add(self, deployment: str, prediction: Prediction) -> None:
        """Adds an entry; drops and counts it if the buffer is full."""
        try:
            self._waiting.put_nowait((deployment, prediction))
        except queue.Full:
            self._dropped.inc()

    def step(self) -> bool:
        """Writes a batch of entries in order; returns whether there may be more. Keeps the entries until they are written.

        Raises:
            psycopg.Error: the database is unavailable, or rejects the entries, which are then dropped because they would block the log.
        """
        while len(self._taken) < LINES_TOGETHER_MAX and not self._waiting.empty():
            self._taken.append(self._waiting.get_nowait())
        if not self._taken:
            return False
        try:
            self._store.logged_predictions.append(self._taken)
        except Exception as error:
            if not is_transient(error):
                self._dropped.inc(len(self._taken))
                self._taken = []
            raise
        full = len(self._taken) == LINES_TOGETHER_MAX
        self._taken = []
        return full

    def flush(self) -> None:
        """Writes all buffered entries. Must be called after the last call of `step`."""
        while self.step():
            pass

    def prune(self) -> bool:
        """Deletes the oldest entries past their retention; returns whether there may be more."""
        return self._store.logged_predictions.prune(self._clock.now() - self._keep, PRUNE_LINES_MAX) == PRUNE_LINES_MAX
