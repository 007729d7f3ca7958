"""Rate limits and concurrency limits per key, per address and in total. Requests over a limit are rejected immediately.

Limits apply per process: N replicas of the gateway allow N times as much.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from vesta_common.errors import ResourceExhausted

BUCKETS_MAX = 50_000
RETRY_AFTER = timedelta(seconds=1)


class TokenBuckets:
    """Token buckets by key. A bucket contains up to `burst` tokens and refills with `per_second`.

    Args:
        what: the name of the limited resource in errors.
        monotonic: a monotonic clock in seconds.
    """

    def __init__(self, what: str, per_second: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._what = what
        self._per_second = per_second
        self._burst = float(burst)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Takes a token.

        Raises:
            ResourceExhausted: RATE_LIMITED, the bucket is empty; `retry_after` is set.
        """
        tokens_left = self.check(key)
        self._buckets[key] = (tokens_left - 1, self._monotonic())
        self._buckets.move_to_end(key)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)

    def check(self, key: str) -> float:
        """Returns the number of tokens, at least one.

        Raises:
            ResourceExhausted: as `take`.
        """
        tokens_left = self._level(key)
        if tokens_left < 1:
            raise self._rate_exceeded(tokens_left)
        return tokens_left

    def _level(self, key: str) -> float:
        level, then = self._buckets.get(key, (self._burst, 0.0))
        return min(self._burst, level + (self._monotonic() - then) * self._per_second)

    def _rate_exceeded(self, tokens_left: float) -> ResourceExhausted:
        wait = timedelta(seconds=(1 - tokens_left) / self._per_second)
        return ResourceExhausted(
            f"rate limit exceeded: more than {self._per_second:g} {self._what} per second at this "
            "gateway replica; retry later",
            reason="RATE_LIMITED",
            retry_after=wait,
        )


class Slots:
    """Limits concurrent operations in total and per key.

    Args:
        what: the name of the limited operations in errors.
    """

    def __init__(self, what: str, total_max: int, per_key_max: int) -> None:
        self._what = what
        self._total_max = total_max
        self._per_key_max = per_key_max
        self._held: dict[str, int] = {}
        self.total = 0

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Holds a slot for the duration of the block.

        Raises:
            ResourceExhausted: CONCURRENCY_LIMITED, no slot is free.
        """
        mine = self._held.get(key, 0)
        if self.total >= self._total_max or mine >= self._per_key_max:
            limit = self._total_max if self.total >= self._total_max else self._per_key_max
            raise ResourceExhausted(
                f"concurrency limit exceeded: more than {limit} {self._what} at once at this gateway "
                "replica; retry later",
                reason="CONCURRENCY_LIMITED",
                retry_after=RETRY_AFTER,
            )
        self.total += 1
        self._held[key] = mine + 1
        try:
            yield
        finally:
            self.total -= 1
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
