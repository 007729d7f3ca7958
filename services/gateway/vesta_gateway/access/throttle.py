"""Throttling of overloaded RPCs: refuses early a part of what a service would refuse, before a body is read and sent on.

Adaptive throttling after Google's Site Reliability Engineering, chapter 21: a request is refused here with the probability
`(requests - MULTIPLIER * accepts) / (requests + 1)`, both counted over the last seconds. So the service keeps being asked a little
more than it accepts, and nothing is refused once it accepts everything. Pure but for the clock and the random numbers passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.errors import ResourceExhausted

MULTIPLIER = 1.3
"""How many times what a service accepts it is asked: above 1, so that what becomes free is found out."""
HALF_LIFE = timedelta(seconds=1)
"""After so long a request counts half."""
REQUESTS_MIN = 20
"""With fewer requests remembered nothing is refused."""
RETRY_AFTER = timedelta(seconds=1)


@dataclass
class _Counts:
    requests: float = 0.0
    accepts: float = 0.0
    time: float = 0.0
    retry_after: timedelta = RETRY_AFTER


class Throttle:
    """The throttles of all RPCs, each by its name.

    Args:
        monotonic: seconds of a clock that never turns back.
        random: numbers from 0 to 1.
    """

    def __init__(self, monotonic: Callable[[], float], random: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._random = random
        self._counts: dict[str, _Counts] = {}

    def check(self, rpc: str) -> None:
        """Counts a request, and lets it pass or not.

        Raises:
            ResourceExhausted: OVERLOADED, the service refuses most of these just now.
        """
        counts = self._faded(rpc)
        excess = counts.requests - MULTIPLIER * counts.accepts
        share = max(0.0, excess / (counts.requests + 1)) if counts.requests >= REQUESTS_MIN else 0.0
        counts.requests += 1
        if share and self._random() < share:
            raise ResourceExhausted(
                "the platform has more of these requests than it can answer in time; try again later",
                reason="OVERLOADED",
                metadata={"rpc": rpc},
                retry_after=counts.retry_after,
            )
        counts.accepts += 1  # until the service says otherwise

    def refused(self, rpc: str, retry_after: timedelta | None) -> None:
        """The service refused a request that was let pass, being overloaded."""
        counts = self._faded(rpc)
        counts.accepts = max(0.0, counts.accepts - 1)
        counts.retry_after = retry_after or RETRY_AFTER

    def _faded(self, rpc: str) -> _Counts:
        """The counts of an RPC as they weigh now."""
        counts, now = self._counts.setdefault(rpc, _Counts(time=self._monotonic())), self._monotonic()
        fading = 0.5 ** ((now - counts.time) / HALF_LIFE.total_seconds())
        counts.requests *= fading
        counts.accepts *= fading
        counts.time = now
        return counts
