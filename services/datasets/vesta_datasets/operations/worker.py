"""Operations: imports and exports, kept as rows, worked on by whoever claims them, taken up again after a kill."""

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
    """Another worker holds the operation now; what this one does for it no longer counts."""


class Stopped(Exception):
    """The service is stopping; the operation is given back."""


class OperationProgress(NamedTuple):
    """How many items of how many are dealt with."""

    done_count: int
    total_count: int


@dataclass(frozen=True)
class Claim:
    """An operation that this worker holds. Its fence shuts out the workers that held it before: all writes are made under it.

    Attributes:
        caller: who asked for it; empty where nobody is known.
        done_count: how far an earlier worker came.
        response: what the operation would have answered there; empty at the beginning.
        attempt_count: how often it was begun without getting further.
        last_error: what ended the attempt before; empty where its worker died.
        stopping: whether the service is stopping.
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
        """Keeps how far the work is, in the transaction of what was done.

        Raises:
            TakenOver: and the transaction must be rolled back.
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
        """Between two pieces of work. Raises Stopped."""
        if self.stopping.is_set():
            raise Stopped


class Work(Protocol):
    """Does what an operation asks for."""

    def __call__(self, claim: Claim, /) -> Message:
        """The operation's response. What was done up to `claim.done_count` is done."""
        ...


class Operations:
    """Keeps and works on operations. Any number of replicas may.

    Args:
        work: by kind.
        heartbeat: how often the lease of what is worked on is renewed.
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
        """Queues an operation that the caller asks for."""
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
        """An operation as it stands. Raises NotFound."""
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
        """Makes the running operation give itself back after the piece of work in hand."""
        self._stopping.set()

    def step(self) -> bool:
        """Works on one operation, to its end or its next attempt; False where there is none."""
        claim = self._claim()
        if claim is None:
            return False
        if claim.attempt_count > ATTEMPTS_MAX:
            self._give_up(claim)
            return True
        try:
            with self._kept(claim):
                response = self._work[claim.kind](claim)
        except TakenOver:
            log.warning("operation_taken_over", operation=claim.name)
        except Stopped:
            self._write(queries.release_operation, claim)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
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
    def _kept(self, claim: Claim) -> Iterator[None]:
        """Renews the lease while the work goes on, however long a piece of it takes."""
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
        """Ends the operation where trying again is no use, else gives it a rest."""
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
            last_error=_told(error),
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
        """Changes the operation, unless another worker holds it."""
        with self._store.postgres.transaction() as connection:
            query(connection, name=claim.name, fence=claim.fence, **values)


def _final_code(error: Exception) -> str | None:
    """The name of the code that an operation ends with for this error; None where another attempt may go better."""
    return error.code.name if isinstance(error, VestaError) and not is_transient(error) else None


def _told(error: Exception) -> str:
    """An error of ours speaks for itself; of others the kind says more than the message."""
    return str(error) if isinstance(error, VestaError) else repr(error)
