"""Admission control by estimated queueing time: work that would wait longer than a bound is rejected immediately.

In a queue under overload, every request becomes late, and work for callers that have given up is wasted. The queue is therefore bounded in
time: the estimated wait is the number of units ahead × the measured service time of a unit (Little's law). As in CoDel (RFC 8289) the
bound is a time, so it needs no tuning for the machine.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Histogram

from vesta_common.errors import DeadlineExceeded, ResourceExhausted

MEMORY_UNITS = 32
"""The service time is averaged over approximately this many units."""
RETRY_AFTER_MIN = timedelta(milliseconds=250)
RETRY_AFTER_MAX = timedelta(seconds=30)
WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class AdmissionMetrics:
    """Metrics of a service's queues: accepted and rejected requests, waiting times."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            f"vesta_{service}_admission",
            "Requests by queue and outcome: accepted, overloaded (rejected), expired (deadline passed)",
            ("queue", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            f"vesta_{service}_queue_seconds",
            "Time that accepted requests waited in the queue",
            ("queue",),
            registry=registry,
            buckets=WAIT_BUCKETS,
        )

    def count(self, queue: str, outcome: str) -> None:
        """Counts a request by outcome."""
        self._requests.labels(queue, outcome).inc()

    def observe(self, queue: str, seconds: float) -> None:
        """Records the waiting time of a request."""
        self._seconds.labels(queue).observe(seconds)


class Admission:
    """Admission control of one queue. Thread-safe.

    Args:
        queue: the queue's name in metrics and errors.
        wait_max: the maximum estimated waiting time of admitted work.
        parallel: number of units served concurrently. Up to this number are always admitted, so that there is something to measure.
        units_max: the maximum number of admitted units, regardless of the estimate.
        monotonic: a monotonic clock in seconds.
        metrics: counts admitted and rejected requests, if given.
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
        self._pending = 0
        self._mark = 0.0
        self._busy_seconds = 0.0
        self._served_units = 0.0

    @property
    def pending(self) -> int:
        """Number of admitted units that are not finished."""
        return self._pending

    @property
    def wait_seconds(self) -> float:
        """Estimated waiting time of a new unit."""
        if self._pending < self._parallel or not self._served_units:
            return 0.0
        return (self._pending - self._parallel + 1) * self._busy_seconds / self._served_units

    @contextmanager
    def admitted(self, units: int = 1, remaining_seconds: float | None = None) -> Iterator[None]:
        """Admits work for the duration of the block.

        Args:
            units: the amount of work.
            remaining_seconds: time until the caller's deadline; None for no deadline.

        Raises:
            ResourceExhausted: OVERLOADED, the estimated wait is too long; `retry_after` is set.
            DeadlineExceeded: DEADLINE_PASSED, the caller's deadline has passed.
        """
        with self._lock:
            self._check(units, remaining_seconds)
            self._enter(units)
        try:
            yield
        finally:
            self.leave(units)

    def check(self, units: int = 1, remaining_seconds: float | None = None) -> None:
        """Checks whether work would start in time, for callers that call `enter` and `leave` themselves.

        Raises:
            ResourceExhausted, DeadlineExceeded: as `admitted`.
        """
        with self._lock:
            self._check(units, remaining_seconds)

    def enter(self, units: int = 1) -> None:
        """Admits work without a check."""
        with self._lock:
            self._enter(units)

    def leave(self, units: int = 1) -> None:
        """Finishes admitted work and updates the measured service time."""
        with self._lock:
            now = self._monotonic()
            fading = (1 - 1 / MEMORY_UNITS) ** units
            self._busy_seconds = self._busy_seconds * fading + max(0.0, now - self._mark)
            self._served_units = self._served_units * fading + units
            self._mark = now
            self._pending -= units

    def _enter(self, units: int) -> None:
        if not self._pending:
            self._mark = self._monotonic()  # idle time does not count as service time
        self._pending += units

    def _check(self, units: int, remaining_seconds: float | None) -> None:
        if remaining_seconds is not None and remaining_seconds <= 0:
            self._count("expired")
            raise deadline_passed()
        wait = self.wait_seconds
        bound = self._wait_max_seconds if remaining_seconds is None else min(self._wait_max_seconds, remaining_seconds)
        if wait > bound or self._pending + units > self._units_max:
            self._count("overloaded")
            raise ResourceExhausted(
                f"overloaded: the estimated queue time is {wait:.3g} s, the maximum is {bound:.3g} s; retry later",
                reason="OVERLOADED",
                metadata={"queue": self.queue},
                retry_after=min(max(timedelta(seconds=wait), RETRY_AFTER_MIN), RETRY_AFTER_MAX),
            )
        self._count("accepted")

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.count(self.queue, outcome)


def deadline_passed() -> DeadlineExceeded:
    """Returns the error for work whose caller no longer waits."""
    return DeadlineExceeded(
        "the deadline of this call passed while it was queued; use a longer deadline",
        reason="DEADLINE_PASSED",
    )
