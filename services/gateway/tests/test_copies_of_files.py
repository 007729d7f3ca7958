"""A file in a request is not copied by the gateway, except where a part of a body becomes a message."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from vesta_common.rpc.outline import PLACEHOLDER
from vesta_contracts.connection.v1 import UploadItemRequest
from vesta_contracts.serving.v1 import PredictInput, PredictRequest
from vesta_gateway.calls.pipeline import Request, read_message
from vesta_gateway.contracts.methods import Rpc, all_rpcs, get_rpc
from vesta_gateway.rest.file_bodies import read_files
from vesta_gateway.rest.routes import Routes

FILE = bytes(range(256)) * 16_000
NAME = "projects/acme/deployments/vans"
PREDICT = get_rpc("vesta.serving.v1.DeploymentService.Predict")
UPLOAD = get_rpc("vesta.connection.v1.SourceService.UploadItem")


def peak_of(act: Callable[[], Any]) -> tuple[Any, int]:
    """Returns the result, and the memory that was allocated at most meanwhile."""
    tracemalloc.start()
    try:
        result = act()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("rpc", "message"),
    [
        (PREDICT, PredictRequest(name=NAME, inputs=[PredictInput(data=FILE)], embedding=True)),
        (UPLOAD, UploadItemRequest(parent="projects/acme/sources/s", file=HttpBody(data=FILE))),
        (UPLOAD, UploadItemRequest(file=HttpBody(data=FILE))),
    ],
)
def test_a_message_with_a_file_is_forwarded_as_it_arrived(rpc: Rpc, message: Any) -> None:
    raw = message.SerializeToString()
    request, peak_bytes = peak_of(lambda: read_message(rpc, raw))
    assert request.serialized() is raw
    assert peak_bytes < len(FILE) / 10


def test_a_message_with_a_file_and_an_unknown_field_is_forwarded_without_the_field() -> None:
    message = PredictRequest(name=NAME, inputs=[PredictInput(data=FILE)])
    request = read_message(PREDICT, message.SerializeToString() + b"\x92\x3f\x01x")
    assert PredictRequest.FromString(request.serialized()) == message
    assert not request.serialized().endswith(b"\x92\x3f\x01x")


@pytest.mark.parametrize("query", ["", "embedding=true"])
def test_a_body_that_is_a_file_is_copied_once(query: str) -> None:
    match = Routes(all_rpcs()).find("POST", f"/v1/{NAME}:predict")
    assert match is not None
    (message, serialized), peak_bytes = peak_of(lambda: read_files(match, query, FILE, "image/jpeg"))
    assert message == PredictRequest(name=NAME, inputs=[PredictInput(data=PLACEHOLDER)], embedding=bool(query))
    sent = PredictRequest(name=NAME, inputs=[PredictInput(data=FILE)], embedding=bool(query))
    assert Request(message, serialized).serialized() == sent.SerializeToString()
    assert peak_bytes < 1.2 * len(FILE)
