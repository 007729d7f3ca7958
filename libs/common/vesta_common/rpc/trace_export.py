"""Spans to an OpenTelemetry collector over OTLP and gRPC, in batches from a thread of their own; off where no collector is named.

Calls never wait for a collector: what it does not take in time is dropped.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from vesta_common.settings import ServiceSettings
from vesta_common.trace import start_tracing

SPANS_WAITING_MAX = 4096
EXPORT_INTERVAL = timedelta(seconds=1)
EXPORT_TIMEOUT = timedelta(seconds=2)
PENALTY = timedelta(seconds=5)
"""How long a collector that failed is left alone; it is also what bounds the end of a process beside a collector that is away."""


def start_tracing_of(service: str, settings: ServiceSettings, *, believes_callers: bool = True) -> None:
    """Starts tracing, and exports it where the settings name a collector.

    Args:
        believes_callers: whether a caller's word that its trace is sampled counts; at the edge the ratio decides instead.
    """
    if not settings.otlp_endpoint:
        start_tracing(service)
        return
    ratio = TraceIdRatioBased(settings.otlp_sample_ratio)
    sampler = ParentBased(ratio) if believes_callers else ParentBased(ratio, remote_parent_sampled=ratio)
    exporter = PatientExporter(_exporter(settings), time.monotonic)
    batches = BatchSpanProcessor(exporter, SPANS_WAITING_MAX, EXPORT_INTERVAL / timedelta(milliseconds=1))
    # Of a collector that is away it tells once for each batch, and not for each span that is dropped.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    start_tracing(service, batches, sampler)


class PatientExporter(SpanExporter):
    """Leaves an exporter that failed alone for a while, and drops what comes meanwhile."""

    def __init__(self, exporter: SpanExporter, monotonic: Callable[[], float]) -> None:
        self._exporter = exporter
        self._monotonic = monotonic
        self._rests_until = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """As of every exporter."""
        if self._monotonic() < self._rests_until:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._rests_until = self._monotonic() + PENALTY.total_seconds()
        return result

    def shutdown(self) -> None:
        """As of every exporter."""
        self._exporter.shutdown()


def _exporter(settings: ServiceSettings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # for those alone that export

    credentials = None
    if settings.otlp_endpoint.startswith("https://"):
        authorities = Path(settings.otlp_ca_file).read_bytes() if settings.otlp_ca_file else None
        credentials = grpc.ssl_channel_credentials(authorities)
    return OTLPSpanExporter(settings.otlp_endpoint, credentials=credentials, timeout=EXPORT_TIMEOUT.total_seconds())
