"""Random protobuf messages by their descriptors: every field, at the edges of its type, with names that exist and names that cannot."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from google.api import resource_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from vesta_contracts.common.v1 import FieldRules, rules

DEPTH_MAX = 5
ENTRIES_MAX = 3
ABSENT = "projects/{project}/things/absent"

# Whatever protobuf can carry as text: it has no lone surrogates.
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
_KEYS = st.lists(TEXT, max_size=ENTRIES_MAX)
_TENTH = st.integers(0, 9)
_FLOATS = st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0])
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_TIMES = {"google.protobuf.Timestamp", "google.protobuf.Duration"}


class RandomMessages:
    """Strategies of messages.

    Args:
        existing: names that exist, by the type of resource.
        files: bytes that are files of images.
    """

    def __init__(self, existing: Mapping[str, Sequence[str]], files: Sequence[bytes]) -> None:
        self._existing = existing
        self._files = files

    def requests(self, descriptor: Descriptor, *, hidden: frozenset[str] = frozenset()) -> st.SearchStrategy[Message]:
        """Messages of a type.

        Args:
            hidden: types of resources of which no existing one is named.
        """
        return _Builder(self._existing, self._files, hidden).message(descriptor, 0)


class _Builder:
    def __init__(self, existing: Mapping[str, Sequence[str]], files: Sequence[bytes], hidden: frozenset[str]) -> None:
        self._existing = {kind: names for kind, names in existing.items() if kind not in hidden}
        self._files = files
        # Building a strategy takes longer than drawing from it.
        self.message = cache(self._message)
        self._values = cache(self._values_of)
        self._scalar = cache(self._scalar_of)

    def _message(self, descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
        """A message with a random part of its fields."""
        kind = message_factory.GetMessageClass(descriptor)
        if descriptor.full_name in _TIMES:
            return st.builds(kind, seconds=self._integer(_INTEGERS[FieldDescriptor.CPPTYPE_INT64]), nanos=self._nanos())
        fields = [field for field in descriptor.fields if depth < DEPTH_MAX or field.message_type is None]

        @st.composite
        def build(draw: st.DrawFn) -> Message:
            made = kind()
            for field in fields:
                if self._is_wanted(draw, field):
                    self._fill(draw, made, field, depth)
            return made

        return build()

    def _is_wanted(self, draw: st.DrawFn, field: FieldDescriptor) -> bool:
        """Names nearly always, for without them nothing is reached; others half the time."""
        return draw(_TENTH) < (9 if self._kind_named(field) else 5)

    def _fill(self, draw: st.DrawFn, made: Message, field: FieldDescriptor, depth: int) -> None:
        target: Any = getattr(made, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            for key in draw(_KEYS):
                if value.message_type is not None:
                    target[key].CopyFrom(draw(self.message(value.message_type, depth + 1)))
                else:
                    target[key] = draw(self._scalar(value))
        elif field.is_repeated:
            target.extend(draw(self._values(field, depth)))
        elif field.message_type is not None:
            target.SetInParent()
            target.CopyFrom(draw(self.message(field.message_type, depth + 1)))
        else:
            setattr(made, field.name, draw(self._scalar(field)))

    def _values_of(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[list[Any]]:
        is_message = field.message_type is not None
        entry = self.message(field.message_type, depth + 1) if is_message else self._scalar(field)
        return st.lists(entry, min_size=1, max_size=ENTRIES_MAX)

    def _scalar_of(self, field: FieldDescriptor) -> st.SearchStrategy[Any]:
        given: FieldRules = field.GetOptions().Extensions[rules]
        if field.is_repeated:
            given = given.items
        if field.enum_type is not None:
            return st.sampled_from(list(field.enum_type.values)).map(lambda value: value.number) | st.integers(
                0, 2**31 - 1
            )
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        if field.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
            bounded = st.floats(given.min, given.max) if given.HasField("min") and given.HasField("max") else _FLOATS
            return bounded | _FLOATS
        if field.cpp_type in _INTEGERS:
            low, high = _INTEGERS[field.cpp_type]
            likely = (
                max(low, int(given.min)) if given.HasField("min") else 0,
                min(high, int(given.max)) if given.HasField("max") else 100,
            )
            return st.integers(*likely) | self._integer((low, high))
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.sampled_from(self._files) | st.binary(max_size=100)
        return self._text(field, given)

    def _text(self, field: FieldDescriptor, given: FieldRules) -> st.SearchStrategy[str]:
        named = self._kind_named(field)
        if named:
            return self._name(named)
        if field.name == "filter":
            return st.lists(st.sampled_from(_FILTER_WORDS) | TEXT, max_size=8).map(" ".join)
        if given.pattern:
            return st.from_regex(given.pattern, fullmatch=True) | TEXT
        return TEXT | st.sampled_from(_WORDS)

    def _name(self, kind: str) -> st.SearchStrategy[str]:
        every = [name for names in self._existing.values() for name in names] or [ABSENT]
        wanted = st.sampled_from(list(self._existing.get(kind, ())) or [ABSENT])
        other = st.sampled_from(every)
        below = st.tuples(other, TEXT).map("/".join)
        return st.one_of(wanted, wanted, wanted, wanted, other, below, TEXT)

    @staticmethod
    def _kind_named(field: FieldDescriptor) -> str:
        """The type of resource that a field names; empty where it names none."""
        reference = field.GetOptions().Extensions[resource_pb2.resource_reference].type
        if reference:
            return str(reference)
        resource = (
            field.containing_type.GetOptions().Extensions[resource_pb2.resource] if field.containing_type else None
        )
        is_own = resource is not None and resource.type and field.name == (resource.name_field or "name")
        return str(resource.type) if is_own and resource is not None else ""

    @staticmethod
    def _integer(bounds: tuple[int, int]) -> st.SearchStrategy[int]:
        return st.integers(*bounds) | st.sampled_from(bounds)

    @staticmethod
    def _nanos() -> st.SearchStrategy[int]:
        return st.sampled_from([0, 1, 999_999_999, -1, 2**31 - 1])


_WORDS = ["concept", "thing", "*", "display_name", "updateMask", "name,etag", "2026-01-01", "null", "true", "a" * 300]
_FILTER_WORDS = [
    *(
        "state",
        "split",
        "labelled",
        "item",
        "score",
        "create_time",
        "label",
        "metadata.a",
        "=",
        "<",
        ">=",
        ":",
        "!=",
        "(",
        ")",
    ),
    *(
        "AND",
        "OR",
        "NOT",
        "-",
        "TRAIN",
        "true",
        "0.5",
        "1e999",
        "nan",
        '"2026-01-01T00:00:00Z"',
        "'projects/a'",
        '"\\',
        "'",
    ),
    *('"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"'),
]
