"""Validates requests against the rules in their field options, for all services.

The rules are `vesta.common.v1.rules`, `google.api.field_behavior` REQUIRED, and the name patterns of resource references. Text must
not contain NUL, which PostgreSQL cannot store, and times must be within the calendar. The rules of a message type are compiled once.

In a request with an `update_mask`, the resource is partial: its required fields may be missing, except its name. Fields that are set must
follow their rules.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from vesta_contracts.common.v1 import FieldRules, rules

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.resources.names import ResourcePattern

VIOLATIONS_MAX = 20
MAP_KEY_CHARACTERS_MAX = 200
SECONDS_OF_TIME = (-62_135_596_800, 253_402_300_799)
"""Range of a Timestamp: the years 1 to 9999."""
SECONDS_OF_DURATION_MAX = 315_576_000_000
_KEY_RULES = FieldRules(length_max=MAP_KEY_CHARACTERS_MAX)
"""Maximum of a Duration: about 10,000 years."""

Check = Callable[[Any], Iterator[Violation]]
"""Yields the violations of a value. Field paths are relative to the value."""


def validate(message: Message) -> None:
    """Checks a message against its rules.

    Raises:
        InvalidArgument: FIELD_INVALID, with up to twenty violations.
    """
    checks = _checks_of(message.DESCRIPTOR)
    if checks is None:
        return
    violations = []
    for violation in _run(checks, message):
        violations.append(violation)
        if len(violations) == VIOLATIONS_MAX:
            break
    if violations:
        first = violations[0]
        raise InvalidArgument(f"{first.field} {first.description}", reason="FIELD_INVALID", violations=violations)


def _run(checks: list[tuple[str, Check]], message: Any) -> Iterator[Violation]:
    for name, check in checks:
        for violation in check(message):
            yield Violation(f"{name}{violation.field}", violation.description)


@cache
def _checks_of(descriptor: Descriptor) -> list[tuple[str, Check]] | None:
    """Returns the checks of a message type by field; None if neither it nor a nested message has rules."""
    return _compile(descriptor, ())


def _compile(
    descriptor: Descriptor, above: tuple[str, ...], *, partial: bool = False
) -> list[tuple[str, Check]] | None:
    """Compiles the checks of a message type. `partial`: the message is inside a resource with an update mask."""
    if descriptor.full_name in above or descriptor.full_name.startswith("google.protobuf."):
        return None
    checks: list[tuple[str, Check]] = []
    partial_below = partial or "update_mask" in descriptor.fields_by_name
    for field in descriptor.fields:
        check = _field_check(field, (*above, descriptor.full_name), partial=partial, partial_below=partial_below)
        if check:
            checks.append((field.name, check))
    return checks or None


def _field_check(field: FieldDescriptor, above: tuple[str, ...], *, partial: bool, partial_below: bool) -> Check | None:
    """Returns the check of a field; None if it has no rules."""
    options = field.GetOptions()
    behaviors = options.Extensions[field_behavior_pb2.field_behavior]
    if field_behavior_pb2.OUTPUT_ONLY in behaviors:
        return None
    if partial and field.containing_type:
        resource = field.containing_type.GetOptions().Extensions[resource_pb2.resource]
        if resource.type and field.name == (resource.name_field or "name"):
            return _singular(field, True, _reference(resource.type))
    required = field_behavior_pb2.REQUIRED in behaviors and not partial
    field_rules: FieldRules = options.Extensions[rules]
    is_map = bool(field.message_type and field.message_type.GetOptions().map_entry)
    value_field = field.message_type.fields_by_name["value"] if is_map and field.message_type else field
    value_check = _value_check(
        value_field,
        field_rules.items if field.is_repeated else field_rules,
        options,
        above,
        partial=partial_below and not field.is_repeated,  # list entries are always complete
    )
    if is_map and field.message_type:
        key_check = _value_check(field.message_type.fields_by_name["key"], _KEY_RULES, None, above, partial=False)
        return _repeated(field.name, required, field_rules, _entries_check(key_check, value_check))
    if not (required or value_check or field_rules.ListFields()):
        return None
    if field.is_repeated:
        return _repeated(field.name, required, field_rules, _elements_check(value_check))
    return _singular(field, required, value_check)


def _singular(field: FieldDescriptor, required: bool, value_check: Check | None) -> Check:
    name, tracks_presence = field.name, field.has_presence

    def check(message: Any) -> Iterator[Violation]:
        value = getattr(message, name)
        present = message.HasField(name) if tracks_presence else bool(value)
        if not present:
            if required:
                yield Violation("", "is required")
        elif value_check:
            yield from value_check(value)

    return check


def _repeated(name: str, required: bool, field_rules: FieldRules, each: Check) -> Check:
    least = max(field_rules.items_min if field_rules.HasField("items_min") else 0, 1 if required else 0)
    most = field_rules.items_max if field_rules.HasField("items_max") else None

    def check(message: Any) -> Iterator[Violation]:
        values = getattr(message, name)
        if len(values) < least:
            yield Violation("", f"must have at least {least} entries, has {len(values)}")
        elif most is not None and len(values) > most:
            yield Violation("", f"must have at most {most} entries, has {len(values)}")
        else:
            yield from each(values)

    return check


def _elements_check(value_check: Check | None) -> Check:
    """Returns the check of the elements of a list."""

    def check(values: Any) -> Iterator[Violation]:
        if value_check:
            for index, value in enumerate(values):
                for violation in value_check(value):
                    yield Violation(f"[{index}]{violation.field}", violation.description)

    return check


def _entries_check(key_check: Check | None, value_check: Check | None) -> Check:
    """Returns the check of the keys and values of a map."""

    def check(values: Any) -> Iterator[Violation]:
        for key in values if key_check else ():
            for violation in key_check(key) if key_check else ():
                yield Violation("", f"has a key that {violation.description}")
        for key in values if value_check else ():
            for violation in value_check(values[key]) if value_check else ():
                yield Violation(f"[{key}]{violation.field}", violation.description)

    return check


def _value_check(
    field: FieldDescriptor, field_rules: FieldRules, options: Any, above: tuple[str, ...], *, partial: bool
) -> Check | None:
    """Returns the check of a single value; None if every value is valid."""
    if field.message_type:
        if field.message_type.full_name == "google.protobuf.Duration":
            return _duration(field_rules)
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return _timestamp
        submessage_check = _compile(field.message_type, above, partial=partial)
        return (lambda value: _dotted(_run(submessage_check, value))) if submessage_check else None
    if field.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return _number(field_rules, finite=True)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if options is not None and options.Extensions[resource_pb2.resource_reference].type:
            return _reference(options.Extensions[resource_pb2.resource_reference].type)
        return _text(field_rules) if field.type == FieldDescriptor.TYPE_STRING else _bytes(field_rules)
    if field.enum_type:
        return _enum(field.enum_type)
    return _number(field_rules, finite=False)


def _dotted(violations: Iterator[Violation]) -> Iterator[Violation]:
    return (Violation(f".{violation.field}", violation.description) for violation in violations)


def _bytes(field_rules: FieldRules) -> Check | None:
    if not field_rules.ListFields():
        return None
    least, most = field_rules.length_min, field_rules.length_max if field_rules.HasField("length_max") else math.inf

    def check(value: Any) -> Iterator[Violation]:
        if not least <= len(value) <= most:
            yield Violation("", f"must have {least} to {most} bytes, has {len(value)}")

    return check


def _text(field_rules: FieldRules) -> Check:
    least = field_rules.length_min
    most = field_rules.length_max if field_rules.HasField("length_max") else None
    pattern = re.compile(field_rules.pattern) if field_rules.pattern else None

    def check(value: Any) -> Iterator[Violation]:
        if most is not None and len(value) > most:
            yield Violation("", f"must have at most {most} characters, has {len(value)}")
        elif len(value) < least:
            yield Violation("", f"must have at least {least} characters, has {len(value)}")
        elif pattern and not pattern.fullmatch(value):
            yield Violation("", f"must match {field_rules.pattern}")
        elif "\0" in value:
            yield Violation("", "must have no NUL character")

    return check


def _number(field_rules: FieldRules, *, finite: bool) -> Check | None:
    low = field_rules.min if field_rules.HasField("min") else -math.inf
    high = field_rules.max if field_rules.HasField("max") else math.inf
    if low == -math.inf and high == math.inf and not finite:
        return None

    def check(value: Any) -> Iterator[Violation]:
        if not math.isfinite(value):
            yield Violation("", "must be a finite number")
        elif not low <= value <= high:
            yield Violation("", f"must be between {low:g} and {high:g}, is {value:g}")

    return check


def _duration(field_rules: FieldRules) -> Check:
    low = field_rules.seconds_min if field_rules.HasField("seconds_min") else -SECONDS_OF_DURATION_MAX
    high = field_rules.seconds_max if field_rules.HasField("seconds_max") else SECONDS_OF_DURATION_MAX

    def check(value: Any) -> Iterator[Violation]:
        seconds = value.seconds + value.nanos / 1e9
        if abs(value.nanos) >= 1_000_000_000 or value.seconds * value.nanos < 0:
            yield Violation("", "must have nanos of less than one second, with the sign of its seconds")
        elif not low <= seconds <= high:
            yield Violation("", f"must be between {low:g} s and {high:g} s, is {seconds:g} s")

    return check


def _timestamp(value: Any) -> Iterator[Violation]:
    low, high = SECONDS_OF_TIME
    if not (low <= value.seconds <= high and 0 <= value.nanos < 1_000_000_000):
        yield Violation("", "must be a time from the year 1 to 9999")


def _enum(enum: EnumDescriptor) -> Check:
    known = enum.values_by_number

    def check(value: Any) -> Iterator[Violation]:
        if value not in known:
            yield Violation("", f"must be a value of {enum.name}, is {value}")

    return check


def _reference(kind: str) -> Check:
    def check(value: Any) -> Iterator[Violation]:
        if not value:
            return
        patterns = _resource_patterns().get(kind, ())
        if not any(pattern.matches(value) for pattern in patterns):
            allowed = " or ".join(pattern.pattern for pattern in patterns) or kind
            yield Violation("", f"must match the name pattern {allowed}")

    return check


@cache
def _resource_patterns() -> dict[str, tuple[ResourcePattern, ...]]:
    """Returns the name patterns of all resource types in the contracts."""
    import vesta_contracts.everything

    pool = descriptor_pool.Default()
    patterns: dict[str, tuple[ResourcePattern, ...]] = {}
    for file_name in vesta_contracts.everything.FILES:
        for message in pool.FindFileByName(file_name).message_types_by_name.values():
            resource = message.GetOptions().Extensions[resource_pb2.resource]
            if resource.type:
                patterns[resource.type] = tuple(ResourcePattern(pattern) for pattern in resource.pattern)
    return patterns
