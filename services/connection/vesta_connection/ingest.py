"""From bytes as they arrived to stored media: decoded in a child process, stripped, hashed, kept once with a thumbnail."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from vesta_common.byte_budget import ByteBudget
from vesta_common.clock import Clock
from vesta_common.errors import VestaError
from vesta_common.media.images import NormalisedImage, normalise
from vesta_common.sandbox import Sandbox
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import Media, Provenance

STORE_THREADS = 8
IN_HAND_BYTES_MAX = 128 * 1024 * 1024
# Reasons that say nothing of a file's content: it is looked at again the next time.
UNREADABLE, UNREACHABLE = "FILE_UNREADABLE", "FILE_UNREACHABLE"
LOOKED_AT_AGAIN = frozenset({UNREADABLE, UNREACHABLE, "SANDBOX_FAILED"})


@dataclass(frozen=True)
class Arrival:
    """A file as it arrived.

    Attributes:
        changed_time: when it was last changed where it lay, if that is known.
    """

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
        self._in_hand = ByteBudget(IN_HAND_BYTES_MAX)
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

        def keep(index: int, answer: NormalisedImage | VestaError) -> Future[Media] | Refused:
            arrival = arrivals[index]
            if isinstance(answer, VestaError):
                return Refused(arrival.file_name, answer.reason, str(answer))
            self._in_hand.wait_for(len(answer.data))
            return self._threads.submit(self._store_one, arrival, answer, source, arrived)

        kept = self._sandbox.map_on(normalise, [arrival.data for arrival in arrivals], keep)
        return [entry if isinstance(entry, Refused) else entry.result() for entry in kept]

    def close(self) -> None:
        """Waits for what is being stored."""
        self._threads.shutdown()

    def _store_one(self, arrival: Arrival, image: NormalisedImage, source: str, arrived: datetime) -> Media:
        try:
            return self._stored(arrival, image, source, arrived)
        finally:
            self._in_hand.release(len(image.data))

    def _stored(self, arrival: Arrival, image: NormalisedImage, source: str, arrived: datetime) -> Media:
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
