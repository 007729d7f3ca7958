"""What is written down of every request: a line in the log and a measurement."""

import time
from dataclasses import dataclass, field

import structlog
from vesta_common import trace
from vesta_common.errors import VestaError
from vesta_common.metrics import RpcMetrics

from vesta_gateway.problems import StatusError

log = structlog.get_logger()


@dataclass
class Entry:
    """One request on its way into the journal.

    Attributes:
        door: `rest` or `grpc`.
        target: the RPC's path on the wire, or what was asked for instead.
        address: where it comes from.
        caller: the member, once known.
    """

    door: str
    target: str
    address: str
    start: float
    metrics: RpcMetrics
    caller: str = ""
    fields: dict[str, object] = field(default_factory=dict)

    def end(self, code: str, error: BaseException | None = None) -> None:
        """Writes it down.

        Args:
            code: the gRPC name of how it ended.
            error: why, where it failed. Its trace goes to the log where it is our own mistake.
        """
        seconds = time.perf_counter() - self.start
        self.metrics.observe(self.target, code, seconds)
        trace.end_call(code)
        reason = {"reason": error.reason} if isinstance(error, VestaError) else {}
        unexpected = code == "INTERNAL" and error is not None and not isinstance(error, VestaError | StatusError)
        log.info(
            "request",
            door=self.door,
            target=self.target,
            code=code,
            seconds=round(seconds, 4),
            caller=self.caller,
            address=self.address,
            **reason,
            **self.fields,
            **({"exc_info": error} if unexpected else {}),
        )


class Journal:
    """Begins entries."""

    def __init__(self, metrics: RpcMetrics) -> None:
        self._metrics = metrics

    def begin(self, door: str, target: str, address: str, start: float) -> Entry:
        """A request has come."""
        return Entry(door, target, address, start, self._metrics)
