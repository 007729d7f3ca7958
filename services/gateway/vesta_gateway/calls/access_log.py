"""The access log: a log line and a metric for each request."""

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
    """The access log entry of a request.

    Attributes:
        protocol: the protocol, `rest` or `grpc`.
        target: the RPC's path, or a placeholder for unknown paths.
        address: the client's address.
        caller: the member, once authenticated.
    """

    protocol: str
    target: str
    address: str
    start: float
    metrics: RpcMetrics
    caller: str = ""
    fields: dict[str, object] = field(default_factory=dict)

    def end(self, code: str, error: BaseException | None = None) -> None:
        """Writes the log line and records the metric.

        Args:
            code: the gRPC status name.
            error: the error, if the request failed. The traceback of an unexpected error is logged.
        """
        seconds = time.perf_counter() - self.start
        self.metrics.observe(self.target, code, seconds)
        trace.end_call(code)
        reason = {"reason": error.reason} if isinstance(error, VestaError) else {}
        unexpected = code == "INTERNAL" and error is not None and not isinstance(error, VestaError | StatusError)
        log.info(
            "request",
            protocol=self.protocol,
            target=self.target,
            code=code,
            seconds=round(seconds, 4),
            caller=self.caller,
            address=self.address,
            **reason,
            **self.fields,
            **({"exc_info": error} if unexpected else {}),
        )


class AccessLog:
    """Creates access log entries."""

    def __init__(self, metrics: RpcMetrics) -> None:
        self._metrics = metrics

    def begin(self, protocol: str, target: str, address: str, start: float) -> Entry:
        """Starts the entry of a request."""
        return Entry(protocol, target, address, start, self._metrics)
