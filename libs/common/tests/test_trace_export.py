"""Spans go to a collector that settings name, and to nobody else; a collector that is away costs no call anything."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from vesta_common.rpc.trace_export import BACKOFF, BackoffExporter
from vesta_local.trace_receiver import TraceReceiver

WORKS = """
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace as otel
from opentelemetry.trace import SpanKind
from vesta_common import trace
from vesta_common.settings import ServiceSettings
from vesta_common.rpc.trace_export import start_tracing_of

settings = ServiceSettings(postgres_url="postgresql://nobody@127.0.0.1/none", **json.loads(sys.argv[1]))
start_tracing_of("sample", settings, trusts_caller_sampling=False)
caller = json.loads(sys.argv[2])
with trace.span("/call", caller, SpanKind.SERVER, also=[{"traceparent": f"00-{'7b' * 16}-{'1c' * 8}-01"}]):
    is_recorded = otel.get_current_span().is_recording()
    def ask():
        with trace.engine_span("triton/infer") as carrier:
            return carrier["traceparent"].split("-")[1]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(trace.carried(ask)).result()
    trace.end_call("INTERNAL")
    own, above = trace.carrier()["traceparent"].split("-")[2], caller.get("traceparent", "--").split("-")[2]
    print(json.dumps({"trace": trace.trace_id(), "asked": asked, "is_recorded": is_recorded, "has_own_id": own != above}))
"""
CALLER = {"traceparent": f"00-{'5a' * 16}-{'3d' * 8}-01"}


@pytest.fixture
def receiver() -> Iterator[TraceReceiver]:
    receiver = TraceReceiver()
    yield receiver
    receiver.close()


def work(settings: dict[str, object], caller: dict[str, str]) -> dict[str, object]:
    """What a process of its own says of its trace: tracing is started once a process."""
    command = [sys.executable, "-c", WORKS, json.dumps(settings), json.dumps(caller)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(ran.stdout))


def test_spans_arrive_below_the_callers_when_the_process_ends(receiver: TraceReceiver) -> None:
    said = work({"otlp_endpoint": f"http://{receiver.address}"}, CALLER)
    assert said == {"trace": "5a" * 16, "asked": "5a" * 16, "is_recorded": True, "has_own_id": True}
    infer, call = receiver.spans()
    assert (call.service, call.trace, call.parent, call.kind) == ("sample", "5a" * 16, "3d" * 8, "SPAN_KIND_SERVER")
    assert call.attributes["rpc.response.status_code"] == "INTERNAL"
    assert (infer.name, infer.parent, infer.kind) == ("triton/infer", call.id, "SPAN_KIND_CLIENT")


def test_without_a_collector_traces_have_ids_and_are_not_recorded() -> None:
    assert work({}, CALLER) == {"trace": "5a" * 16, "asked": "5a" * 16, "is_recorded": False, "has_own_id": True}


def test_without_a_collector_a_call_without_a_trace_begins_one() -> None:
    begun = work({}, {})
    assert len(str(begun["trace"])) == 32
    assert begun["trace"] == begun["asked"] != "0" * 32


def test_an_invalid_trace_context_of_a_caller_is_replaced() -> None:
    assert work({}, {"traceparent": f"00-{'0' * 32}-{'3d' * 8}-01"})["trace"] != "0" * 32


def test_the_edge_samples_by_its_ratio_whatever_callers_ask_for(receiver: TraceReceiver) -> None:
    said = work({"otlp_endpoint": f"http://{receiver.address}", "otlp_sample_ratio": 0.0}, CALLER)
    assert (said["trace"], said["is_recorded"]) == ("5a" * 16, False)
    assert receiver.spans() == []


def test_a_collector_that_is_away_holds_up_the_end_for_some_seconds_at_most() -> None:
    begin = time.monotonic()
    assert work({"otlp_endpoint": "http://127.0.0.1:9"}, CALLER)["is_recorded"]
    assert time.monotonic() - begin < 15


class Broken(SpanExporter):
    def __init__(self) -> None:
        self.asked = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
        return SpanExportResult.FAILURE


def test_a_collector_that_failed_is_left_alone_for_a_while() -> None:
    broken, now = Broken(), [100.0]
    exporter = BackoffExporter(broken, lambda: now[0])
    for moment in (0.0, 1.0, BACKOFF.total_seconds() - 0.1, BACKOFF.total_seconds()):
        now[0] = 100.0 + moment
        assert exporter.export([]) is SpanExportResult.FAILURE
    assert broken.asked == 2
