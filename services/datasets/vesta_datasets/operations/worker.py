"""Long-running operations: rows in PostgreSQL, claimed by workers with a lease, and resumed by another worker after a crash."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, Protocol

import psycopg
import psycopg_pool
import structlog
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from vesta_common.errors import VestaError, is_transient
from vesta_common.ids import new_id
from vesta_common.resources.methods import existing
from vesta_common.resources.names import project_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import ExportDatasetResponse, ImportDatasetResponse, TransferProgress

from vesta_datasets.store import Store
from vesta_datasets.store.statements import queries

IMPORT: Final = "import"
EXPORT: Final = "export"
LEASE = timedelta(seconds=30)
HEARTBEAT = timedelta(seconds=10)
ATTEMPTS_MAX = 8
RETRY_FIRST = timedelta(seconds=5)
RETRY_MAX = timedelta(minutes=2)
_RESPONSES: Final[Mapping[str, type[ImportDatasetResponse | ExportDatasetResponse]]] = {
    IMPORT: ImportDatasetResponse,
    EXPORT: ExportDatasetResponse,
}

log = structlog.get_logger()


class TakenOver(Exception):
    """Another worker has claimed the operation; the writes of this one are rejected."""


class Stopped(Exception):
    """The service is stopping; the operation is released."""


class OperationProgress(NamedTuple):
    """The number of processed items and of all items."""

    done_count: int
    total_count: int


@dataclass(frozen=True)
class Claim:
    """An operation that this worker has claimed.

    Attributes:
        caller: the principal that created the operation; empty if unknown.
        fence: the fencing token. All writes are conditional on it, so that writes of previous claimants are rejected.
        done_count: the number of items that previous attempts have processed.
        response: the partial response at that point; empty at the first attempt.
        attempt_count: the number of attempts since the last progress.
        last_error: the error of the previous attempt; empty if its worker crashed.
        stopping: set when the service stops.
    """

    name: str
    kind: str
    request: bytes
    caller: str
    fence: int
    done_count: int
    response: bytes
    attempt_count: int
    last_error: str
    stopping: threading.Event

    def advance(self, connection: Connection, progress: OperationProgress, response: bytes = b"") -> None:
        """Stores the progress, in the same transaction as the work.

        Raises:
            TakenOver: another worker has claimed the operation. The transaction must be rolled back.
        """
        if not queries.advance_operation(
            connection,
            name=self.name,
            fence=self.fence,
            done_count=progress.done_count,
            total_count=progress.total_count,
            response=response,
        ):
            raise TakenOver

    def check(self) -> None:
        """Raises Stopped if the service is stopping. Called between two batches."""
        if self.stopping.is_set():
            raise Stopped


class Work(Protocol):
    """Executes operations of one kind."""

    def __call__(self, claim: Claim, /) -> Message:
        """Executes the operation from `claim.done_count` on, and returns its response."""
        ...


class Operations:
    """Stores and executes operations. Safe to run in any number of replicas.

    Args:
        work: the executor of each kind.
        heartbeat: interval at which the lease of the running operation is renewed.
    """

    def __init__(self, store: Store, work: Mapping[str, Work], heartbeat: timedelta = HEARTBEAT) -> None:
        self._store = store
        self._work = work
        self._heartbeat = heartbeat
        self._stopping = threading.Event()
        self.wake: Callable[[], None] = lambda: None

    def begin(
        self, connection: Connection, kind: str, name: str, request: Any, caller: str
    ) -> operations_pb2.Operation:
        """Creates an operation. A worker claims it later."""
        operation = f"{project_of(name)}/operations/{new_id()}"
        queries.insert_operation(
            connection,
            name=operation,
            kind=kind,
            request=request.SerializeToString(),
            caller=caller,
            now=self._store.clock.now(),
        )
        return self.get(connection, operation)

    def get(self, connection: Connection, name: str) -> operations_pb2.Operation:
        """Returns the current state of an operation. Raises NotFound."""
        row = existing(queries.find_operation(connection, name=name), name)
        operation = operations_pb2.Operation(name=name, done=row["done"])
        operation.metadata.Pack(TransferProgress(done_count=row["done_count"], total_count=row["total_count"]))
        if row["error"]:
            code = code_pb2.Code.Value(row["error_code"])
            operation.error.CopyFrom(status_pb2.Status(code=code, message=row["error"]))
        elif row["done"]:
            operation.response.Pack(_RESPONSES[row["kind"]].FromString(bytes(row["response"])))
        return operation

    def stop(self) -> None:
        """Makes the running operation release its claim after the current batch."""
        self._stopping.set()

    def step(self) -> bool:
        """Executes one attempt of one operation. Returns False if no operation can be claimed."""
        claim = self._claim()
        if claim is None:
            return False
        if claim.attempt_count > ATTEMPTS_MAX:
            self._give_up(claim)
            return True
        try:
            with self._renewing_lease(claim):
                response = self._work[claim.kind](claim)
        except TakenOver:
            log.warning("operation_taken_over", operation=claim.name)
        except Stopped:
            self._write(queries.release_operation, claim)
        except Exception as error:  # noqa: BLE001 - every error is recorded in the operation
            self._fail(claim, error)
        else:
            self._end(claim, response.SerializeToString())
        return True

    def _claim(self) -> Claim | None:
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            row = queries.claim_operation(connection, now=now, lease_expire_time=now + LEASE)
        if row is None:
            return None
        return Claim(
            name=row["name"],
            kind=row["kind"],
            request=bytes(row["request"]),
            caller=row["caller"],
            fence=row["fence"],
            done_count=row["done_count"],
            response=bytes(row["response"] or b""),
            attempt_count=row["attempt_count"],
            last_error=row["last_error"],
            stopping=self._stopping,
        )

    @contextmanager
    def _renewing_lease(self, claim: Claim) -> Iterator[None]:
        """Renews the lease in a thread while the block runs, however long a batch takes."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._heartbeat.total_seconds()):
                try:
                    self._write(queries.renew_operation, claim, lease_expire_time=self._store.clock.now() + LEASE)
                except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
                    log.warning("operation_not_renewed", operation=claim.name, error=str(error))

        thread = threading.Thread(target=renew, name="operation-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _fail(self, claim: Claim, error: Exception) -> None:
        """Fails the operation if the error is permanent; otherwise schedules a retry with exponential backoff."""
        code = _final_code(error)
        if code is not None:
            log.info("operation_failed", operation=claim.name, error=str(error))
            self._end(claim, b"", str(error), code)
            return
        log.warning("operation_postponed", operation=claim.name, attempt=claim.attempt_count, exc_info=error)
        asked = getattr(error, "retry_after", None)
        rest = asked or min(RETRY_FIRST * 2 ** (claim.attempt_count - 1), RETRY_MAX)
        self._write(
            queries.postpone_operation,
            claim,
            retry_time=self._store.clock.now() + rest,
            last_error=_message_of(error),
            counts=asked is None,
        )

    def _give_up(self, claim: Claim) -> None:
        last = claim.last_error or "the process that worked on it died"
        log.warning("operation_given_up", operation=claim.name, last_error=last)
        why = f"given up after {ATTEMPTS_MAX} attempts that got no further; the last one ended so: {last}"
        self._end(claim, b"", f"{why}. Mend that, or ask an operator to, and ask for it again", "ABORTED")

    def _end(self, claim: Claim, response: bytes, error: str = "", error_code: str = "OK") -> None:
        self._write(queries.end_operation, claim, response=response, error=error, error_code=error_code)

    def _write(self, query: Callable[..., int], claim: Claim, **values: object) -> None:
        """Updates the operation, unless another worker has claimed it."""
        with self._store.postgres.transaction() as connection:
            query(connection, name=claim.name, fence=claim.fence, **values)


def _final_code(error: Exception) -> str | None:
    """Returns the name of the status code if the error is permanent; None if a retry can succeed."""
    return error.code.name if isinstance(error, VestaError) and not is_transient(error) else None


def _message_of(error: Exception) -> str:
    """Returns the message of a VestaError; for other exceptions the repr, because their type is more informative than the message."""
    return str(error) if isinstance(error, VestaError) else repr(error)
