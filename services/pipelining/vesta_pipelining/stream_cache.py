"""Which stream is watched how, asked at most once a second: frames come many times as often."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vesta_common.clock import Clock

from vesta_pipelining.store import Store, Watch

FRESH = timedelta(seconds=1)
REMEMBERED_MAX = 10_000


@dataclass(frozen=True)
class _Found:
    watch: Watch
    time: datetime


class Watches:
    """Remembers the streams that there are; a stream that there is not is looked for each time, as it may just have been made."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._found: dict[str, _Found] = {}

    def find(self, stream: str) -> Watch | None:
        """How a stream is watched; None where there is no such stream."""
        now, known = self._clock.now(), self._found.get(stream)
        if known and now - known.time < FRESH:
            return known.watch
        watch = self._store.find_watch(stream)
        self._found.pop(stream, None)
        if watch:
            if len(self._found) >= REMEMBERED_MAX:
                self._found.clear()
            self._found[stream] = _Found(watch, now)
        return watch
