"""Adaptive throttling of overloaded RPCs: rejects a share of the requests before their body is read and forwarded.

From Google's Site Reliability Engineering, chapter 21: a request is rejected with the probability
`(requests - MULTIPLIER * accepts) / (requests + 1)`, counted over the last seconds. The service thus receives slightly more requests than
it accepts, and nothing is rejected once it accepts all of them. Pure except for the clock and the random numbers, which are passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.errors import ResourceExhausted

MULTIPLIER = 1.3
"""Ratio of forwarded to accepted requests. Above 1, so that free capacity is detected."""
HALF_LIFE = timedelta(seconds=1)
"""Time after which a request counts half."""
REQUESTS_MIN = 20
"""Nothing is rejected while fewer requests are counted."""
RETRY_AFTER = timedelta(seconds=1)


@dataclass
class _Counts:
    requests: float = 0.0
    accepts: float = 0.0
    time: float = 0.0
    retry_after: timedelta = RETRY_AFTER


class Throttle:
    """The throttles of all RPCs by name.

    Args:
        monotonic: a monotonic clock in seconds.
        random: returns random numbers between 0 and 1.
    """

    def __init__(self, monotonic: Callable[[], float], random: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._random = random
        self._counts: dict[str, _Counts] = {}

    def check(self, rpc: str) -> None:
        """Counts a request and decides whether to forward it.

        Raises:
            ResourceExhausted: OVERLOADED, the service currently rejects most of these requests.
        """
        counts = self._faded(rpc)
        excess = counts.requests - MULTIPLIER * counts.accepts
        share = max(0.0, excess / (counts.requests + 1)) if counts.requests >= REQUESTS_MIN else 0.0
        counts.requests += 1
        if share and self._random() < share:
            raise ResourceExhausted(
                "overloaded: the platform cannot serve more of these requests in time; retry later",
                reason="OVERLOADED",
                metadata={"rpc": rpc},
                retry_after=counts.retry_after,
            )
        counts.accepts += 1  # until the service rejects it

    def record_rejection(self, rpc: str, retry_after: timedelta | None) -> None:
        """Records that the service rejected a forwarded request because of overload."""
        counts = self._faded(rpc)
        counts.accepts = max(0.0, counts.accepts - 1)
        counts.retry_after = retry_after or RETRY_AFTER

    def _faded(self, rpc: str) -> _Counts:
        """Returns the counts of an RPC with exponential decay applied."""
        counts, now = self._counts.setdefault(rpc, _Counts(time=self._monotonic())), self._monotonic()
        fading = 0.5 ** ((now - counts.time) / HALF_LIFE.total_seconds())
        counts.requests *= fading
        counts.accepts *= fading
        counts.time = now
        return counts
