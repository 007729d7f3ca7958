"""Records calls in the audit log before their response is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf.message import Message
from google.rpc import code_pb2
from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.errors import from_status
from vesta_common.ids import new_id

from vesta_gateway.access.caller import Caller
from vesta_gateway.audit.audit_writer import AuditWriter
from vesta_gateway.audit.entries import Origin, is_recorded, row_of
from vesta_gateway.contracts.methods import Rpc
from vesta_gateway.problems import status_of
from vesta_gateway.store.audit_entries import AuditRow


class AuditLog:
    """Records calls and their outcomes."""

    def __init__(self, writer: AuditWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    @asynccontextmanager
    async def around(self, rpc: Rpc, caller: Caller, request: Message, origin: Origin) -> AsyncIterator[list[bytes]]:
        """Records the call that the block makes. The block appends the serialized response to the yielded list, if there is one."""
        responses: list[bytes] = []
        try:
            yield responses
        except asyncio.CancelledError:  # the client has disconnected, but the call may have taken effect
            self._later(rpc, caller, request, ("CANCELLED", ""), origin)
            raise
        except Exception as error:
            outcome = _outcome(error)
            if is_recorded(rpc, outcome[0]):
                await self._writer.put(self._row(rpc, caller, request, b"", outcome, origin))
            raise
        if is_recorded(rpc, "OK"):
            await self._writer.put(self._row(rpc, caller, request, b"".join(responses), ("OK", ""), origin))

    def record_denied(self, rpc: Rpc, error: Exception, origin: Origin) -> None:
        """Records a call with an unknown API key."""
        self._later(rpc, None, None, _outcome(error), origin)

    def _later(
        self, rpc: Rpc, caller: Caller | None, request: Message | None, outcome: tuple[str, str], origin: Origin
    ) -> None:
        if is_recorded(rpc, outcome[0]):
            self._writer.put_without_waiting(self._row(rpc, caller, request, b"", outcome, origin))

    def _row(
        self,
        rpc: Rpc,
        caller: Caller | None,
        request: Message | None,
        response: bytes,
        outcome: tuple[str, str],
        origin: Origin,
    ) -> AuditRow:
        return row_of(rpc, caller, request, response, outcome, origin, new_id(), self._clock.now(), trace.trace_id())


def _outcome(error: Exception) -> tuple[str, str]:
    """Returns the gRPC status name and the reason of an error."""
    status = status_of(error)
    return code_pb2.Code.Name(status.code), from_status(status).reason
