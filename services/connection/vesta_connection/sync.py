"""Runs Syncs: claims one, lists its source, takes in what is new batch by batch; a kill costs one batch, which is taken in again."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import TypeVar

import structlog
from vesta_common.clock import Clock
from vesta_common.errors import VestaError, is_transient
from vesta_contracts.common.v1 import Media
from vesta_contracts.connection.v1 import Sync

from vesta_connection.batches import Listing, in_batches
from vesta_connection.ingest import UNREACHABLE, UNREADABLE, Arrival, Ingest, Refused
from vesta_connection.items import Items
from vesta_connection.listing import FileTree, SourceFile, open_tree
from vesta_connection.places import Places
from vesta_connection.store import ClaimedSync, Store

LEASE = timedelta(seconds=30)
READ_THREADS = 8
BATCHES_AHEAD = 2
KEEP_INTERVAL = LEASE / 5
UNREACHABLE_TOGETHER_MAX = 20
LISTING_REPORT_EVERY = 2000
PROGRESS_INTERVAL = timedelta(seconds=1)

T = TypeVar("T")

log = structlog.get_logger()


class Stopped(Exception):
    """The sync was cancelled, was taken over by another worker, or the service is stopping."""


class SyncWorker:
    """Works on one Sync at a time; any number of workers may run.

    Args:
        keep_interval: how often the lease is renewed while a batch is on its way.
    """

    def __init__(
        self,
        store: Store,
        ingest: Ingest,
        items: Items,
        places: Places,
        clock: Clock,
        keep_interval: timedelta = KEEP_INTERVAL,
    ) -> None:
        self._store = store
        self._ingest = ingest
        self._items = items
        self._places = places
        self._clock = clock
        self._keep_interval = keep_interval
        self._stopping = False
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        self._ahead = ThreadPoolExecutor(BATCHES_AHEAD + 1, thread_name_prefix="ahead")

    def stop(self) -> None:
        """Makes the running sync give itself back after its batch."""
        self._stopping = True

    def step(self) -> bool:
        """Claims a Sync and runs it as far as it goes; False where there is none to do."""
        claimed = self._store.claim_sync(self._clock.now(), LEASE)
        if claimed is None:
            return False
        log.info("sync_started", sync=claimed.name, source=claimed.source)
        try:
            self._run(claimed)
        except Stopped:
            self._store.release_sync(claimed)
        except VestaError as error:
            if is_transient(error):
                log.warning("sync_interrupted", sync=claimed.name, error=str(error))
                self._store.release_sync(claimed)
                raise
            log.warning("sync_failed", sync=claimed.name, error=str(error))
            self._store.end_sync(claimed, Sync.FAILED, str(error), self._clock.now())
        except OSError as error:
            self._store.end_sync(claimed, Sync.FAILED, f"the source cannot be read: {error}", self._clock.now())
        return True

    def _run(self, claimed: ClaimedSync) -> None:
        source, secret = self._store.get_source_with_secret(claimed.source)
        tree = open_tree(source, secret, self._places)
        listing = Listing(claimed.name, self._store.known_files(claimed.source))
        for file in tree.files():
            listing.add(file)
            if listing.found_count % LISTING_REPORT_EVERY == 0:
                self._keep(claimed)
                self._store.record_listing(claimed.name, listing.found_count, listing.unchanged_count, listed=False)
        self._store.record_listing(claimed.name, listing.found_count, listing.unchanged_count, listed=True)
        told = self._clock.now()
        for files, taken in self._taken(claimed, tree, listing.to_read):
            self._keep(claimed)
            request_id = _request_id(claimed.name, taken)
            results = self._awaited(claimed, self._ahead.submit(self._items.add, source, files, taken, request_id))
            now = self._clock.now()
            tell = now - told >= PROGRESS_INTERVAL
            if not self._store.record_batch(claimed, results, tell=tell):
                log.warning("sync_taken_over", sync=claimed.name)
                raise Stopped
            told = now if tell else told
        self._store.end_sync(claimed, Sync.SUCCEEDED, "", self._clock.now())
        log.info("sync_succeeded", sync=claimed.name, found=listing.found_count)

    def _taken(
        self, claimed: ClaimedSync, tree: FileTree, files: Sequence[SourceFile]
    ) -> Iterator[tuple[list[SourceFile], list[Media | Refused]]]:
        """Each batch with what became of it, while the next ones are on their way: one is stored while another is decoded."""
        ahead: deque[tuple[list[SourceFile], Future[list[Media | Refused]]]] = deque()
        try:
            for batch in in_batches(files):
                ahead.append((batch, self._ahead.submit(self._take, claimed, tree, batch)))
                if len(ahead) > BATCHES_AHEAD:
                    done, taken = ahead.popleft()
                    yield done, self._awaited(claimed, taken)
            while ahead:
                done, taken = ahead.popleft()
                yield done, self._awaited(claimed, taken)
        finally:
            for _, taken in ahead:
                taken.cancel()

    def _awaited(self, claimed: ClaimedSync, working: Future[T]) -> T:
        """What comes of the work; the lease is renewed for as long as it takes."""
        while True:
            done, _ = wait([working], self._keep_interval.total_seconds())
            if done:
                return working.result()
            self._keep(claimed)

    def _take(self, claimed: ClaimedSync, tree: FileTree, batch: Sequence[SourceFile]) -> list[Media | Refused]:
        read = list(self._readers.map(lambda file: read_or_refuse(tree, file), batch))
        lost = [entry for entry in read if isinstance(entry, Refused) and entry.reason == UNREACHABLE]
        if len(lost) == len(read) > UNREACHABLE_TOGETHER_MAX:
            raise OSError(lost[0].message)  # it is the place and not its files
        arrivals = [entry for entry in read if isinstance(entry, Arrival)]
        taken = iter(self._ingest.take(arrivals, claimed.source, claimed.start_time))
        return [entry if isinstance(entry, Refused) else next(taken) for entry in read]

    def _keep(self, claimed: ClaimedSync) -> None:
        """Renews the lease, or stops."""
        if self._stopping:
            raise Stopped
        kept = self._store.renew_sync(claimed, self._clock.now(), LEASE)
        if kept is None:
            log.warning("sync_taken_over", sync=claimed.name)
            raise Stopped
        if kept:
            self._store.end_sync(claimed, Sync.CANCELLED, "", self._clock.now())
            log.info("sync_cancelled", sync=claimed.name)
            raise Stopped


def read_or_refuse(tree: FileTree, file: SourceFile) -> Arrival | Refused:
    """A file's bytes; one that is gone or closed to us is refused and fails nothing else."""
    try:
        return Arrival(file.file_name, tree.read(file))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return Refused(file.file_name, UNREADABLE, f"the file cannot be read: {error.strerror or error}")
    except OSError as error:
        return Refused(file.file_name, UNREACHABLE, f"the store did not hand the file out: {error.strerror or error}")


def _request_id(sync: str, taken: Sequence[Media | Refused]) -> str:
    """Names what one sync adds together, so that adding it again after a kill gives the first answer."""
    digest = hashlib.sha256(sync.encode())
    for entry in taken:
        if isinstance(entry, Media):
            digest.update(entry.SerializeToString(deterministic=True))
    return digest.hexdigest()
