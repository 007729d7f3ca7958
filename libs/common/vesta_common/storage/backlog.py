"""Backlog metrics: counts work in a table periodically. All replicas export the same values; queries take the maximum."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from prometheus_client import Gauge

from vesta_common.storage.postgres import Connection, Postgres

BACKLOG_INTERVAL = timedelta(seconds=10)


class Backlog:
    """Sets gauges from the rows of a query. Run `step` in a `BackgroundTask` with the pause `BACKLOG_INTERVAL`.

    Args:
        states: all states, so that a state without work reads 0.
        counts: gauge for the amount of work, with the label `state`.
        ages: gauge for the age of the oldest work in seconds, with the label `state`.
        read: returns rows with `state` and `count`, and with `age_seconds` if `ages` is given.
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
        """Updates the gauges. Always returns False, because there is no further work until the next interval."""
        with self._postgres.transaction() as connection:
            rows = {row["state"]: row for row in self._read(connection)}
        for state in self._states:
            row = rows.get(state, {})
            self._counts.labels(state).set(row.get("count", 0))
            if self._ages is not None:
                self._ages.labels(state).set(row.get("age_seconds", 0))
        return False
