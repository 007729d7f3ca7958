"""Generates the OpenAPI 3.1 document of all RPCs with HTTP bindings, from the descriptors and comments of the contracts. Pure.

A path such as `/v1/{name=projects/*/datasets/*}` becomes `/v1/projects/{project}/datasets/{dataset}`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from google.api import resource_pb2
from google.protobuf import descriptor_pool
from vesta_common.resources.names import ID
from vesta_contracts import everything

from vesta_gateway.access.authorization import RIGHTS
from vesta_gateway.contracts.methods import HTTP_BODY, HttpRule, Rpc, files_field
from vesta_gateway.contracts.path_template import ANY_SEGMENT
from vesta_gateway.openapi.schemas import Schemas
from vesta_gateway.rest.file_bodies import MULTIPART, OCTETS
from vesta_gateway.rest.transcoding import JSON, PROTOBUF, WHOLE

VERSION = "1.0.0"
_INTRODUCTION = (
    "Every request requires an API key, as `Authorization: Bearer vesta_…` or "
    "`x-api-key: vesta_…`. Request and response bodies are JSON, or protobuf for higher "
    "speed: send and accept `application/x-protobuf`. The same RPCs are available over "
    "gRPC, at the gRPC address of the gateway. Errors follow AIP-193; each has a "
    "machine-readable `reason`, and a message that suggests a fix."
)
_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error, see AIP-193.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status code."},
                "message": {"type": "string", "description": "What happened, and a suggested fix."},
                "status": {"type": "string", "description": "The gRPC code, such as NOT_FOUND."},
                "details": {
                    "type": "array",
                    "description": "A google.rpc.ErrorInfo with the reason, and further details.",
                    "items": {
                        "type": "object",
                        "properties": {"@type": {"type": "string"}},
                        "additionalProperties": True,
                    },
                },
            },
        }
    },
}
_ID = {"type": "string", "pattern": f"^{ID}$", "description": "The id, as in the resource name."}
_BYTES = {"type": "string", "format": "binary"}


def comments() -> Mapping[str, str]:
    """Returns the comments of the contracts by full name."""
    comments_by_name: dict[str, str] = json.loads((resources.files("vesta_contracts") / "comments.json").read_text())
    return comments_by_name


def describe(rpcs: Sequence[Rpc], comments_by_name: Mapping[str, str]) -> dict[str, Any]:
    """Returns the OpenAPI document.

    Args:
        comments_by_name: comments of the contracts by full name.
    """
    schemas = Schemas(comments_by_name)
    placeholders = _placeholders()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for rpc in rpcs:
        for number, rule in enumerate(rpc.rules):
            path, parameters = _path(rule, placeholders)
            operation = _operation(rpc, rule, parameters, schemas, comments_by_name)
            operation["operationId"] += f"_{number}" if number else ""
            paths.setdefault(path, {})[rule.verb.lower()] = operation
            tags[_tag(rpc)] = comments_by_name.get(rpc.descriptor.containing_service.full_name, "")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Vesta", "version": VERSION, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "responses": {
                "Error": {
                    "description": "The request was rejected or failed.",
                    "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
            "schemas": {"Error": _ERROR, **schemas.components()},
        },
    }


def _operation(
    rpc: Rpc, rule: HttpRule, parameters: list[dict[str, Any]], schemas: Schemas, comments_by_name: Mapping[str, str]
) -> dict[str, Any]:
    comment = comments_by_name.get(rpc.full_name, "")
    right = RIGHTS.get(rpc.full_name)
    description = f"{comment}\n\nRoles: {right.value}. gRPC: `{rpc.path[1:]}`." if right else comment
    operation: dict[str, Any] = {
        "operationId": f"{rpc.descriptor.containing_service.name}_{rpc.descriptor.name}",
        "tags": [_tag(rpc)],
        "summary": re.split(r"(?<=\w)[.:;] ", comment, maxsplit=1)[0].rstrip("."),
        "description": description,
        "parameters": parameters + _query(rpc, rule, schemas),
        "responses": {"200": _answer(rpc, schemas), "default": {"$ref": "#/components/responses/Error"}},
    }
    if rule.body:
        operation["requestBody"] = _body(rpc, rule, schemas)
    return operation


def _query(rpc: Rpc, rule: HttpRule, schemas: Schemas) -> list[dict[str, Any]]:
    if rule.body == WHOLE:
        return []
    bound_fields = {rule.body, *(variable.field_path for variable in rule.template.variables)}
    return list(schemas.parameters(rpc.descriptor.input_type, bound_fields))


def _body(rpc: Rpc, rule: HttpRule, schemas: Schemas) -> dict[str, Any]:
    request = rpc.descriptor.input_type
    hidden = {variable.field_path for variable in rule.template.variables} if rule.body == WHOLE else set()
    descriptor = request if rule.body == WHOLE else request.fields_by_name[rule.body].message_type
    assert descriptor is not None, f"{rpc.full_name} has a body that is not a message"
    if descriptor.full_name == HTTP_BODY:
        return {
            "required": True,
            "description": "The bytes of the file.",
            "content": {"*/*": {"schema": _BYTES}},
        }
    schema = schemas.body(descriptor, hidden) if hidden else schemas.reference(descriptor)
    content = {JSON: {"schema": schema}, PROTOBUF: {"schema": _BYTES}}
    files = files_field(rpc)
    if files is None or rule.body != WHOLE:
        return {"required": True, "content": content}
    others = schemas.body(request, hidden | {files.name})
    form = {"type": "object", "properties": {"file": {"type": "array", "items": _BYTES}, **others["properties"]}}
    return {
        "required": True,
        "description": "A message; or one file, with the other fields as query parameters; or several files as "
        f"{MULTIPART}, with the other fields as form fields.",
        "content": {**content, "image/*": {"schema": _BYTES}, OCTETS: {"schema": _BYTES}, MULTIPART: {"schema": form}},
    }


def _answer(rpc: Rpc, schemas: Schemas) -> dict[str, Any]:
    descriptor = rpc.descriptor.output_type
    if descriptor.full_name == HTTP_BODY:
        return {"description": "The bytes.", "content": {"*/*": {"schema": _BYTES}}}
    schema = schemas.reference(descriptor)
    if rpc.descriptor.server_streaming:
        content = {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "`data:` contains the event as JSON.",
                    "contentSchema": schema,
                }
            }
        }
        return {
            "description": "Server-sent events, until the client or the server closes the stream.",
            "content": content,
        }
    return {"description": "The answer.", "content": {JSON: {"schema": schema}, PROTOBUF: {"schema": _BYTES}}}


def _path(rule: HttpRule, placeholders: Mapping[str, str]) -> tuple[str, list[dict[str, Any]]]:
    """Returns the path of a binding with a placeholder for each wildcard, and the path parameters."""
    parts, names = [], []
    for index, segment in enumerate(rule.template.segments):
        if segment != ANY_SEGMENT:
            parts.append(segment)
            continue
        collection = rule.template.segments[index - 1]
        name = placeholders.get(collection, collection.removesuffix("s"))
        names.append(name)
        parts.append(f"{{{name}}}")
    path = "/" + "/".join(parts) + (f":{rule.template.verb}" if rule.template.verb else "")
    return path, [{"name": name, "in": "path", "required": True, "schema": dict(_ID)} for name in names]


def _placeholders() -> dict[str, str]:
    """Returns the singular name of each collection: `training_run` for `trainingRuns`."""
    return {
        collection: variable
        for pattern in _patterns()
        for collection, variable in re.findall(r"(\w+)/\{(\w+)\}", pattern)
    }


def _patterns() -> Iterator[str]:
    for file in everything.FILES:
        for message in descriptor_pool.Default().FindFileByName(file).message_types_by_name.values():
            yield from message.GetOptions().Extensions[resource_pb2.resource].pattern


def _tag(rpc: Rpc) -> str:
    return str(rpc.descriptor.containing_service.name).removesuffix("Service")
