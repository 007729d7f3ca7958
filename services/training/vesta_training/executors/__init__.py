"""Executors: where runs are trained. One module per kind, all behind the `Executor` protocol.

The work of a run has a name that is derived from the run. A worker that takes a run over therefore finds the existing work: it adopts
running work, reads the result of finished work, and starts nothing twice.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from vesta_contracts.training.v1 import TrainingProgress, TrainingRun

from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import CurveResult, Job, RunResult

DIED = "TRAINING_PROCESS_DIED"
ID_CHARACTERS_MAX = 30


class State(Enum):
    """The state of the work of a run."""

    ABSENT = auto()
    """The work does not exist: it was not started, was cancelled, or is lost."""
    PENDING = auto()
    """The work is started and waits; see `waiting_reason`."""
    RUNNING = auto()
    ENDING = auto()
    """The work is cancelled and still shutting down."""
    SUCCEEDED = auto()
    """The work is finished; see `outcome`."""
    FAILED = auto()
    """The work failed; see `error`."""


@dataclass(frozen=True)
class Observation:
    """The observed state of the work of a run.

    Attributes:
        progress: the progress, if it changed since the last observation.
        waiting_reason: why the work is not training yet, in the words of the executor's platform.
        outcome: the result, if the work succeeded: of a training, or of the measurement of a learning curve.
        error: the reason, if the work failed.
    """

    state: State
    progress: TrainingProgress | None = None
    waiting_reason: str = ""
    outcome: RunResult | CurveResult | None = None
    error: Exception | None = None


class Executor(Protocol):
    """Trains runs. `work` is the `work_name` of a run."""

    outlives_service: bool
    """Whether work continues when this service stops, so that the next process can adopt it."""

    def start(self, work: str, job: Job) -> None:
        """Starts the work. Idempotent: does nothing if the work exists.

        Raises:
            Unavailable: the platform does not respond, or work of the same name is still being cancelled.
            FailedPrecondition: the platform rejects the work.
            InvalidArgument: the recipe of the job is invalid.
        """
        ...

    def observe(self, work: str, timeout: timedelta = timedelta()) -> Observation:
        """Returns the state of the work: immediately if it has changed, otherwise after at most `timeout`.

        Raises:
            Unavailable: the platform does not respond.
        """
        ...

    def cancel(self, work: str) -> None:
        """Cancels the work in any state. Idempotent: does nothing if the work does not exist.

        Raises:
            Unavailable: the platform does not respond.
        """
        ...

    def list_work(self) -> list[str]:
        """Lists all work, finished or not, so that orphaned work can be cancelled."""
        ...

    def rest(self) -> None:
        """Releases idle resources. Called while there is nothing to train."""
        ...

    def close(self) -> None:
        """Ends the work that cannot outlive this service."""
        ...


def work_name(run: TrainingRun) -> str:
    """Returns the name of the work of a run, its training or the measurement of its learning curve: a DNS label of at most 49 characters.

    The name is derived from the name and the creation time of the run. A new run with the name of a deleted one therefore has
    different work.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", run.name.rpartition("/")[2].lower())[:ID_CHARACTERS_MAX].strip("-")
    digest = hashlib.sha256(f"{run.name};{run.create_time.ToJsonString()}".encode()).hexdigest()[:12]
    part = "curve" if run.control_curve_pending else "train"
    return f"{part}-{readable}-{digest}" if readable else f"{part}-{digest}"


def stored_result(exchange: Exchange) -> Observation:
    """Returns the stored result of work that no longer runs; ABSENT if it stored none."""
    match exchange.find_result():
        case None:
            return Observation(State.ABSENT)
        case (RunResult() | CurveResult()) as outcome:
            return Observation(State.SUCCEEDED, outcome=outcome)
        case error:
            return Observation(State.FAILED, error=error)
