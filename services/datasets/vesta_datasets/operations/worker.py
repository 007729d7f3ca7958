"""Long-running operations: executed by workers, and resumed by another worker after a crash."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from vesta_common.backoff import exponential_backoff
from vesta_common.errors import VestaError, is_transient
from vesta_common.ids import new_id
from vesta_common.leases import LeaseLost
from vesta_common.resources.names import project_of
from vesta_common.storage.postgres import Connection

from vesta_datasets.store import Store
from vesta_datasets.store.operations import ClaimedOperation, OperationProgress

ATTEMPTS_MAX = 8
RETRY_FIRST = timedelta(seconds=5)
RETRY_MAX = timedelta(minutes=2)

log = structlog.get_logger()


class Stopped(Exception):
    """The service is stopping; the operation is released."""


@dataclass(frozen=True)
class Claim:
    """An operation that this worker has claimed, for its executor.

    Attributes:
        stopping: set when the service stops.
    """

    operation: ClaimedOperation
    store: Store
    stopping: threading.Event

    def advance(self, connection: Connection, progress: OperationProgress, response: bytes = b"") -> None:
        """Stores the progress, in the same transaction as the work.

        Raises:
            LeaseLost: another worker has claimed the operation. The transaction must be rolled back.
        """
        self.store.operations.advance(connection, self.operation, progress, response)

    def check(self) -> None:
        """Raises Stopped if the service is stopping. Called between two batches."""
        if self.stopping.is_set():
            raise Stopped


class Work(Protocol):
    """Executes operations of one kind."""

    def __call__(self, claim: Claim, /) -> Message:
        """Executes the operation from `claim.operation.done_count` on, and returns its response."""
        ...


class Operations:
    """Creates and executes operations. Safe to run in any number of replicas.

    Args:
        work: the executor of each kind.
        heartbeat_interval: interval at which the lease of the running operation is renewed; by default a third of its duration.
    """

    def __init__(self, store: Store, work: Mapping[str, Work], heartbeat_interval: timedelta | None = None) -> None:
        self._store = store
        self._work = work
        self._heartbeat_interval = heartbeat_interval
        self._stopping = threading.Event()
        self.wake: Callable[[], None] = lambda: None

    def begin(
        self, connection: Connection, kind: str, name: str, request: Message, caller: str
    ) -> operations_pb2.Operation:
        """Creates an operation. A worker claims it later."""
        operation = f"{project_of(name)}/operations/{new_id()}"
        self._store.operations.insert(connection, operation, kind, request, caller)
        return self.get(connection, operation)

    def get(self, connection: Connection, name: str) -> operations_pb2.Operation:
        """Returns the current state of an operation. Raises NotFound."""
        return self._store.operations.get(connection, name)

    def stop(self) -> None:
        """Makes the running operation release its claim after the current batch."""
        self._stopping.set()

    def step(self) -> bool:
        """Executes one attempt of one operation. Returns False if no operation can be claimed."""
        claimed = self._store.operations.claim()
        if claimed is None:
            return False
        try:
            self._attempt(claimed)
        except LeaseLost as error:
            log.warning("operation_taken_over", operation=claimed.name, error=str(error))
        return True

    def _attempt(self, claimed: ClaimedOperation) -> None:
        if claimed.attempt_count > ATTEMPTS_MAX:
            self._give_up(claimed)
            return
        try:
            with self._store.operations.heartbeat(claimed, self._heartbeat_interval):
                response = self._work[claimed.kind](Claim(claimed, self._store, self._stopping))
        except LeaseLost:
            raise
        except Stopped:
            self._store.operations.release(claimed)
        except Exception as error:  # noqa: BLE001 - every error is recorded in the operation
            self._fail(claimed, error)
        else:
            self._store.operations.complete(claimed, response.SerializeToString())

    def _fail(self, claimed: ClaimedOperation, error: Exception) -> None:
        """Fails the operation if the error is permanent; otherwise schedules a retry with exponential backoff."""
        code = _final_code(error)
        if code is not None:
            log.info("operation_failed", operation=claimed.name, error=str(error))
            self._store.operations.complete(claimed, b"", str(error), code)
            return
        log.warning("operation_postponed", operation=claimed.name, attempt=claimed.attempt_count, exc_info=error)
        retry_after = getattr(error, "retry_after", None)
        rest = retry_after or exponential_backoff(claimed.attempt_count, RETRY_FIRST, RETRY_MAX)
        retry_time = self._store.clock.now() + rest
        self._store.operations.postpone(claimed, retry_time, _message_of(error), counted=retry_after is None)

    def _give_up(self, claimed: ClaimedOperation) -> None:
        last = claimed.last_error or "the process that executed it crashed"
        log.warning("operation_abandoned", operation=claimed.name, last_error=last)
        why = f"failed after {ATTEMPTS_MAX} attempts without progress; last error: {last}"
        advice = "Fix the cause, or ask an operator, and start the operation again"
        self._store.operations.complete(claimed, b"", f"{why}. {advice}", "ABORTED")


def _final_code(error: Exception) -> str | None:
    """Returns the name of the status code if the error is permanent; None if a retry can succeed."""
    return error.code.name if isinstance(error, VestaError) and not is_transient(error) else None


def _message_of(error: Exception) -> str:
    """Returns the message of a VestaError; for other exceptions the repr, because their type is more informative than the message."""
    return str(error) if isinstance(error, VestaError) else repr(error)
