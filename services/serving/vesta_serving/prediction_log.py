"""The prediction log: lines are gathered and written together, so that logging costs an answer nothing."""

import queue
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter
from vesta_common.clock import Clock
from vesta_contracts.serving.v1 import Prediction

from vesta_serving.store import Store

LINES_WAITING_MAX = 20_000
LINES_TOGETHER_MAX = 1_000
FLUSH_INTERVAL = timedelta(milliseconds=200)
PRUNE_EVERY = 3_000

log = structlog.get_logger()


class PredictionLog:
    """Writes behind the answers. A kill loses the last fifth of a second of log lines, never an answer that counts for the loop.

    Args:
        keep: how long lines are kept.
    """

    def __init__(self, store: Store, clock: Clock, registry: CollectorRegistry, keep: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._waiting: queue.Queue[tuple[str, Prediction]] = queue.Queue(LINES_WAITING_MAX)
        self._dropped = Counter(
            "vesta_serving_log_lines_dropped_total", "Prediction log lines that found no room", registry=registry
        )
        self._steps = 0

    def add(self, deployment: str, prediction: Prediction) -> None:
        """Takes a line; drops and counts it where the database cannot keep up."""
        try:
            self._waiting.put_nowait((deployment, prediction))
        except queue.Full:
            self._dropped.inc()

    def step(self) -> bool:
        """Writes what waits; True where more may wait."""
        lines: list[tuple[str, Prediction]] = []
        while len(lines) < LINES_TOGETHER_MAX and not self._waiting.empty():
            lines.append(self._waiting.get_nowait())
        if lines:
            self._store.log_predictions(lines)
        self._steps += 1
        if self._steps % PRUNE_EVERY == 0:
            self._store.prune_predictions(self._clock.now() - self._keep)
        return len(lines) == LINES_TOGETHER_MAX
