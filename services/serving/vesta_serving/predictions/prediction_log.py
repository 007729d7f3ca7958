"""The prediction log: lines are gathered and written together, so that logging costs an answer nothing."""

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
    """Writes behind the answers. What the database cannot take just now waits; a stop writes it first. A kill loses the last
    fifth of a second of log lines, never an answer that counts for the loop.

    Args:
        keep: how long lines are kept.
    """

    def __init__(self, store: Store, clock: Clock, registry: CollectorRegistry, keep: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._waiting: queue.Queue[tuple[str, Prediction]] = queue.Queue(LINES_WAITING_MAX)
        self._dropped = Counter(
            "vesta_serving_log_lines_dropped_total",
            "Prediction log lines that found no room or were refused",
            registry=registry,
        )
        self._taken: list[tuple[str, Prediction]] = []  # out of the queue and not written yet

    def add(self, deployment: str, prediction: Prediction) -> None:
        """Takes a line; drops and counts it where the database cannot keep up."""
        try:
            self._waiting.put_nowait((deployment, prediction))
        except queue.Full:
            self._dropped.inc()

    def step(self) -> bool:
        """Writes what waits, in its order; True where more may wait. Lines stay until they are written.

        Raises:
            psycopg.Error: the database is away, or refuses the lines, which would hold up the log for ever and are let go.
        """
        while len(self._taken) < LINES_TOGETHER_MAX and not self._waiting.empty():
            self._taken.append(self._waiting.get_nowait())
        if not self._taken:
            return False
        try:
            self._store.log_predictions(self._taken)
        except Exception as error:
            if not is_transient(error):
                self._dropped.inc(len(self._taken))
                self._taken = []
            raise
        full = len(self._taken) == LINES_TOGETHER_MAX
        self._taken = []
        return full

    def flush(self) -> None:
        """Writes all that waits. Called once `step` is called no more."""
        while self.step():
            pass

    def prune(self) -> bool:
        """Forgets the oldest of the lines that were kept long enough; True where there may be more."""
        return self._store.prune_predictions(self._clock.now() - self._keep, PRUNE_LINES_MAX) == PRUNE_LINES_MAX
