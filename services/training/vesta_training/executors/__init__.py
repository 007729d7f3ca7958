"""Where a run is trained: one module a place, all behind `Executor`, under names that follow from the run alone.

Because the name follows from the run, whoever takes a run over finds the work of the one before: it adopts what still runs, reads what
has ended, and starts nothing twice.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from vesta_contracts.training.v1 import TrainingProgress, TrainingRun

from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import Job, RunResult

DIED = "TRAINING_PROCESS_DIED"
ID_CHARACTERS_MAX = 30


class State(Enum):
    """Where a run's work is."""

    ABSENT = auto()
    """There is none: not started, cancelled, or lost."""
    PENDING = auto()
    """Started, and not training yet; `waiting_reason` says for what."""
    RUNNING = auto()
    ENDING = auto()
    """Cancelled, and not gone yet."""
    SUCCEEDED = auto()
    """`outcome` is what came out."""
    FAILED = auto()
    """`error` is why."""


@dataclass(frozen=True)
class Observation:
    """A run's work at a moment.

    Attributes:
        progress: news since the last observation; None for none.
        waiting_reason: in the place's own words, while the work does not train.
    """

    state: State
    progress: TrainingProgress | None = None
    waiting_reason: str = ""
    outcome: RunResult | None = None
    error: Exception | None = None


class Executor(Protocol):
    """A place where runs are trained. `work` is a run's `work_name`."""

    outlives_service: bool
    """Whether work goes on while this service is away, for the next one to adopt."""

    def start(self, work: str, job: Job) -> None:
        """Starts the work; does nothing where it is there already.

        Raises:
            Unavailable: the place does not answer, or the same work is still being cancelled.
            FailedPrecondition: the place refuses the work as it is.
            InvalidArgument: the job's recipe cannot be read.
        """
        ...

    def observe(self, work: str, patience: timedelta = timedelta()) -> Observation:
        """The work as it is: at once where there are news, else after `patience` at the latest.

        Raises:
            Unavailable: the place does not answer.
        """
        ...

    def cancel(self, work: str) -> None:
        """Ends the work, whatever its state; does nothing where there is none.

        Raises:
            Unavailable: the place does not answer.
        """
        ...

    def list_work(self) -> list[str]:
        """What is there, ended or not, so that what belongs to no run any more can be cancelled."""
        ...

    def rest(self) -> None:
        """Called while there is nothing to train: gives back what is only kept warm."""
        ...

    def close(self) -> None:
        """Ends what cannot outlive this service."""
        ...


def work_name(run: TrainingRun) -> str:
    """What a run's work is called, everywhere: a DNS label of at most 49 characters.

    It rests on the run's name and time of creation: a deleted run's successor under the same name has work of its own.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", run.name.rpartition("/")[2].lower())[:ID_CHARACTERS_MAX].strip("-")
    digest = hashlib.sha256(f"{run.name};{run.create_time.ToJsonString()}".encode()).hexdigest()[:12]
    return f"train-{readable}-{digest}" if readable else f"train-{digest}"


def ended(exchange: Exchange) -> Observation:
    """What work that is no more told of its end; ABSENT where it told none."""
    match exchange.find_result():
        case None:
            return Observation(State.ABSENT)
        case RunResult() as outcome:
            return Observation(State.SUCCEEDED, outcome=outcome)
        case error:
            return Observation(State.FAILED, error=error)
