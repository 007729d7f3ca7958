"""Runs Syncs: claims one, lists its source, and ingests new files batch by batch. After a kill, at most one batch is ingested again."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import structlog
from vesta_common.clock import Clock
from vesta_common.errors import InvalidArgument, VestaError, is_transient
from vesta_common.leases import Heartbeat, LeaseLost
from vesta_contracts.common.v1 import Media
from vesta_contracts.connection.v1 import Sync

from vesta_connection.ingest import UNREACHABLE, UNREADABLE, Arrival, Ingest, RejectedFile
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.sources.batches import Listing, in_batches
from vesta_connection.sources.listing import FileTree, SourceFile, open_tree, storable
from vesta_connection.store import Store
from vesta_connection.store.syncs import LEASE_DURATION, ClaimedSync
from vesta_connection.syncs.dataset_items import DatasetItems

READ_THREADS = 8
BATCHES_AHEAD = 2
RENEW_INTERVAL = LEASE_DURATION / 5
UNREACHABLE_TOGETHER_MAX = 20
PROGRESS_INTERVAL = timedelta(seconds=1)

T = TypeVar("T")

log = structlog.get_logger()


class Stopped(Exception):
    """The sync was cancelled, or the service is stopping."""


@dataclass(frozen=True)
class _Run:
    """The Sync that a worker runs.

    Attributes:
        cancel_requested: resolved when the heartbeat reads a request for cancellation.
    """

    claimed: ClaimedSync
    heartbeat: Heartbeat
    cancel_requested: Future[None]


class SyncWorker:
    """Runs one Sync at a time. Any number of workers may run.

    Args:
        renew_interval: how often the lease is renewed, and the progress recorded, while a batch is processed.
    """

    def __init__(
        self,
        store: Store,
        ingest: Ingest,
        items: DatasetItems,
        allow_list: AllowList,
        clock: Clock,
        renew_interval: timedelta = RENEW_INTERVAL,
    ) -> None:
        self._store = store
        self._ingest = ingest
        self._items = items
        self._allow_list = allow_list
        self._clock = clock
        self._renew_interval = renew_interval
        self._stop: Future[None] = Future()
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        self._ahead = ThreadPoolExecutor(BATCHES_AHEAD + 1, thread_name_prefix="ahead")

    def stop(self) -> None:
        """Makes the running sync release its lease; discards what was read ahead."""
        if not self._stop.done():
            self._stop.set_result(None)
        for threads in (self._readers, self._ahead):
            threads.shutdown(wait=False, cancel_futures=True)

    def step(self) -> bool:
        """Claims a Sync and runs it until it ends or must stop; returns False if there is none."""
        claimed = self._store.syncs.claim()
        if claimed is None:
            return False
        log.info("sync_started", sync=claimed.name, source=claimed.source)
        try:
            self._attempt(claimed)
        except LeaseLost as error:
            log.warning("sync_taken_over", sync=claimed.name, error=str(error))
        return True

    def _attempt(self, claimed: ClaimedSync) -> None:
        """Runs a Sync until it ends or must stop."""
        try:
            if claimed.cancel_requested:
                self._cancel(claimed)
            cancel_requested: Future[None] = Future()
            with self._store.syncs.heartbeat(
                claimed, self._renew_interval, lambda: _resolve(cancel_requested)
            ) as heartbeat:
                self._run(_Run(claimed, heartbeat, cancel_requested))
        except LeaseLost:
            raise
        except Stopped:
            self._store.syncs.release(claimed, counted=False)
        except Exception as error:  # any error: a Sync must come to an end
            why = _why(error)
            stopping = self._stop.done()  # the error is then a consequence of the cancelled work
            if stopping or is_transient(error):
                log.warning("sync_interrupted", sync=claimed.name, error=why)
                self._store.syncs.release(claimed, counted=not stopping)
                if stopping:
                    return
                raise
            log.warning("sync_failed", sync=claimed.name, error=why, exc_info=not _is_expected(error))
            self._store.syncs.end(claimed, Sync.FAILED, why, self._clock.now())

    def _run(self, run: _Run) -> None:
        claimed = run.claimed
        source, secret = self._store.get_source_with_secret(claimed.source)
        tree = open_tree(source, secret, self._allow_list)
        listing = self._list(run, tree)
        published_at = self._clock.now()
        for files, ingested in self._ingest_batches(run, tree, listing.to_read):
            self._renew_lease(claimed)
            request_id = _request_id(claimed.name, ingested)
            results = self._wait_for(run, self._ahead.submit(self._items.add, source, files, ingested, request_id))
            now = self._clock.now()
            publish = now - published_at >= PROGRESS_INTERVAL
            self._store.syncs.record_batch(claimed, results, publish=publish)
            published_at = now if publish else published_at
        self._renew_lease(claimed)  # raises if it was cancelled while there was nothing to read
        self._store.syncs.end(claimed, Sync.SUCCEEDED, "", self._clock.now())
        log.info("sync_succeeded", sync=claimed.name, found=listing.found_count)

    def _list(self, run: _Run, tree: FileTree) -> Listing:
        """Lists the source's files. Records the progress meanwhile."""
        claimed = run.claimed
        listing = Listing(claimed.name, self._store.syncs.known_files(claimed.source))
        abandoned = threading.Event()

        def list_all() -> None:
            for file in tree.files():
                if abandoned.is_set():
                    return
                listing.add(file)

        def record(*, listed: bool) -> None:
            self._store.syncs.record_listing(claimed, listing.found_count, listing.unchanged_count, listed=listed)

        try:
            self._wait_for(run, self._ahead.submit(list_all), lambda: record(listed=False))
        finally:
            abandoned.set()
        record(listed=True)
        return listing

    def _ingest_batches(
        self, run: _Run, tree: FileTree, files: Sequence[SourceFile]
    ) -> Iterator[tuple[list[SourceFile], list[Media | RejectedFile]]]:
        """Yields each batch with its results, while the next batches are processed: one is stored while another is decoded."""
        ahead: deque[tuple[list[SourceFile], Future[list[Media | RejectedFile]]]] = deque()
        try:
            for batch in in_batches(files):
                ahead.append((batch, self._ahead.submit(self._ingest_batch, run.claimed, tree, batch)))
                if len(ahead) > BATCHES_AHEAD:
                    done, ingested = ahead.popleft()
                    yield done, self._wait_for(run, ingested)
            while ahead:
                done, ingested = ahead.popleft()
                yield done, self._wait_for(run, ingested)
        finally:
            for _, ingested in ahead:
                ingested.cancel()

    def _wait_for(self, run: _Run, working: Future[T], meanwhile: Callable[[], None] = lambda: None) -> T:
        """Waits for the work and returns its result. Calls `meanwhile` in each interval.

        Raises:
            Stopped: the sync must stop.
            LeaseLost: another worker has claimed the sync.
        """
        any_of: tuple[Future[Any], ...] = (working, self._stop, run.cancel_requested)
        while True:
            wait(any_of, self._renew_interval.total_seconds(), FIRST_COMPLETED)
            if working.done():
                return working.result()
            if self._stop.done():
                raise Stopped
            run.heartbeat.check()
            if run.cancel_requested.done():
                self._cancel(run.claimed)
            meanwhile()

    def _ingest_batch(
        self, claimed: ClaimedSync, tree: FileTree, batch: Sequence[SourceFile]
    ) -> list[Media | RejectedFile]:
        read = list(self._readers.map(lambda file: read_or_reject(tree, file), batch))
        lost = [entry for entry in read if isinstance(entry, RejectedFile) and entry.reason == UNREACHABLE]
        if len(lost) == len(read) > UNREACHABLE_TOGETHER_MAX:
            raise OSError(lost[0].message)  # the source is unreachable, not its files
        arrivals = [entry for entry in read if isinstance(entry, Arrival)]
        ingested = iter(self._ingest.take(arrivals, claimed.source, claimed.start_time))
        return [entry if isinstance(entry, RejectedFile) else next(ingested) for entry in read]

    def _renew_lease(self, claimed: ClaimedSync) -> None:
        """Renews the lease. Raises Stopped if the sync must stop, and LeaseLost if another worker has claimed it."""
        if self._stop.done():
            raise Stopped
        if self._store.syncs.renew(claimed):
            self._cancel(claimed)

    def _cancel(self, claimed: ClaimedSync) -> NoReturn:
        self._store.syncs.end(claimed, Sync.CANCELLED, "", self._clock.now())
        log.info("sync_cancelled", sync=claimed.name)
        raise Stopped


def read_or_reject(tree: FileTree, file: SourceFile) -> Arrival | RejectedFile:
    """Reads a file. Returns a rejection if the file is missing or not accessible, so that other files are not affected."""
    try:
        return Arrival(file.file_name, tree.read(file), file.changed_time)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return RejectedFile(file.file_name, UNREADABLE, f"the file cannot be read: {error.strerror or error}")
    except InvalidArgument as error:  # a web server redirects to a host that is not allowed
        return RejectedFile(file.file_name, error.reason, error.message)
    except OSError as error:
        return RejectedFile(
            file.file_name, UNREACHABLE, f"the source did not return the file: {error.strerror or error}"
        )


def _resolve(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _is_expected(error: Exception) -> bool:
    return isinstance(error, VestaError | OSError)


def _why(error: Exception) -> str:
    """Returns the message for an error, with characters escaped that cannot be stored: it may contain a file name of any bytes."""
    message = str(error) if isinstance(error, VestaError) else f"the source cannot be read: {error}"
    return storable(message if _is_expected(error) else f"{message} ({type(error).__name__})")


def _request_id(sync: str, ingested: Sequence[Media | RejectedFile]) -> str:
    """Returns the request_id for adding media. The same media give the same id, so that a retry after a kill is idempotent."""
    digest = hashlib.sha256(sync.encode())
    for entry in ingested:
        if isinstance(entry, Media):
            digest.update(entry.SerializeToString(deterministic=True))
    return digest.hexdigest()
