"""Overload: a service's refusal reaches the caller with the time to come again, and work that nobody waits for is ended."""

import threading
from datetime import timedelta

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vesta_contracts.serving.v1 import DeploymentServiceStub, PredictInput, PredictRequest
from vesta_gateway.access.throttle import REQUESTS_MIN

PREDICT = "/v1/projects/acme/deployments/d:predict"
BODY = {"inputs": [{"data": "aGVsbG8="}]}
REQUEST = PredictRequest(name="projects/acme/deployments/d", inputs=[PredictInput(data=b"hello")])


def test_over_rest_an_overload_is_429_with_retry_after(running):
    running.services.overloaded = True
    with running.rest() as client:
        answer = client.post(PREDICT, json=BODY)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["details"][0]["reason"] == "OVERLOADED"


def test_over_grpc_an_overload_has_its_retry_info(running):
    running.services.overloaded = True
    with running.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        DeploymentServiceStub(channel).Predict(REQUEST, metadata=[("authorization", f"Bearer {running.owner_key}")])

    retry = error_details_pb2.RetryInfo()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(refused.value).details)
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=2.5)


def test_the_gateway_rejects_calls_for_an_overloaded_service_and_forwards_others(running):
    running.services.overloaded = True
    count = 10 * REQUESTS_MIN
    with running.rest() as client:
        answers = [client.post(PREDICT, json=BODY) for _ in range(count)]
        other = client.get("/v1/projects/acme/datasets")

    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(429, "3")}
    asked = sum(seen.method == "Predict" for seen in running.services.seen)
    assert REQUESTS_MIN <= asked < count / 2
    assert other.status_code == 200


def test_other_rejections_do_not_throttle(running):
    running.services.exhausted = True
    with running.rest() as client:
        refused = [client.delete("/v1/projects/acme/datasets/d").status_code for _ in range(5 * REQUESTS_MIN)]

    assert set(refused) == {429}  # RESOURCE_EXHAUSTED for another reason
    assert sum(seen.method == "DeleteDataset" for seen in running.services.seen) == len(refused)


def test_an_abandoned_prediction_is_cancelled(running):
    running.services.predicting = threading.Event()
    with running.rest() as client, pytest.raises(httpx.ReadTimeout):
        client.post(PREDICT, json=BODY, timeout=0.5)

    assert running.services.ended.wait(10)
    running.services.predicting.set()


def test_a_rest_request_can_set_a_timeout(running):
    running.services.predicting = threading.Event()
    with running.rest() as client:
        answer = client.post(PREDICT, json=BODY, headers={"grpc-timeout": "100m"})
        malformed = client.post(PREDICT, json=BODY, headers={"grpc-timeout": "soon"})
    running.services.predicting.set()

    assert answer.status_code == 504
    assert malformed.status_code == 400
    assert malformed.json()["error"]["details"][0]["reason"] == "TIMEOUT_MALFORMED"
