"""Errors as HTTP says them, whatever they were."""

import json
import socket

import grpc
import psycopg
import pytest
from google.rpc import code_pb2, status_pb2
from vesta_common.errors import InvalidArgument, NotFound, ResourceExhausted, Violation, to_status
from vesta_gateway.problems import DETAILS_KEY, HTTP_STATUS, problem_of, status_of

PACKED = to_status(NotFound("there is no x", metadata={"name": "x"})).SerializeToString()


def an_rpc_error(code, details="", trailing=()):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


@pytest.mark.parametrize(
    ("error", "http_status", "reason", "message"),
    [
        (NotFound("there is no x"), 404, "NOT_FOUND", "there is no x"),
        (InvalidArgument("too large", reason="BODY_TOO_LARGE"), 413, "BODY_TOO_LARGE", "too large"),
        (an_rpc_error(grpc.StatusCode.NOT_FOUND, trailing=[(DETAILS_KEY, PACKED)]), 404, "NOT_FOUND", "there is no x"),
        (
            an_rpc_error(grpc.StatusCode.UNAVAILABLE, "ipv4:10.0.0.1:7002 refused"),
            503,
            "BACKEND_UNAVAILABLE",
            "this service",
        ),
        (an_rpc_error(grpc.StatusCode.UNKNOWN, "KeyError: secret"), 500, "INTERNAL", "internal error"),
        (an_rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED), 504, "DEADLINE_EXCEEDED", "the call ended with"),
        (an_rpc_error(grpc.StatusCode.UNIMPLEMENTED, "no such method"), 501, "UNIMPLEMENTED", "no such method"),
        (TimeoutError(), 504, "TIMEOUT", "the deadline of the call"),
        (psycopg.OperationalError("host 10.0.0.1 is away"), 503, "BACKEND_UNAVAILABLE", "a backend service"),
        (KeyError("secret"), 500, "INTERNAL", "internal error"),
    ],
)
def test_an_error_becomes_aip_193_json_without_internal_details(error, http_status, reason, message):
    problem = problem_of(status_of(error))

    said = json.loads(problem.body)["error"]
    assert (problem.http_status, said["code"], said["details"][0]["reason"]) == (http_status, http_status, reason)
    assert said["message"].startswith(message)
    assert "secret" not in said["message"]
    assert "10.0.0.1" not in said["message"]
    assert ("retry-after" in problem.headers) == (http_status in {429, 503})


def test_the_retry_delay_is_rounded_up():
    from datetime import timedelta

    problem = problem_of(status_of(ResourceExhausted("slow down", retry_after=timedelta(seconds=2.1))))

    assert problem.headers == {"retry-after": "3"}


def test_invalid_fields_are_listed():
    problem = problem_of(status_of(InvalidArgument("x", violations=[Violation("item.name", "is required")])))

    violations = json.loads(problem.body)["error"]["details"][1]["fieldViolations"]
    assert violations == [{"field": "item.name", "description": "is required"}]


def test_details_of_unknown_kinds_are_named():
    status = status_pb2.Status(code=code_pb2.Code.ABORTED, message="x")
    status.details.add(type_url="type.googleapis.com/other.Detail", value=b"")

    assert json.loads(problem_of(status).body)["error"]["details"] == [{"@type": "type.googleapis.com/other.Detail"}]


def test_every_code_has_an_http_status():
    assert set(HTTP_STATUS) == set(code_pb2.Code.keys())


def test_invalid_http_gets_the_usual_error_format(running):
    host, port = running.gateway.rest_address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-content-type-options: nosniff" in head
    assert json.loads(body)["error"]["details"][0]["reason"] == "HTTP_MALFORMED"
