"""From bytes as they arrived to stored media: decoded in a child process, stripped, hashed, kept once with a thumbnail."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from vesta_common.clock import Clock
from vesta_common.errors import VestaError
from vesta_common.images import NormalisedImage, normalise
from vesta_common.objects import ObjectStore
from vesta_common.sandbox import Sandbox
from vesta_contracts.common.v1 import Media, Provenance

STORE_THREADS = 8
# Reasons that say nothing of a file's content: it is looked at again the next time.
UNREADABLE, UNREACHABLE = "FILE_UNREADABLE", "FILE_UNREACHABLE"


@dataclass(frozen=True)
class Arrival:
    """A file as it arrived."""

    file_name: str
    data: bytes
    changed_time: datetime | None = None


@dataclass(frozen=True)
class Refused:
    """A file that was not taken in, and why."""

    file_name: str
    reason: str
    message: str


class Ingest:
    """Stores pictures. Safe to share between threads; both the sandbox and the store are.

    Args:
        sandbox: where untrusted bytes are decoded.
        store: where what came out is kept.
    """

    def __init__(self, sandbox: Sandbox, store: ObjectStore, clock: Clock) -> None:
        self._sandbox = sandbox
        self._store = store
        self._clock = clock
        self._threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")

    def take(
        self, arrivals: Sequence[Arrival], source: str = "", ingest_time: datetime | None = None
    ) -> list[Media | Refused]:
        """Decodes and stores each file; one refused file spoils no other.

        Args:
            ingest_time: what their provenance says; now, if it is left out. Given, the same files give the same media.

        Raises:
            Unavailable: the object store does not answer. What was stored already is found again by its hash.
        """
        arrived = ingest_time or self._clock.now()
        normalised = self._sandbox.map(normalise, [arrival.data for arrival in arrivals])
        waiting = [
            Refused(arrival.file_name, result.reason, str(result))
            if isinstance(result, VestaError)
            else self._threads.submit(self._store_one, arrival, result, source, arrived)
            for arrival, result in zip(arrivals, normalised, strict=True)
        ]
        return [entry if isinstance(entry, Refused) else entry.result() for entry in waiting]

    def close(self) -> None:
        """Waits for what is being stored."""
        self._threads.shutdown()

    def _store_one(self, arrival: Arrival, image: NormalisedImage, source: str, arrived: datetime) -> Media:
        stored = self._store.put("media", image.data)
        thumbnail = self._store.put_named(f"thumbnails/{stored.sha256}", image.thumbnail_jpeg)
        unchanged = image.data == arrival.data
        original_sha256 = stored.sha256 if unchanged else hashlib.sha256(arrival.data).hexdigest()
        media = Media(
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            mime_type=image.mime_type,
            width_px=image.width_px,
            height_px=image.height_px,
            object_key=stored.key,
            thumbnail_key=thumbnail.key,
            perceptual_hash=image.perceptual_hash,
            provenance=Provenance(source=source, file_name=arrival.file_name, original_sha256=original_sha256),
        )
        taken = image.taken_time or arrival.changed_time
        if taken:
            media.provenance.taken_time.FromDatetime(taken)
        media.provenance.ingest_time.FromDatetime(arrived)
        return media
