"""Trains runs in a child process of this service."""

import contextlib
import ctypes
import multiprocessing
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from vesta_common.errors import Unavailable, is_transient
from vesta_common.settings import ServiceSettings
from vesta_common.storage.objects import ObjectStore

from vesta_training.errors import DeadlinePassedError, TrainingCancelled
from vesta_training.executors import DIED, Observation, State, stored_result
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import Job
from vesta_training.runs.memory import keep_freed_memory

IDLE_MAX = timedelta(seconds=60)
CANCEL_TIMEOUT = timedelta(seconds=2)
_PROGRESS, _ENDED = "progress", "ended"
_CANCEL = ""
"""Sent to the child instead of the name of a work."""
_PR_SET_PDEATHSIG = 1


class LocalProcessExecutor:
    """Trains one run at a time in a child process, which is kept for a minute between runs.

    If the child is killed, only the current attempt is lost, and its memory is released. The child dies with the service. The next
    service process reads the progress and the result that it has stored.
    """

    outlives_service = False

    def __init__(
        self,
        settings: ServiceSettings,
        clock: Callable[[], float] = time.monotonic,
        cancel_timeout: timedelta = CANCEL_TIMEOUT,
    ) -> None:
        """Creates an executor.

        Args:
            clock: returns seconds.
            cancel_timeout: how long cancelled work has for its next step.
        """
        self._settings = settings
        self._cancel_timeout = cancel_timeout
        self._objects = ObjectStore.of(settings)
        self._context = multiprocessing.get_context("spawn")
        self._clock = clock
        self._child: Any = None
        self._pipe: Connection | None = None
        self._work = ""
        self._deadline = float("inf")
        self._deadline_seconds = 0
        self._used = clock()

    def start(self, work: str, job: Job) -> None:
        """Sends the work to the child. Other work of the child is killed."""
        if self._work == work:
            return
        if self._work:
            self.close()
        Exchange(self._objects, work).put_job(job)
        self._start_child().send(work)
        self._work, self._deadline_seconds = work, job.deadline_seconds
        self._deadline = self._clock() + job.deadline_seconds if job.deadline_seconds else float("inf")

    def observe(self, work: str, timeout: timedelta = timedelta()) -> Observation:
        """Returns the state of the work, from the messages of the child or its stored result."""
        exchange = Exchange(self._objects, work)
        if work != self._work or self._pipe is None:
            return stored_result(exchange)
        if self._clock() >= self._deadline:
            self.close()
            return Observation(State.FAILED, error=DeadlinePassedError(self._deadline_seconds))
        try:
            if not self._pipe.poll(timeout.total_seconds()):
                return Observation(State.RUNNING)
            kind, error = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            seen = stored_result(exchange)
            died = Unavailable("the training process was killed, probably because of insufficient memory", reason=DIED)
            return seen if seen.state is not State.ABSENT else Observation(State.FAILED, error=died)
        if kind == _PROGRESS:
            return Observation(State.RUNNING, exchange.find_progress())
        self._work, self._used = "", self._clock()
        return Observation(State.FAILED, error=error) if error is not None else stored_result(exchange)

    def cancel(self, work: str) -> None:
        """Cancels the work of the child at its next step, and kills the child if there is none in time.

        A new child would spend seconds of processor time on its imports.
        """
        if work != self._work:
            return
        if self._ends_when_asked():
            self._work, self._used = "", self._clock()
        else:
            self.close()

    def _ends_when_asked(self) -> bool:
        if not self._work or self._pipe is None:
            return False
        try:
            self._pipe.send(_CANCEL)
            deadline = time.monotonic() + self._cancel_timeout.total_seconds()
            while self._pipe.poll(max(0.0, deadline - time.monotonic())):
                kind, _ = self._pipe.recv()
                if kind == _ENDED:
                    return True
        except (EOFError, OSError):
            pass  # the child has died
        return False

    def list_work(self) -> list[str]:
        """Lists the current work of the child."""
        return [self._work] if self._work else []

    def rest(self) -> None:
        """Ends the child after a minute of idle time."""
        if self._child is not None and self._clock() - self._used > IDLE_MAX.total_seconds():
            self.close()

    def close(self) -> None:
        """Kills the child. Work since its last checkpoint or result is repeated."""
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            with contextlib.suppress(ValueError):
                self._child.kill()
                self._child.join()
        self._child, self._pipe, self._work = None, None, ""

    def _start_child(self) -> Connection:
        if self._child is None or not self._child.is_alive() or self._pipe is None:
            self.close()
            ours, theirs = self._context.Pipe()
            self._child = self._context.Process(
                target=_serve, args=(theirs, self._settings), daemon=True, name="training"
            )
            self._child.start()
            theirs.close()
            self._pipe = ours
        return self._pipe


def _serve(pipe: Connection, settings: ServiceSettings) -> None:
    """Main function of the child: executes work one by one.

    The child dies with its parent, so that no run is trained twice concurrently. It stores progress and results in the object store.
    The pipe only signals that they have changed, and transfers transient errors.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    from vesta_training.runs.work import execute

    def check() -> None:
        if pipe.poll() and pipe.recv() == _CANCEL:
            raise TrainingCancelled("cancelled")

    objects = ObjectStore.of(settings)
    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        if work == _CANCEL:  # the work ended in the meantime
            continue
        try:
            execute(work, objects, changed=lambda: pipe.send((_PROGRESS, None)), check=check)
            pipe.send((_ENDED, None))
        except TrainingCancelled:
            pipe.send((_ENDED, None))
        except Exception as error:
            if not is_transient(error):
                raise
            pipe.send((_ENDED, error))
