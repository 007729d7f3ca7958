"""Every text and list that a request carries has a limit."""

from collections.abc import Iterator

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from vesta_contracts import everything
from vesta_contracts.common.v1 import FieldRules, rules


def requests() -> list[Descriptor]:
    """What the RPCs of every service take."""
    files = [descriptor_pool.Default().FindFileByName(name) for name in everything.FILES]
    services = [service for file in files for service in file.services_by_name.values()]
    return [method.input_type for service in services for method in service.methods]


def unlimited_fields(messages: list[Descriptor]) -> list[str]:
    """The lists without a count and the texts without a length in messages and in what is below them.

    Names and etags are compared with what is kept, and so need none; what the server alone writes is not read.
    """
    seen: set[str] = set()
    return [field for message in messages for field in _unlimited(message, seen)]


def _unlimited(message: Descriptor, seen: set[str]) -> Iterator[str]:
    if message.full_name in seen or message.full_name.startswith("google."):
        return
    seen.add(message.full_name)
    for field in message.fields:
        behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        compared = field_behavior_pb2.IDENTIFIER in behaviors or field.name == "etag"
        if compared or field_behavior_pb2.OUTPUT_ONLY in behaviors:
            continue
        wanted: FieldRules = field.GetOptions().Extensions[rules]
        if field.is_repeated and not wanted.HasField("items_max"):
            yield f"{field.full_name} has no items_max"
        is_map = field.message_type and field.message_type.GetOptions().map_entry
        value = field.message_type.fields_by_name["value"] if is_map else field
        if value.message_type:
            yield from _unlimited(value.message_type, seen)
        elif _is_text(value) and not _is_limited(field, wanted.items if field.is_repeated else wanted):
            yield f"{field.full_name} has no length_max"


def _is_text(field: FieldDescriptor) -> bool:
    return field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}


def _is_limited(field: FieldDescriptor, wanted: FieldRules) -> bool:
    reference = field.GetOptions().Extensions[resource_pb2.resource_reference].type
    return bool(wanted.HasField("length_max") or wanted.pattern or reference)
