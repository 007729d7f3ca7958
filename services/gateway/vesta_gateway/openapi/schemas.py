"""Generates JSON Schemas of messages in protobuf's JSON mapping, with the rules and comments of their fields. Pure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from vesta_contracts.common.v1 import FieldRules, rules

from vesta_gateway.contracts.methods import is_map, map_value
from vesta_gateway.rest.query import TEXT_MESSAGES

PARAMETER_DEPTH_MAX = 3
_INT32 = {"type": "integer", "format": "int32"}
_UINT32 = {"type": "integer", "format": "uint32", "minimum": 0}
# JSON numbers cannot represent 64 bits, so protobuf writes these as strings. Numbers are accepted too.
_INT64 = {"type": ["string", "integer"], "format": "int64"}
_UINT64 = {"type": ["string", "integer"], "format": "uint64"}
_SCALARS: Mapping[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}
_WELL_KNOWN: Mapping[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$", "examples": ["3.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["displayName,policy.batchSize"]},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": True,
    },
    "google.protobuf.Empty": {"type": "object", "maxProperties": 0},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
}


class Schemas:
    """Generates schemas and collects those that are referenced.

    Args:
        comments: comments by full name.
    """

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._components: dict[str, dict[str, Any]] = {}

    def components(self) -> dict[str, dict[str, Any]]:
        """Returns all referenced schemas by name."""
        return dict(sorted(self._components.items()))

    def reference(self, descriptor: Descriptor) -> dict[str, Any]:
        """Returns a reference to a message's schema; for well-known types, the schema itself."""
        if descriptor.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[descriptor.full_name])
        name = _component_name(descriptor.full_name)
        if name not in self._components:
            self._components[name] = {}  # placeholder for messages that refer to themselves
            self._components[name] = self.body(descriptor, ())
        return {"$ref": f"#/components/schemas/{name}"}

    def body(self, descriptor: Descriptor, hidden: Collection[str]) -> dict[str, Any]:
        """Returns the full schema of a message, without the hidden fields, which the path contains."""
        fields = [field for field in descriptor.fields if field.name not in hidden]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {field.json_name: self._field(field) for field in fields},
        }
        required = [field.json_name for field in fields if field_behavior_pb2.REQUIRED in _behaviors(field)]
        if required:
            schema["required"] = required
        if descriptor.full_name in self._comments:
            schema["description"] = self._comments[descriptor.full_name]
        return schema

    def parameters(
        self, descriptor: Descriptor, taken: Collection[str], above: str = "", depth: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yields query parameters for the request fields that are not in the path or body. Names of nested fields contain dots."""
        for field in descriptor.fields:
            if field.name in taken or field_behavior_pb2.OUTPUT_ONLY in _behaviors(field):
                continue
            name = above + field.json_name
            submessage = field.message_type
            if submessage is not None and submessage.full_name not in TEXT_MESSAGES and not is_map(field):
                if not field.is_repeated and depth < PARAMETER_DEPTH_MAX:
                    yield from self.parameters(submessage, (), f"{name}.", depth + 1)
                continue
            schema = self._field(field)
            parameter: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
            if description := schema.pop("description", ""):
                parameter["description"] = description
            if is_map(field):
                parameter |= {"style": "deepObject", "explode": True}
            if field_behavior_pb2.REQUIRED in _behaviors(field) and not above:
                parameter["required"] = True
            yield parameter

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        given: FieldRules = field.GetOptions().Extensions[rules]
        if is_map(field):
            value = self._value(map_value(field), given.items)
            schema: dict[str, Any] = {"type": "object", "additionalProperties": value, **_counts(given, "Properties")}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._value(field, given.items), **_counts(given, "Items")}
        else:
            schema = self._value(field, given)
        if field.full_name in self._comments:
            schema["description"] = self._comments[field.full_name]
        behaviors = _behaviors(field)
        if field_behavior_pb2.OUTPUT_ONLY in behaviors:
            schema["readOnly"] = True
        if field_behavior_pb2.INPUT_ONLY in behaviors:
            schema["writeOnly"] = True
        return schema

    def _value(self, field: FieldDescriptor, given: FieldRules) -> dict[str, Any]:
        if field.message_type is not None:
            return self.reference(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        schema = {**_SCALARS[field.type]}
        if field.type == FieldDescriptor.TYPE_STRING:
            if given.HasField("length_min"):
                schema["minLength"] = given.length_min
            if given.HasField("length_max"):
                schema["maxLength"] = given.length_max
            if given.HasField("pattern"):
                schema["pattern"] = f"^(?:{given.pattern})$"
        elif schema["type"] in ("integer", "number"):
            if given.HasField("min"):
                schema["minimum"] = given.min
            if given.HasField("max"):
                schema["maximum"] = given.max
        return schema

    def _enum(self, enum: EnumDescriptor) -> dict[str, Any]:
        name = _component_name(enum.full_name)
        if name not in self._components:
            values = [(value.name, self._comments.get(f"{enum.full_name}.{value.name}", "")) for value in enum.values]
            lines = [
                self._comments.get(enum.full_name, ""),
                *(f"* `{value}`: {text}" for value, text in values if text),
            ]
            self._components[name] = {
                "type": "string",
                "enum": [value for value, _ in values],
                "description": "\n".join(line for line in lines if line),
            }
        return {"$ref": f"#/components/schemas/{name}"}


def _behaviors(field: FieldDescriptor) -> Collection[int]:
    behaviors: Collection[int] = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return behaviors


def _counts(given: FieldRules, what: str) -> dict[str, int]:
    limits = {}
    if given.HasField("items_min"):
        limits[f"min{what}"] = given.items_min
    if given.HasField("items_max"):
        limits[f"max{what}"] = given.items_max
    return limits


def _component_name(full_name: str) -> str:
    """Returns `datasets.Item` for `vesta.datasets.v1.Item`. Names of common types and of Google's types keep their package."""
    return full_name.removeprefix("vesta.").replace(".v1.", ".")
