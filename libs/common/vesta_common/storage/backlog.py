"""Work that waits in a table, counted from time to time for the metrics. Every replica counts the same: queries take the maximum."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from prometheus_client import Gauge

from vesta_common.storage.postgres import Connection, Postgres

BACKLOG_INTERVAL = timedelta(seconds=10)


class Backlog:
    """Sets gauges by the rows of a query; `step` is for a `BackgroundTask` that rests for `BACKLOG_INTERVAL`.

    Args:
        states: every state, so that one without work reads 0.
        counts: of work, by the label `state`.
        ages: seconds since the oldest work of a state was created, likewise.
        read: answers rows with `state` and `count`, and `age_seconds` where there is a gauge for it.
    """

    def __init__(
        self,
        postgres: Postgres,
        read: Callable[[Connection], Iterable[Mapping[str, Any]]],
        states: Sequence[str],
        counts: Gauge,
        ages: Gauge | None = None,
    ) -> None:
        self._postgres = postgres
        self._read = read
        self._states = states
        self._counts = counts
        self._ages = ages

    def step(self) -> bool:
        """Counts; there is never more to do at once."""
        with self._postgres.transaction() as connection:
            rows = {row["state"]: row for row in self._read(connection)}
        for state in self._states:
            row = rows.get(state, {})
            self._counts.labels(state).set(row.get("count", 0))
            if self._ages is not None:
                self._ages.labels(state).set(row.get("age_seconds", 0))
        return False
