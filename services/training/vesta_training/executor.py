"""Where a run is trained: behind this seam stands a process of this machine, and a Kubernetes Job can stand next."""

import contextlib
import ctypes
import multiprocessing
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, Protocol

from vesta_common.errors import Unavailable
from vesta_common.objects import ObjectStore
from vesta_common.settings import ServiceSettings
from vesta_contracts.training.v1 import TrainingProgress

from vesta_training.errors import TrainingCancelled
from vesta_training.job import Job, Outcome

POLL = timedelta(milliseconds=100)
IDLE_MAX = timedelta(seconds=60)
DIED = "TRAINING_PROCESS_DIED"
_PR_SET_PDEATHSIG = 1


class Executor(Protocol):
    """Trains one run at a time."""

    def execute(self, job: Job, pulse: Callable[[TrainingProgress | None], bool]) -> Outcome:
        """Trains; calls `pulse` several times a second with news or None, and stops where it answers True.

        Raises:
            TrainingCancelled: `pulse` answered True.
            Unavailable: the process died; another try may succeed.
            LearningError: it cannot be done.
        """
        ...

    def rest(self) -> None:
        """Called while there is nothing to train: gives back what is only kept warm."""
        ...

    def close(self) -> None:
        """Ends what is running."""
        ...


class LocalProcessExecutor:
    """A child process, kept warm between runs for a minute: a kill of it costs one attempt, and its memory goes with it."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")
        self._child: Any = None
        self._pipe: Connection | None = None
        self._used = time.monotonic()

    def execute(self, job: Job, pulse: Callable[[TrainingProgress | None], bool]) -> Outcome:
        """Hands the job to the child and listens."""
        pipe = self._start()
        answered = False
        try:
            pipe.send(job)
            while True:
                news = None
                if pipe.poll(POLL.total_seconds()):
                    kind, content = pipe.recv()
                    answered = kind in {"done", "failed"}
                    if kind == "done":
                        return content  # type: ignore[no-any-return]
                    if kind == "failed":
                        raise content
                    news = TrainingProgress.FromString(content)
                if pulse(news):
                    raise TrainingCancelled("cancelled")
        except (EOFError, ConnectionError) as error:
            raise Unavailable("the training process died, most likely for want of memory", reason=DIED) from error
        finally:
            if not answered:
                self.close()  # else its answer would be taken for the next job's
            self._used = time.monotonic()

    def rest(self) -> None:
        """Ends a child that has been idle for a minute."""
        if self._child is not None and time.monotonic() - self._used > IDLE_MAX.total_seconds():
            self.close()

    def close(self) -> None:
        """Kills the child: what it had not handed over is done again."""
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            with contextlib.suppress(ValueError):
                self._child.kill()
                self._child.join()
        self._child, self._pipe = None, None

    def _start(self) -> Connection:
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
    """The child: takes one job after another. It dies with its parent, so that no run is trained twice at a time."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from vesta_training.job import run_job

    objects = ObjectStore.of(settings)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            outcome = run_job(job, objects, lambda progress: pipe.send(("progress", progress.SerializeToString())))
            pipe.send(("done", outcome))
        except Exception as error:  # noqa: BLE001 - whatever it was, the parent decides what becomes of the run
            pipe.send(("failed", _portable(error)))


def _portable(error: Exception) -> Exception:
    """An error that can travel; what cannot becomes its words."""
    from vesta_common.errors import Internal, VestaError

    return (
        error
        if isinstance(error, VestaError)
        else Internal(f"{type(error).__name__}: {error}", reason="TRAINING_CRASHED")
    )
