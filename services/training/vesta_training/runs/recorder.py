"""Records the progress of a run while its worker follows it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from vesta_common.leases import Heartbeat
from vesta_contracts.training.v1 import TrainingProgress

from vesta_training.errors import TrainingCancelled
from vesta_training.store import Store
from vesta_training.store.run_queue import ClaimedRun

PROGRESS_INTERVAL = timedelta(seconds=1)


class Stopped(Exception):
    """The service is stopping; the run is released for another worker."""


class Preempted(Exception):
    """A training comes before the measurement of a learning curve, which is released until then."""


class Recorder:
    """Stores and publishes the progress of a run at most once per second.

    Args:
        heartbeat: renews the lease on the run.
        cancel_requested: set when cancellation was requested.
        is_stopping: whether the service is stopping.
    """

    def __init__(
        self,
        store: Store,
        claimed: ClaimedRun,
        heartbeat: Heartbeat,
        cancel_requested: threading.Event,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._store = store
        self._claimed = claimed
        self._heartbeat = heartbeat
        self._cancel_requested = cancel_requested
        self._is_stopping = is_stopping
        self._last_published = store.clock.now() - PROGRESS_INTERVAL
        self._unpublished: TrainingProgress | None = None
        self._waiting_reason = ""

    def record(self, progress: TrainingProgress | None, waiting_reason: str) -> None:
        """Records the progress and the reason why the training waits, and checks whether it is to continue.

        Raises:
            LeaseLost: another worker has the run, or it was finished or deleted.
            Stopped: the service is stopping.
            TrainingCancelled: cancellation was requested.
        """
        self._heartbeat.check()
        now = self._store.clock.now()
        if progress is not None:
            progress.heartbeat_time.FromDatetime(now)
            self._unpublished = progress
        publishes = self._unpublished is not None and now - self._last_published >= PROGRESS_INTERVAL
        if publishes or waiting_reason != self._waiting_reason:
            self._waiting_reason = waiting_reason
            if self._store.run_queue.record_progress(
                self._claimed, self._unpublished, waiting_reason, publish_progress=publishes
            ):
                self._cancel_requested.set()
        if publishes:
            self._last_published, self._unpublished = now, None
        if self._is_stopping():
            raise Stopped
        if self._cancel_requested.is_set():
            raise TrainingCancelled("cancelled")

    def give_way(self) -> None:
        """Raises Preempted if the run is being measured and a training waits."""
        if self._store.run_queue.is_preempted(self._claimed):
            raise Preempted


@contextmanager
def recording(
    store: Store, claimed: ClaimedRun, interval: timedelta, is_stopping: Callable[[], bool]
) -> Iterator[Recorder]:
    """Renews the lease on a run while the block runs, and yields its recorder.

    Args:
        interval: between two renewals of the lease.
    """
    cancel_requested = threading.Event()
    with store.run_queue.heartbeat(claimed, interval, cancel_requested.set) as heartbeat:
        yield Recorder(store, claimed, heartbeat, cancel_requested, is_stopping)
