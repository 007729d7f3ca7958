"""Ingests media: decodes a file in a child process, strips its metadata, hashes it, and stores it once; and the thumbnails of a batch."""

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
from vesta_common.storage.packs import put_pack
from vesta_contracts.common.v1 import Media, Provenance

STORE_THREADS = 8
IN_FLIGHT_BYTES_MAX = 128 * 1024 * 1024
# Reasons that do not depend on a file's content: the next sync reads the file again.
UNREADABLE, UNREACHABLE = "FILE_UNREADABLE", "FILE_UNREACHABLE"
RETRIED_REASONS = frozenset({UNREADABLE, UNREACHABLE, "SANDBOX_FAILED"})


@dataclass(frozen=True)
class Arrival:
    """A received file.

    Attributes:
        changed_time: when it was last modified at its source, if known.
    """

    file_name: str
    data: bytes | memoryview
    changed_time: datetime | None = None


@dataclass(frozen=True)
class RejectedFile:
    """A rejected file and the reason."""

    file_name: str
    reason: str
    message: str


class Ingest:
    """Ingests images. Thread-safe, like the sandbox and the object store.

    Args:
        sandbox: decodes untrusted bytes.
        store: stores the images.
    """

    def __init__(self, sandbox: Sandbox, store: ObjectStore, clock: Clock) -> None:
        self._sandbox = sandbox
        self._store = store
        self._clock = clock
        self._in_flight = ByteBudget(IN_FLIGHT_BYTES_MAX)
        self._threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")

    def take(
        self, arrivals: Sequence[Arrival], source: str = "", ingest_time: datetime | None = None
    ) -> list[Media | RejectedFile]:
        """Decodes and stores each file, and the thumbnails of all in one object. A rejected file does not affect the others.

        Args:
            ingest_time: the time for their provenance; now by default. With a fixed time, the same files give the same media.

        Raises:
            Unavailable: the object store does not respond. A retry finds media that are already stored by their hash.
        """
        arrived = ingest_time or self._clock.now()

        thumbnails: dict[int, bytes] = {}

        def keep(index: int, answer: NormalisedImage | VestaError) -> Future[Media] | RejectedFile:
            arrival = arrivals[index]
            if isinstance(answer, VestaError):
                return RejectedFile(arrival.file_name, answer.reason, str(answer))
            if answer.thumbnail_jpeg != answer.data:
                thumbnails[index] = answer.thumbnail_jpeg
            self._in_flight.wait_for(len(answer.data))
            return self._threads.submit(self._store_one, arrival, answer, source, arrived)

        results = self._sandbox.map_on(normalise, [arrival.data for arrival in arrivals], keep)
        ingested = [entry if isinstance(entry, RejectedFile) else entry.result() for entry in results]
        keys = put_pack(self._store, "thumbnails", [thumbnails[index] for index in sorted(thumbnails)])
        packed = dict(zip(sorted(thumbnails), keys, strict=True))
        for index, entry in enumerate(ingested):
            if isinstance(entry, Media):
                entry.thumbnail_key = packed.get(index, entry.object_key)
        return ingested

    def close(self) -> None:
        """Waits for storage operations in progress."""
        self._threads.shutdown()

    def _store_one(self, arrival: Arrival, image: NormalisedImage, source: str, arrived: datetime) -> Media:
        try:
            return self._stored(arrival, image, source, arrived)
        finally:
            self._in_flight.release(len(image.data))

    def _stored(self, arrival: Arrival, image: NormalisedImage, source: str, arrived: datetime) -> Media:
        stored = self._store.put("media", image.data)
        unchanged = image.data == arrival.data
        original_sha256 = stored.sha256 if unchanged else hashlib.sha256(arrival.data).hexdigest()
        media = Media(
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            mime_type=image.mime_type,
            width_px=image.width_px,
            height_px=image.height_px,
            object_key=stored.key,
            perceptual_hash=image.perceptual_hash,
            provenance=Provenance(source=source, file_name=arrival.file_name, original_sha256=original_sha256),
        )
        taken_time = image.taken_time or arrival.changed_time
        if taken_time:
            media.provenance.taken_time.FromDatetime(taken_time)
        media.provenance.ingest_time.FromDatetime(arrived)
        return media
