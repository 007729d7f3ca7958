"""Operations in PostgreSQL, with the leases of their workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from vesta_common.clock import Clock
from vesta_common.leases import Heartbeat, Lease, Leases
from vesta_common.resources.methods import existing
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.datasets.v1 import ExportDatasetResponse, ImportDatasetResponse, TransferProgress

from vesta_datasets.store.statements import queries

IMPORT: Final = "import"
EXPORT: Final = "export"
LEASE_DURATION = timedelta(seconds=30)
_LEASES = Leases("operations", LEASE_DURATION, unfinished="NOT done")
_RESPONSES: Final[Mapping[str, type[ImportDatasetResponse | ExportDatasetResponse]]] = {
    IMPORT: ImportDatasetResponse,
    EXPORT: ExportDatasetResponse,
}


class OperationProgress(NamedTuple):
    """The number of processed items and of all items."""

    done_count: int
    total_count: int


@dataclass(frozen=True)
class ClaimedOperation:
    """An operation that this worker has claimed.

    Attributes:
        caller: the principal that created the operation; empty if unknown.
        done_count: the number of items that previous attempts have processed.
        response: the partial response at that point; empty at the first attempt.
        attempt_count: the number of attempts since the last progress.
        last_error: the error of the previous attempt; empty if its worker crashed.
    """

    lease: Lease
    name: str
    kind: str
    request: bytes
    caller: str
    done_count: int
    response: bytes
    attempt_count: int
    last_error: str


class StoredOperations:
    """The table of operations.

    Writes to a claimed operation raise LeaseLost if another worker has claimed it; the transaction must then be rolled back.
    """

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def insert(self, connection: Connection, name: str, kind: str, request: Message, caller: str) -> None:
        """Inserts an operation. A worker claims it later."""
        queries.insert_operation(
            connection, name=name, kind=kind, request=request.SerializeToString(), caller=caller, now=self._clock.now()
        )

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

    def delete_completed(self, connection: Connection, before: datetime) -> None:
        """Deletes the completed operations that were created before that time."""
        queries.delete_operations(connection, before=before)

    def oldest_pending_time(self, connection: Connection) -> datetime | None:
        """Returns when the oldest operation that is not completed was created; None if there is none."""
        oldest: datetime | None = queries.find_oldest_to_do(connection)
        return oldest

    def claim(self) -> ClaimedOperation | None:
        """Claims the oldest operation without a valid lease; returns None if there is none."""
        with self._postgres.transaction() as connection:
            lease = _LEASES.claim(connection, self._clock.now())
        return _claimed(lease) if lease else None

    def heartbeat(self, claimed: ClaimedOperation, interval: timedelta | None = None) -> Heartbeat:
        """Returns a context manager that renews the lease while its block runs."""
        return _LEASES.heartbeat(self._postgres, claimed.lease, self._clock, interval)

    def advance(
        self, connection: Connection, claimed: ClaimedOperation, progress: OperationProgress, response: bytes
    ) -> None:
        """Stores the progress and the partial response. Resets the attempts if more items are processed than ever before."""
        _LEASES.verify(connection, claimed.lease)
        queries.advance_operation(
            connection,
            name=claimed.name,
            done_count=progress.done_count,
            total_count=progress.total_count,
            response=response,
        )

    def release(self, claimed: ClaimedOperation) -> None:
        """Releases an operation whose attempt was interrupted by the service."""
        with self._postgres.transaction() as connection:
            _LEASES.release(connection, claimed.lease, counted=False)

    def postpone(self, claimed: ClaimedOperation, until: datetime, last_error: str, *, counted: bool) -> None:
        """Releases an operation until the given time.

        Args:
            counted: whether the attempt counts.
        """
        with self._postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            queries.put_operation_error(connection, name=claimed.name, last_error=last_error)
            _LEASES.postpone(connection, claimed.lease, until, counted=counted)

    def complete(self, claimed: ClaimedOperation, response: bytes, error: str = "", error_code: str = "OK") -> None:
        """Completes an operation with a response, or with an error and the name of its status code."""
        with self._postgres.transaction() as connection:
            _LEASES.verify(connection, claimed.lease)
            queries.complete_operation(
                connection, name=claimed.name, response=response, error=error, error_code=error_code
            )


def _claimed(lease: Lease) -> ClaimedOperation:
    row: Mapping[str, Any] = lease.row
    return ClaimedOperation(
        lease=lease,
        name=row["name"],
        kind=row["kind"],
        request=bytes(row["request"]),
        caller=row["caller"],
        done_count=row["done_count"],
        response=bytes(row["response"] or b""),
        attempt_count=lease.attempt_count,
        last_error=row["last_error"],
    )
