"""Errors keep what they say on their way over gRPC, and every kind has its code."""

import pickle
from datetime import timedelta
from urllib.parse import quote

import grpc
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common import errors
from vesta_common.errors import VestaError, Violation, from_status, is_transient, to_status

KINDS = [
    (errors.InvalidArgument, "INVALID_ARGUMENT"),
    (errors.Unauthenticated, "UNAUTHENTICATED"),
    (errors.PermissionDenied, "PERMISSION_DENIED"),
    (errors.NotFound, "NOT_FOUND"),
    (errors.AlreadyExists, "ALREADY_EXISTS"),
    (errors.FailedPrecondition, "FAILED_PRECONDITION"),
    (errors.Aborted, "ABORTED"),
    (errors.ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (errors.Unavailable, "UNAVAILABLE"),
    (errors.DataLoss, "DATA_LOSS"),
    (errors.Internal, "INTERNAL"),
]


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_every_kind_has_its_code_and_a_reason_of_the_same_name(kind: type[VestaError], code: str) -> None:
    raised = kind("what happened")
    assert (raised.code, raised.reason) == (grpc.StatusCode[code], code)


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_a_status_gives_back_the_error_that_it_was_made_from(kind: type[VestaError]) -> None:
    sent = kind(
        "what happened",
        reason="WHY",
        metadata={"name": "x"},
        violations=[Violation("a.b", "is wrong")],
        retry_after=timedelta(seconds=2),
    )
    came = from_status(to_status(sent))
    assert type(came) is kind
    assert (came.message, came.reason, came.metadata) == (sent.message, sent.reason, sent.metadata)
    assert (came.violations, came.retry_after) == (sent.violations, sent.retry_after)


@given(message=st.text(max_size=50), reason=st.from_regex(r"[A-Z_]{1,20}", fullmatch=True))
def test_an_error_travels_between_processes(message: str, reason: str) -> None:
    came = pickle.loads(pickle.dumps(errors.NotFound(message, reason=reason)))
    assert (came.message, came.reason) == (message, reason)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_long_error_reaches_its_caller_with_its_reason(letter: str) -> None:
    long = letter * 100_000
    error = errors.InvalidArgument(
        long, reason="FILTER_INVALID", metadata={"filter": long}, violations=[errors.Violation(long, long)] * 100
    )
    status = to_status(error)
    in_trailers = len(quote(status.message)) + 4 * len(status.SerializeToString()) // 3
    assert in_trailers < 8 * 1024
    came = from_status(status)
    assert (type(came), came.reason) == (errors.InvalidArgument, "FILTER_INVALID")
    assert came.message.endswith("…")
    assert came.violations[0].field.startswith(letter)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (errors.Unavailable("x"), True),
        (errors.Aborted("x"), True),
        (psycopg.OperationalError("x"), True),
        (psycopg.errors.ProgramLimitExceeded("x"), False),
        (errors.NotFound("x"), False),
        (ValueError("x"), False),
    ],
)
def test_only_what_may_pass_by_itself_is_transient(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient
