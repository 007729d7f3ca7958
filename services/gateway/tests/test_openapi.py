"""The API's description: valid OpenAPI 3.1, with every route, and the words of the contracts."""

import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from vesta_gateway.contracts.methods import all_rpcs
from vesta_gateway.openapi.document import comments, describe


@pytest.fixture(scope="module")
def document():
    return json.loads(json.dumps(describe(all_rpcs(), comments())))


def test_the_document_is_valid_openapi(document):
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_rpc_with_an_http_rule_is_in_the_document_once(document):
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    rules = sum(len(rpc.rules) for rpc in all_rpcs())

    assert len(operations) == len(set(operations)) == rules


def test_a_path_has_a_placeholder_for_each_part_of_a_name(document):
    operation = document["paths"]["/v1/projects/{project}/deployments/{deployment}:predict"]["post"]

    assert [parameter["name"] for parameter in operation["parameters"]] == ["project", "deployment"]
    content = operation["requestBody"]["content"]
    assert set(content) == {
        "application/json",
        "application/x-protobuf",
        "image/*",
        "application/octet-stream",
        "multipart/form-data",
    }
    assert set(content["multipart/form-data"]["schema"]["properties"]) == {"file", "embedding"}
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert "name" not in body["properties"]
    assert body["required"] == ["inputs"]


def test_the_document_contains_comments_rules_and_permissions(document):
    operation = document["paths"]["/v1/projects/{project}/campaigns"]["post"]
    page_size = next(
        parameter
        for parameter in document["paths"]["/v1/projects/{project}/campaigns"]["get"]["parameters"]
        if parameter["name"] == "pageSize"
    )

    assert operation["summary"] == "Creates a Campaign"
    assert "Roles: engineer, owner." in operation["description"]
    assert page_size["description"] == "At most 1000; 50 if unset."
    assert page_size["schema"]["maximum"] == 1000


def test_uploads_downloads_and_events_have_their_content_types(document):
    paths = document["paths"]
    upload = paths["/v1/projects/{project}/sources/{source}:upload"]["post"]
    download = paths["/v1/projects/{project}/datasets/{dataset}/items/{item}:download"]["get"]
    watch = paths["/v1/projects/{project}/events:watch"]["get"]

    assert list(upload["requestBody"]["content"]) == ["*/*"]
    assert {"fileName", "metadata", "requestId"} <= {parameter["name"] for parameter in upload["parameters"]}
    assert list(download["responses"]["200"]["content"]) == ["*/*"]
    assert list(watch["responses"]["200"]["content"]) == ["text/event-stream"]


def test_output_only_fields_are_read_only(document):
    properties = document["components"]["schemas"]["datasets.Item"]["properties"]

    assert properties["createTime"] == {"type": "string", "format": "date-time", "readOnly": True}
    assert "readOnly" not in properties["metadata"]
