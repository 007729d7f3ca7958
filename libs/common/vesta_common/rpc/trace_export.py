"""Exports spans to an OpenTelemetry collector (OTLP over gRPC), in batches on a background thread. Disabled without a collector address.

Calls never wait for the collector. Spans that it does not accept in time are dropped.
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
BACKOFF = timedelta(seconds=5)
"""Pause after a failed export. It also bounds the shutdown time of a process whose collector is unreachable."""


def start_tracing_of(service: str, settings: ServiceSettings, *, trusts_caller_sampling: bool = True) -> None:
    """Starts tracing, with export if the settings have a collector address.

    Args:
        trusts_caller_sampling: whether to accept the sampling decision of callers. If false, as at the edge, the sample ratio decides.
    """
    if not settings.otlp_endpoint:
        start_tracing(service)
        return
    ratio = TraceIdRatioBased(settings.otlp_sample_ratio)
    sampler = ParentBased(ratio) if trusts_caller_sampling else ParentBased(ratio, remote_parent_sampled=ratio)
    exporter = BackoffExporter(_exporter(settings), time.monotonic)
    batches = BatchSpanProcessor(exporter, SPANS_WAITING_MAX, EXPORT_INTERVAL / timedelta(milliseconds=1))
    # For an unreachable collector the library logs once per batch, and not once per dropped span.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    start_tracing(service, batches, sampler)


class BackoffExporter(SpanExporter):
    """Pauses after a failed export and drops spans meanwhile."""

    def __init__(self, exporter: SpanExporter, monotonic: Callable[[], float]) -> None:
        self._exporter = exporter
        self._monotonic = monotonic
        self._paused_until = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports the spans, or drops them during a pause."""
        if self._monotonic() < self._paused_until:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._paused_until = self._monotonic() + BACKOFF.total_seconds()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _exporter(settings: ServiceSettings) -> SpanExporter:
    # Loaded only if spans are exported.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    credentials = None
    if settings.otlp_endpoint.startswith("https://"):
        authorities = Path(settings.otlp_ca_file).read_bytes() if settings.otlp_ca_file else None
        credentials = grpc.ssl_channel_credentials(authorities)
    return OTLPSpanExporter(settings.otlp_endpoint, credentials=credentials, timeout=EXPORT_TIMEOUT.total_seconds())
