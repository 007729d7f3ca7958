"""Admission by estimated waiting time: work that would not begin within a bound is refused at once, instead of queueing.

A queue that grows while more comes than is served makes every request late, and the work on those whose callers have given up is
lost for the others. So the length of a queue is bounded in time: the units ahead of a newcomer × the time that a unit takes now,
which is measured. After Little's law; in the manner of CoDel (RFC 8289) the bound is a time, which needs no tuning to a machine.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Histogram

from vesta_common.errors import DeadlineExceeded, ResourceExhausted

MEMORY_UNITS = 32
"""How many of the last units the measured time is an average of, about."""
RETRY_AFTER_MIN = timedelta(milliseconds=250)
RETRY_AFTER_MAX = timedelta(seconds=30)
WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class AdmissionMetrics:
    """What the queues of a service admit, refuse, and let wait."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            f"vesta_{service}_admission",
            "Requests by queue and outcome: accepted, overloaded (refused at once), expired (its deadline had passed)",
            ("queue", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            f"vesta_{service}_queue_seconds",
            "How long accepted requests waited before their work began",
            ("queue",),
            registry=registry,
            buckets=WAIT_BUCKETS,
        )

    def count(self, queue: str, outcome: str) -> None:
        """Counts one request."""
        self._requests.labels(queue, outcome).inc()

    def observe(self, queue: str, seconds: float) -> None:
        """Measures the wait of one."""
        self._seconds.labels(queue).observe(seconds)


class Admission:
    """One queue. Safe to share between threads.

    Args:
        queue: names it, in metrics and refusals.
        wait_max: how long what is admitted may wait, by the estimate.
        parallel: units that are served at the same time; so many are always admitted, so that there is always something to measure.
        units_max: the most units in hand, whatever the estimate.
        monotonic: seconds of a clock that never turns back.
        metrics: counts what is admitted and refused, if given.
    """

    def __init__(
        self,
        queue: str,
        wait_max: timedelta,
        parallel: int,
        units_max: int,
        monotonic: Callable[[], float],
        metrics: AdmissionMetrics | None = None,
    ) -> None:
        self.queue = queue
        self._wait_max_seconds = wait_max.total_seconds()
        self._parallel = parallel
        self._units_max = units_max
        self._monotonic = monotonic
        self._metrics = metrics
        self._lock = threading.Lock()
        self._in_hand = 0
        self._mark = 0.0
        self._busy_seconds = 0.0
        self._served_units = 0.0

    @property
    def in_hand(self) -> int:
        """Units that were admitted and are not done."""
        return self._in_hand

    @property
    def wait_seconds(self) -> float:
        """How long a newcomer would wait, by the estimate."""
        if self._in_hand < self._parallel or not self._served_units:
            return 0.0
        return (self._in_hand - self._parallel + 1) * self._busy_seconds / self._served_units

    @contextmanager
    def admitted(self, units: int = 1, remaining_seconds: float | None = None) -> Iterator[None]:
        """Holds a place in the queue while the block lasts.

        Args:
            units: how much work it is.
            remaining_seconds: how long the caller still waits; None for ever.

        Raises:
            ResourceExhausted: OVERLOADED, it would wait too long; says when to come again.
            DeadlineExceeded: DEADLINE_PASSED, the caller waits no more.
        """
        with self._lock:
            self._check(units, remaining_seconds)
            self._enter(units)
        try:
            yield
        finally:
            self.leave(units)

    def check(self, units: int = 1, remaining_seconds: float | None = None) -> None:
        """Accepts work that would begin in time, for those who call `enter` and `leave` themselves.

        Raises:
            ResourceExhausted, DeadlineExceeded: as `admitted`.
        """
        with self._lock:
            self._check(units, remaining_seconds)

    def enter(self, units: int = 1) -> None:
        """Takes a place without a check."""
        with self._lock:
            self._enter(units)

    def leave(self, units: int = 1) -> None:
        """Gives a place back, and measures."""
        with self._lock:
            now = self._monotonic()
            fading = (1 - 1 / MEMORY_UNITS) ** units
            self._busy_seconds = self._busy_seconds * fading + max(0.0, now - self._mark)
            self._served_units = self._served_units * fading + units
            self._mark = now
            self._in_hand -= units

    def _enter(self, units: int) -> None:
        if not self._in_hand:
            self._mark = self._monotonic()  # idle time is no work
        self._in_hand += units

    def _check(self, units: int, remaining_seconds: float | None) -> None:
        if remaining_seconds is not None and remaining_seconds <= 0:
            self._count("expired")
            raise deadline_passed()
        wait = self.wait_seconds
        bound = self._wait_max_seconds if remaining_seconds is None else min(self._wait_max_seconds, remaining_seconds)
        if wait > bound or self._in_hand + units > self._units_max:
            self._count("overloaded")
            raise ResourceExhausted(
                f"there is more work than can begin within {bound:.3g} s; the estimated wait is {wait:.3g} s; try again later",
                reason="OVERLOADED",
                metadata={"queue": self.queue},
                retry_after=min(max(timedelta(seconds=wait), RETRY_AFTER_MIN), RETRY_AFTER_MAX),
            )
        self._count("accepted")

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.count(self.queue, outcome)


def deadline_passed() -> DeadlineExceeded:
    """The refusal of work that nobody waits for any more."""
    return DeadlineExceeded(
        "the deadline of this call passed before its work began, so it was not done; allow more time",
        reason="DEADLINE_PASSED",
    )
