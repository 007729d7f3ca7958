"""The REST door: who gets in, what services see, and how errors and answers look."""

import contextlib
import json
import re
import socket
from pathlib import Path

import httpx
import pytest
import vesta_gateway
from vesta_contracts.datasets.v1 import Dataset
from vesta_contracts.serving.v1 import PredictInput, PredictRequest, PredictResponse

DATASET = {"displayName": "Vans", "taxonomy": "projects/acme/taxonomies/t"}
PROTOBUF = "application/x-protobuf"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def problem(answer):
    """The error of an answer, and the reason in it."""
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    info = error["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "vesta"
    return error, info["reason"]


def test_a_resource_is_created_read_and_updated(running):
    key = running.member("acme", "engineer")
    with running.rest(key) as client:
        made = client.post("/v1/projects/acme/datasets", params={"datasetId": "vans"}, json=DATASET)
        read = client.get("/v1/projects/acme/datasets/vans")
        changed = client.patch("/v1/projects/acme/datasets/vans", json={"displayName": "Lorries"})

    assert made.status_code == 200
    assert read.json() == made.json()
    assert read.json()["displayName"] == "Vans"
    assert changed.json()["name"] == "projects/acme/datasets/vans"
    assert list(running.services.seen[-1].request.update_mask.paths) == ["display_name"]


def test_the_service_gets_caller_role_and_trace(running):
    key = running.member("acme", "viewer")
    forged = {
        "x-vesta-caller": "services/conductor",
        "x-vesta-role": "owner",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    }
    with running.rest(key) as client:
        answer = client.get("/v1/projects/acme/datasets", headers=forged)

    seen = running.services.seen[-1]
    assert (seen.caller, seen.role, seen.trace_id) == ("projects/acme/members/viewer", "viewer", TRACE)
    assert answer.headers["x-request-id"] == TRACE


def test_the_platform_owner_acts_as_the_owner_of_the_project(running):
    running.member("acme", "owner")
    with running.rest() as client:
        client.get("/v1/projects/acme/datasets").raise_for_status()

    assert (running.services.seen[-1].caller, running.services.seen[-1].role) == (
        "projects/acme/members/owner",
        "owner",
    )


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer vesta_wrong"}, {"authorization": "Basic eDp5"}, {"x-api-key": "?"}]
)
def test_unknown_callers_are_rejected(running, headers):
    answer = httpx.get(f"{running.url}/v1/projects/acme/datasets", headers=headers)

    error, reason = problem(answer)
    assert (answer.status_code, error["status"]) == (401, "UNAUTHENTICATED")
    assert reason in {"KEY_MISSING", "KEY_UNKNOWN"}
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert running.services.seen == []


def test_a_key_is_accepted_as_x_api_key(running):
    assert (
        httpx.get(f"{running.url}/v1/identity", headers={"x-api-key": running.owner_key}).json()["platformOwner"]
        is True
    )


def test_a_key_of_another_project_gets_no_information(running):
    running.member("acme", "owner")
    stranger = running.member("other", "owner")
    with running.rest() as client:
        client.post("/v1/projects/acme/datasets", params={"datasetId": "vans"}, json=DATASET).raise_for_status()
    count = len(running.services.seen)
    with running.rest(stranger) as client:
        there = client.get("/v1/projects/acme/datasets/vans")
        not_there = client.get("/v1/projects/acme/datasets/boats")

    assert there.status_code == 403
    assert problem(there)[1] == "PROJECT_DENIED"
    assert there.content == not_there.content
    assert len(running.services.seen) == count


def test_the_error_names_the_required_role(running):
    with running.rest(running.member("acme", "viewer")) as client:
        answer = client.post("/v1/projects/acme/datasets", json=DATASET)

    assert answer.status_code == 403
    assert (
        problem(answer)[0]["message"]
        == "CreateDataset requires one of the roles engineer, owner, but the role of this key is viewer; ask an owner of the project"
    )


def test_an_error_of_a_service_is_returned_with_its_details(running):
    with running.rest(running.member("acme", "viewer")) as client:
        answer = client.get("/v1/projects/acme/datasets/none")

    error, _ = problem(answer)
    assert (answer.status_code, error["status"]) == (404, "NOT_FOUND")
    assert error["message"] == "projects/acme/datasets/none does not exist; create it first"
    assert error["details"][0]["metadata"] == {"name": "projects/acme/datasets/none"}


def test_a_rejected_field_is_named(running):
    with running.rest(running.member("acme", "engineer")) as client:
        here = client.post("/v1/projects/acme/datasets", json={"colour": "red"})
        there = client.post("/v1/projects/acme/datasets", json={"displayName": "x"})

    assert problem(here)[0]["details"][1]["fieldViolations"][0]["field"] == "dataset.colour"
    assert problem(there)[0]["details"][1]["fieldViolations"][0]["field"] == "dataset.taxonomy"


@pytest.mark.parametrize(
    ("verb", "path", "body", "position"),
    [
        ("GET", "/v1/projects/%C3%92", None, "2"),
        ("GET", "/v1/projects/a%0Ab/datasets", None, "2"),
        ("GET", "/v1/projects/acme/datasets/%FF", None, "4"),
        ("DELETE", "/v1/projects/acme/datasets/%00", None, "4"),
        ("GET", "/v1/projects?names=projects/%C3%92", None, "2"),
        ("GET", "/v1/projects/acme/campaigns/c/tasks?filter=item%3Dprojects/%C3%92", None, "2"),
        ("POST", "/v1/projects/acme/sources", {"dataset": "projects/acme/datasets/\x7f"}, "4"),
    ],
)
def test_a_malformed_name_is_400_with_its_segment(running, verb, path, body, position):
    with running.rest() as client:
        answer = client.request(verb, path, json=body)

    assert answer.status_code == 400
    detail = answer.json()["error"]["details"][0]
    assert detail["reason"] == "INVALID_NAME"
    assert detail["metadata"]["position"] == position
    assert not running.services.seen


def test_an_overload_response_has_a_retry_delay(running):
    running.services.exhausted = True
    with running.rest(running.member("acme", "engineer")) as client:
        answer = client.delete("/v1/projects/acme/datasets/vans")

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


def test_an_unreachable_service_is_503_without_its_address(start_gateway):
    running = start_gateway(datasets_address="127.0.0.1:1", training_address="")
    key = running.member("acme", "viewer")
    with running.rest(key) as client:
        away = client.get("/v1/projects/acme/datasets")
        absent = client.get("/v1/projects/acme/models")

    for answer in (away, absent):
        error, reason = problem(answer)
        assert (answer.status_code, reason) == (503, "BACKEND_UNAVAILABLE")
        assert "127.0.0.1" not in error["message"]
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("verb", "path", "http_status", "reason"),
    [
        ("GET", "/v1/nothing", 404, "PATH_UNKNOWN"),
        ("GET", "/", 404, "PATH_UNKNOWN"),
        ("PUT", "/v1/projects/acme/datasets", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/projects/acme%2Fdatasets%2Fx", 404, "PATH_UNKNOWN"),
    ],
)
def test_unknown_paths_are_404_with_a_message(running, verb, path, http_status, reason):
    answer = httpx.request(verb, running.url + path)

    assert answer.status_code == http_status
    assert problem(answer)[1] == reason
    if http_status == 405:
        assert answer.headers["allow"] == "GET, POST"


def test_an_endless_request_head_is_cut_off(running):
    host, port = running.gateway.rest_address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx-long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"a" * 1000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_bodies_of_other_types_are_rejected(running):
    with running.rest(running.member("acme", "engineer")) as client:
        answer = client.post(
            "/v1/projects/acme/datasets", content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"}
        )

    assert answer.status_code == 415
    assert problem(answer)[1] == "CONTENT_TYPE_UNKNOWN"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_rejected(start_gateway, chunked):
    running = start_gateway(request_bytes_max=2000)
    with running.rest(running.member("acme", "engineer")) as client:
        body = b'{"displayName": "' + b"x" * 3000 + b'"}'
        answer = client.post(
            "/v1/projects/acme/datasets", content=iter([body[:1500], body[1500:]]) if chunked else body
        )

    assert answer.status_code == 413
    assert problem(answer)[1] == "BODY_TOO_LARGE"


def test_too_many_requests_of_one_key_are_rejected_and_others_are_not(start_gateway):
    running = start_gateway(requests_per_second=0.5, requests_burst=6)
    first, second = running.member("acme", "viewer"), running.member("other", "viewer")
    with running.rest(first) as client:
        codes = [client.get("/v1/identity").status_code for _ in range(8)]
        last = client.get("/v1/identity")
    with running.rest(second) as client:
        other = client.get("/v1/identity").status_code

    assert codes == [200] * 6 + [429] * 2
    assert problem(last)[1] == "RATE_LIMITED"
    assert 1 <= int(last.headers["retry-after"]) <= 2
    assert other == 200


def test_guessing_keys_is_throttled_and_other_clients_are_not(start_gateway):
    running = start_gateway(unauthenticated_requests_per_second=0.1, unauthenticated_requests_burst=3)
    with running.rest("vesta_guess") as client:
        codes = [client.get("/v1/identity").status_code for _ in range(5)]
    with running.rest() as client:
        neighbour = client.get("/v1/identity").status_code

    assert codes == [401, 401, 401, 429, 429]
    assert neighbour == 200


def test_predictions_are_accepted_as_json_or_protobuf(running):
    key = running.member("acme", "viewer")
    request = PredictRequest(inputs=[PredictInput(data=b"\xff" * 60_000)])
    with running.rest(key) as client:
        path = "/v1/projects/acme/deployments/d:predict"
        as_protobuf = client.post(path, content=request.SerializeToString(), headers={"content-type": PROTOBUF})
        as_json = client.post(path, json={"inputs": [{"data": "/w=="}]})
        mixed = client.post(path, json={"inputs": [{"data": "/w=="}]}, headers={"accept": PROTOBUF})

    assert as_protobuf.headers["content-type"] == PROTOBUF
    assert PredictResponse.FromString(as_protobuf.content).predictions[0].message == "60000"
    assert as_json.json()["predictions"][0]["message"] == "1"
    assert PredictResponse.FromString(mixed.content).predictions[0].message == "1"


PREDICT = "/v1/projects/acme/deployments/d:predict"
"""The fake serving service returns the size of each file, and the concept `embedded` if the embedding is requested."""


def test_an_image_is_predicted_without_base64(running):
    with running.rest(running.member("acme", "viewer")) as client:
        plain = client.post(PREDICT, content=b"\xff" * 60_000, headers={"content-type": "image/jpeg"})
        embedded = client.post(
            f"{PREDICT}?embedding=true", content=b"\x00", headers={"content-type": "application/octet-stream"}
        )

    assert [found["message"] for found in plain.json()["predictions"]] == ["60000"]
    assert [found["embedding"] for found in embedded.json()["predictions"]] == [[1.0]]


def test_several_images_are_predicted_as_multipart_in_their_order(running):
    images = [("file", (f"{size}.jpg", b"\r\n--" * size, "image/jpeg")) for size in (300_000, 1, 7)]
    with running.rest(running.member("acme", "viewer")) as client:
        found = client.post(PREDICT, files=images, data={"embedding": "true"})

    predictions = found.json()["predictions"]
    assert [prediction["message"] for prediction in predictions] == [str(4 * size) for size in (300_000, 1, 7)]
    assert predictions[0]["embedding"] == [1.0]


@pytest.mark.parametrize(
    ("content_type", "body", "query", "reason"),
    [
        ("multipart/form-data", b"", "", "BODY_MALFORMED"),
        ("multipart/form-data; boundary=x", b"--x\r\n", "", "BODY_MALFORMED"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--",
            "",
            "BODY_MALFORMED",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="embedding"\r\n\r\n' + b"\xff" + b"\r\n--x--\r\n",
            "",
            "BODY_MALFORMED",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="embedding"\r\n\r\nmaybe\r\n--x--\r\n',
            "",
            "QUERY_INVALID",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="embedding"\r\n\r\ntrue\r\n--x--\r\n',
            "",
            "FIELD_INVALID",
        ),
        ("image/jpeg", b"\xff", "colour=red", "QUERY_INVALID"),
        ("image/jpeg", b"\xff", "inputs.data=AA", "QUERY_INVALID"),
        ("text/plain", b"\xff", "", "CONTENT_TYPE_UNKNOWN"),
    ],
    ids=["no boundary", "cut off", "no name", "not text", "not a boolean", "no file", "unknown", "files", "text"],
)
def test_a_malformed_body_of_files_is_rejected(running, content_type, body, query, reason):
    with running.rest(running.member("acme", "viewer")) as client:
        found = client.post(f"{PREDICT}?{query}", content=body, headers={"content-type": content_type})

    assert found.status_code == (415 if reason == "CONTENT_TYPE_UNKNOWN" else 400)
    assert found.json()["error"]["details"][0]["reason"] == reason


def test_a_method_without_files_accepts_none(running):
    with running.rest(running.member("acme", "engineer")) as client:
        found = client.post("/v1/projects/acme/datasets", content=b"\xff", headers={"content-type": "image/jpeg"})

    assert found.json()["error"]["details"][0]["reason"] == "CONTENT_TYPE_UNKNOWN"


def test_a_reference_to_another_project_is_not_forwarded(running):
    key = running.member("acme", "engineer")
    hidden = PredictRequest(inputs=[PredictInput(item="projects/other/datasets/d/items/i")]).SerializeToString()
    count = len(running.services.seen)
    with running.rest(key) as client:
        path = "/v1/projects/acme/deployments/d:predict"
        answers = [
            client.post(path, json={"inputs": [{"item": "projects/other/datasets/d/items/i"}]}),
            client.post(path, content=hidden, headers={"content-type": PROTOBUF}),
            client.post("/v1/projects/acme/datasets", json={**DATASET, "taxonomy": "projects/other/taxonomies/t"}),
        ]

    assert [problem(answer)[1] for answer in answers] == ["PROJECT_DENIED"] * 3
    assert len(running.services.seen) == count


def test_large_messages_are_converted_outside_the_event_loop(running):
    key = running.member("acme", "engineer")
    name = "projects/acme/datasets/vans"
    running.services.datasets[name] = Dataset(name=name, display_name="x" * 300_000)
    with running.rest(key) as client:
        read = client.get("/v1/projects/acme/datasets/vans")
        sent = client.patch("/v1/projects/acme/datasets/vans", json={"displayName": "y" * 300_000})

    assert len(read.json()["displayName"]) == 300_000
    assert sent.status_code == 400


def test_every_response_has_security_headers(running):
    answers = [httpx.get(running.url + path) for path in ("/v1/identity", "/docs", "/openapi.json", "/nothing")]

    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "strict-transport-security" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_hsts_is_sent_only_over_tls(start_gateway):
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
    trusting, wary = start_gateway(trusted_proxies="127.0.0.1"), start_gateway()

    assert "max-age" in httpx.get(f"{trusting.url}/docs", headers=forwarded).headers["strict-transport-security"]
    assert "strict-transport-security" not in httpx.get(f"{wary.url}/docs", headers=forwarded).headers


def test_allowed_origins_may_call(start_gateway):
    running = start_gateway(cors_origins=("https://studio.example",))
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    path = f"{running.url}/v1/projects/acme/datasets"

    allowed = httpx.options(path, headers={"origin": "https://studio.example", **asked})
    refused = httpx.options(path, headers={"origin": "https://evil.example", **asked})

    assert allowed.headers["access-control-allow-origin"] == "https://studio.example"
    assert "access-control-allow-origin" not in refused.headers


def test_the_api_page_loads_nothing_from_other_hosts(running):
    page, script, style, api = (
        httpx.get(running.url + path) for path in ("/docs", "/docs/docs.js", "/docs/docs.css", "/openapi.json")
    )
    static = Path(vesta_gateway.__file__).parent / "static"

    assert page.headers["content-type"].startswith("text/html")
    assert script.headers["content-type"].startswith("text/javascript")
    assert style.headers["content-type"].startswith("text/css")
    assert json.loads(api.content)["openapi"] == "3.1.0"
    for file in static.iterdir():
        assert not re.search(r"https?://|(src|href)=\"//|@import|url\(", file.read_text()), file
    again = httpx.get(f"{running.url}/openapi.json", headers={"if-none-match": api.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(f"{running.url}/docs").content == b""


def test_health_reports_every_component(running):
    answer = httpx.get(f"{running.url}/healthz")
    ready = httpx.get(f"{running.url}/healthz/ready")

    assert answer.status_code == ready.status_code == 200
    assert {"postgres", "events", "datasets", "conductor"} <= set(answer.json()["parts"])
    assert answer.json()["parts"]["postgres"] == "SERVING"
