"""What comes in while a loop turns: a folder that grows and is synced again and again, and a camera that never rests."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from cameras import as_jpeg, frame_headers
from kafka import KafkaProducer
from kafka.errors import KafkaError
from small_loop import TRANSIENT
from vesta import ApiError, Vesta
from vesta_common.events.broker import Broker
from vesta_contracts.connection.v1 import Sync

FRAME_INTERVAL_SECONDS = 0.25
FRAME_DELIVERY_MS = 5_000
FILES_PER_SYNC = 2
REST_SECONDS = 1.5


@contextmanager
def running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Lets `work` run in a thread; tells it to stop at the end and waits for it.

    Raises:
        Exception: what `work` raised.
    """
    stop = threading.Event()
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work(stop)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)
    if failures:
        raise failures[0]


class GrowingFolder:
    """A folder Source into which some files more come before each Sync.

    Attributes:
        placed: how many files lie there.
    """

    def __init__(self, owner: Vesta, source: str, folder: Path, files: list[Path]) -> None:
        self._owner = owner
        self._source = source
        self._folder = folder
        self._files = iter(files)
        self.placed = 0

    def grow(self, stop: threading.Event) -> None:
        """Places files and syncs until it is told to stop; a Sync that is lost sight of is followed by the next."""
        while not stop.is_set():
            for file in (one for _, one in zip(range(FILES_PER_SYNC), self._files, strict=False)):
                shutil.copyfile(file, self._folder / f"{self.placed:04d}{file.suffix}")
                self.placed += 1
            self._sync()
            stop.wait(REST_SECONDS)

    def bring_in_the_rest(self, seconds: float) -> None:
        """Syncs until one has seen every file.

        Raises:
            AssertionError: none does in time.
        """
        deadline = time.monotonic() + seconds
        while (last := self._sync()) is None or last.found_count != self.placed:
            assert time.monotonic() < deadline, f"the folder is not taken in: {last}"
            time.sleep(0.5)
        assert last.rejected_count == 0, list(last.rejections)

    def _sync(self) -> Sync | None:
        """A Sync that has succeeded, or None."""
        try:
            ended = self._owner.sync(self._source)
        except ApiError as error:
            if error.code not in TRANSIENT:
                raise
            return None
        return ended if ended.state == Sync.SUCCEEDED else None


class RestlessCamera:
    """Sends frames, each at a time of its own.

    Attributes:
        sent: the times of all frames that may have arrived.
        acknowledged: how many of them the broker has for certain.
    """

    def __init__(self, broker: Broker, topic: str, stream: str, pictures: list[Path]) -> None:
        self._broker = broker
        self._topic = topic
        self._stream = stream
        self._pictures = cycle([as_jpeg(picture) for picture in pictures])
        self.sent: list[datetime] = []
        self.acknowledged = 0

    def watch(self, stop: threading.Event) -> None:
        """Sends a frame every quarter of a second until it is told to stop; one that cannot be delivered is given up."""
        producer = self._open()
        try:
            while not stop.wait(FRAME_INTERVAL_SECONDS):
                self._send(producer)
        finally:
            producer.close(timeout=10)

    def show_one(self) -> datetime:
        """Sends one frame, for certain; answers when it was taken."""
        producer = self._open()
        try:
            before = self.acknowledged
            self._send(producer)
            assert self.acknowledged == before + 1, "the broker does not take a frame"
        finally:
            producer.close(timeout=10)
        return self.sent[-1]

    def _open(self) -> KafkaProducer:
        return KafkaProducer(
            **self._broker.access,
            acks="all",
            enable_idempotence=False,  # what arrives twice is to count once
            max_block_ms=FRAME_DELIVERY_MS,
            request_timeout_ms=FRAME_DELIVERY_MS - 1000,
            delivery_timeout_ms=FRAME_DELIVERY_MS,
        )

    def _send(self, producer: KafkaProducer) -> None:
        taken = datetime.now(UTC)
        self.sent.append(taken)
        headers = frame_headers(self._stream, taken)
        try:
            sent = producer.send(self._topic, value=next(self._pictures), key=self._stream.encode(), headers=headers)
            sent.get(timeout=2 * FRAME_DELIVERY_MS / 1000)
        except KafkaError:
            return
        self.acknowledged += 1
