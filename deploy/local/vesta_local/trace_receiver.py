"""A trace receiver for tests, which keeps spans in memory. Speaks OTLP over gRPC like an OpenTelemetry collector."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from vesta_local.services import NAMES


@dataclass(frozen=True)
class ReceivedSpan:
    """A received span.

    Attributes:
        service: the service that recorded it.
        parent: the id of the parent span; empty for a root span.
        kind: `SPAN_KIND_SERVER` and so on.
    """

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: str
    attributes: Mapping[str, str]


class TraceReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """A gRPC server on a free port of 127.0.0.1.

    Attributes:
        address: HOST:PORT.
    """

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        """Stops the server."""
        self._server.stop(0).wait()

    def environment(self) -> dict[str, str]:
        """Returns the environment variables with which all services export traces to this receiver."""
        return {f"VESTA_{name.upper()}_OTLP_ENDPOINT": f"http://{self.address}" for name in NAMES}

    def spans(self, trace: str = "") -> list[ReceivedSpan]:
        """Returns the received spans, of one trace or all."""
        return [span for span in list(self._spans) if trace in {"", span.trace}]

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802 - the contract's name
        """Receives a batch of spans."""
        for resource in request.resource_spans:
            service = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}[
                "service.name"
            ]
            for scope in resource.scope_spans:
                self._spans.extend(_received(service, span) for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def _received(service: str, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.DESCRIPTOR.enum_types_by_name["SpanKind"].values_by_number[span.kind].name,
        {attribute.key: attribute.value.string_value for attribute in span.attributes},
    )
