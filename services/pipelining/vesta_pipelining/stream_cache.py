"""A cache of how streams are processed. Each stream is read at most once a second, because frames arrive more often."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vesta_common.clock import Clock

from vesta_pipelining.store import Store, StreamSettings

FRESH = timedelta(seconds=1)
REMEMBERED_MAX = 10_000


@dataclass(frozen=True)
class _Found:
    settings: StreamSettings
    time: datetime


class StreamCache:
    """Caches existing streams. A stream that does not exist is looked up each time, because it may have just been created."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._found: dict[str, _Found] = {}

    def find(self, stream: str) -> StreamSettings | None:
        """Returns how a stream's frames are processed; None if the stream does not exist."""
        now, known = self._clock.now(), self._found.get(stream)
        if known and now - known.time < FRESH:
            return known.settings
        settings = self._store.find_stream_settings(stream)
        self._found.pop(stream, None)
        if settings:
            if len(self._found) >= REMEMBERED_MAX:
                self._found.clear()
            self._found[stream] = _Found(settings, now)
        return settings
