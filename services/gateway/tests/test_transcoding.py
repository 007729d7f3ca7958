"""HTTP to requests and back: paths, parameters, bodies, masks, and what is wrong with them."""

import base64
import json
from urllib.parse import urlencode

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_contracts.datasets.v1 import Item, ItemVariant
from vesta_contracts.serving.v1 import PredictInput, PredictRequest
from vesta_gateway.contracts.methods import all_rpcs, is_download, is_upload
from vesta_gateway.rest.routes import Routes
from vesta_gateway.rest.transcoding import JSON, PROTOBUF, read_request, read_upload, write_json

ROUTES = Routes(all_rpcs())
ACME = "/v1/projects/acme"


def read(verb, path, query=(), body=b"", content_type=JSON):
    match = ROUTES.find(verb, path)
    assert match is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_request(match, urlencode(query), raw, content_type)


def test_the_path_fills_fields_and_nested_fields():
    assert read("GET", f"{ACME}/datasets/d").name == "projects/acme/datasets/d"
    assert read("PATCH", f"{ACME}/sources/s", body={}).source.name == "projects/acme/sources/s"


def test_parameters_are_read_by_either_spelling():
    for name in ("pageSize", "page_size"):
        assert read("GET", f"{ACME}/datasets", [(name, "7")]).page_size == 7


def test_parameters_can_contain_enums_masks_lists_maps_and_nested_fields():
    download = read("GET", f"{ACME}/datasets/d/items/i:download", [("variant", "ITEM_VARIANT_THUMBNAIL")])
    assert download.variant == ItemVariant.ITEM_VARIANT_THUMBNAIL
    assert read("GET", f"{ACME}/datasets/d/items/i:download", [("variant", "1")]).variant == 1

    patch = read("PATCH", f"{ACME}/loops/l", [("updateMask", "displayName,policy.batchSize")], {"displayName": "x"})
    assert list(patch.update_mask.paths) == ["display_name", "policy.batch_size"]

    watch = read("GET", f"{ACME}/events:watch", [("typePrefixes", "a"), ("typePrefixes", "b")])
    assert list(watch.type_prefixes) == ["a", "b"]

    match = ROUTES.find("POST", f"{ACME}/sources/s:upload")
    upload = read_upload(match, urlencode([("fileName", "v.jpg"), ("metadata[camera]", "dock=3")]), "image/jpeg")
    assert (upload.parent, upload.file_name, dict(upload.metadata)) == (
        "projects/acme/sources/s",
        "v.jpg",
        {"camera": "dock=3"},
    )
    assert upload.file.content_type == "image/jpeg"


def test_a_body_fills_its_field_and_parameters_the_rest():
    request = read("POST", f"{ACME}/datasets", [("datasetId", "vans"), ("request_id", "r")], {"displayName": "Vans"})

    assert request.parent == "projects/acme"
    assert (request.dataset_id, request.request_id, request.dataset.display_name) == ("vans", "r", "Vans")


def test_an_empty_body_sets_its_field():
    assert read("POST", f"{ACME}/datasets").HasField("dataset")


def test_a_whole_body_fills_all_but_the_path():
    request = read("POST", f"{ACME}/deployments/d:predict", body={"name": "ignored", "inputs": [{"data": "AAEC"}]})

    assert request.name == "projects/acme/deployments/d"
    assert request.inputs[0].data == b"\x00\x01\x02"


def test_a_body_may_be_protobuf():
    sent = PredictRequest(inputs=[PredictInput(data=b"\xff\xd8")], embedding=True)

    request = read("POST", f"{ACME}/deployments/d:predict", body=sent.SerializeToString(), content_type=PROTOBUF)

    assert request == PredictRequest(name="projects/acme/deployments/d", inputs=sent.inputs, embedding=True)


@pytest.mark.parametrize(
    ("verb", "path", "query", "body", "content_type", "reason", "field"),
    [
        ("GET", "/datasets", [("colour", "red")], b"", JSON, "QUERY_INVALID", "colour"),
        ("GET", "/datasets", [("parent", "projects/b")], b"", JSON, "QUERY_INVALID", "parent"),
        ("GET", "/datasets", [("pageSize", "1"), ("page_size", "2")], b"", JSON, "QUERY_INVALID", "page_size"),
        ("GET", "/datasets", [("pageSize", "many")], b"", JSON, "FIELD_MALFORMED", "page_size"),
        ("GET", "/datasets", [("pageSize.x", "1")], b"", JSON, "QUERY_INVALID", "pageSize.x"),
        ("GET", "/datasets", [("pageSize[x]", "1")], b"", JSON, "QUERY_INVALID", "pageSize[x]"),
        ("GET", "/datasets", [("x" + str(i), "1") for i in range(3)], b"", JSON, "QUERY_INVALID", "x0"),
        ("GET", "/datasets", [("names", "x")] * 1001, b"", JSON, "QUERY_INVALID", "names"),
        ("GET", "/events:watch", [("typePrefixes", "x")] * 1001, b"", JSON, "QUERY_TOO_LONG", None),
        ("GET", "/datasets", [], b'{"pageSize": 1}', JSON, "BODY_NOT_ALLOWED", None),
        ("POST", "/datasets", [], b"{", JSON, "BODY_MALFORMED", None),
        ("POST", "/datasets", [], b"[1]", JSON, "BODY_MALFORMED", None),
        ("POST", "/datasets", [], b"[" * 100_000, JSON, "BODY_MALFORMED", None),
        ("POST", "/datasets", [], b'{"display_name": 7}', JSON, "FIELD_MALFORMED", "dataset.display_name"),
        (
            "POST",
            "/loops",
            [],
            b'{"policy": {"labelBudget": "many"}}',
            JSON,
            "FIELD_MALFORMED",
            "loop.policy.labelBudget",
        ),
        ("POST", "/deployments/d:predict", [], b'{"inputs": [{"data": 5}]}', JSON, "FIELD_MALFORMED", "inputs.data"),
        ("POST", "/datasets", [], b'{"colour": "red"}', JSON, "FIELD_UNKNOWN", "dataset.colour"),
        ("POST", "/datasets", [("dataset.displayName", "x")], b"{}", JSON, "QUERY_INVALID", "dataset.displayName"),
        ("POST", "/datasets", [], b"\xff\xff", PROTOBUF, "BODY_MALFORMED", None),
        ("POST", "/loops", [], b'{"policy": {"gate": {"x": 1}}}', JSON, "FIELD_UNKNOWN", "loop.policy.gate.x"),
        ("POST", "/deployments/d:predict", [("embedding", "true")], b"{}", JSON, "QUERY_INVALID", "embedding"),
        (
            "POST",
            "/deployments/d:predict",
            [],
            b'{"inputs": [{}, {"image": 1}]}',
            JSON,
            "FIELD_UNKNOWN",
            "inputs[1].image",
        ),
        (
            "POST",
            "/deployments/d:predict",
            [],
            b'{"inputs": [{"data": "AA", "item": "x"}]}',
            JSON,
            "FIELD_MALFORMED",
            "inputs",
        ),
    ],
)
def test_unreadable_values_are_rejected_with_their_field(verb, path, query, body, content_type, reason, field):
    with pytest.raises(InvalidArgument) as caught:
        read(verb, ACME + path, query, body, content_type)

    assert caught.value.reason == reason
    if field is not None:
        assert [violation.field for violation in caught.value.violations] == [field]
        assert field in caught.value.message


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, []),
        ({"displayName": "x"}, ["display_name"]),
        ({"display_name": None}, ["display_name"]),
        (
            {"policy": {"batchSize": 5, "gate": {"concept_loss_allowed": True}}},
            ["policy.batch_size", "policy.gate.concept_loss_allowed"],
        ),
        ({"policy": {"gate": {}}}, ["policy.gate"]),
        (
            {"name": "n", "etag": "e", "createTime": "2026-01-01T00:00:00Z", "status": {"phase": 1}, "paused": False},
            ["paused"],
        ),
    ],
)
def test_a_patch_without_a_mask_changes_the_fields_in_its_body(body, paths):
    assert list(read("PATCH", f"{ACME}/loops/l", body=body).update_mask.paths) == paths


def test_a_patch_keeps_its_explicit_mask():
    request = read("PATCH", f"{ACME}/loops/l", [("updateMask", "paused")], {"displayName": "x", "paused": True})

    assert list(request.update_mask.paths) == ["paused"]


def test_maps_and_messages_of_google_are_masked_whole():
    request = read("PATCH", f"{ACME}/datasets/d/items/i", body={"metadata": {"camera": "3"}})

    assert list(request.update_mask.paths) == ["metadata"]


def test_responses_are_lower_camel_case_with_defaults():
    item = Item(name="n")
    item.media.size_bytes = 2**40

    answer = json.loads(write_json(item))

    assert answer["media"]["sizeBytes"] == str(2**40)
    assert answer["duplicateOf"] == ""
    assert answer["metadata"] == {}
    assert "createTime" not in answer


@given(st.binary(max_size=200), st.booleans())
def test_messages_sent_as_json_are_parsed_unchanged(data, embedding):
    body = {"inputs": [{"data": base64.b64encode(data).decode()}], "embedding": embedding}

    request = read("POST", f"{ACME}/deployments/d:predict", body=body)

    assert (request.inputs[0].data, request.embedding) == (data, embedding)


@given(st.binary(max_size=64))
def test_no_body_causes_an_internal_error(body):
    for path in (f"{ACME}/deployments/d:predict", f"{ACME}/loops"):
        for content_type in (JSON, PROTOBUF):
            try:
                read("POST", path, body=body, content_type=content_type)
            except InvalidArgument:
                continue


def test_uploads_and_downloads_are_recognised_by_their_messages():
    by_name = {rpc.full_name: rpc for rpc in all_rpcs()}
    upload = ROUTES.find("POST", f"{ACME}/archives:upload")
    predict = ROUTES.find("POST", f"{ACME}/deployments/d:predict")

    assert is_upload(upload.rpc, upload.rule)
    assert not is_upload(predict.rpc, predict.rule)
    assert is_download(by_name["vesta.datasets.v1.ItemService.DownloadItem"])
    assert not is_download(by_name["vesta.datasets.v1.ItemService.GetItem"])
    assert json_format.MessageToDict(read_upload(upload, "", "application/zip")) == {
        "parent": "projects/acme",
        "file": {"contentType": "application/zip"},
    }
