"""All RPCs of the API contracts, read from the protobuf descriptors. The gateway routes, checks and documents them generically."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from vesta_contracts import everything

from vesta_gateway.contracts.path_template import PathTemplate

PROJECT_COLLECTION = "projects"
HTTP_BODY = "google.api.HttpBody"
_VERBS = ("get", "put", "post", "delete", "patch")
_SCOPE_FIELDS = ("parent", "name")


@dataclass(frozen=True)
class HttpRule:
    """An HTTP binding of an RPC.

    Attributes:
        verb: `GET`, `POST`, …
        body: the field that contains the body, `*` for the whole request, empty for none.
    """

    verb: str
    template: PathTemplate
    body: str


@dataclass(frozen=True, eq=False)
class Rpc:
    """An RPC of the contracts."""

    descriptor: MethodDescriptor

    @cached_property
    def full_name(self) -> str:
        """The full name: `vesta.datasets.v1.ItemService.GetItem`."""
        return str(self.descriptor.full_name)

    @cached_property
    def path(self) -> str:
        """The path on the wire: `/vesta.datasets.v1.ItemService/GetItem`."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @cached_property
    def backend(self) -> str:
        """The name of the service that serves it: `datasets`."""
        return self.full_name.split(".")[1]

    @cached_property
    def request_type(self) -> type[Message]:
        """The request class."""
        return message_factory.GetMessageClass(self.descriptor.input_type)

    @cached_property
    def response_type(self) -> type[Message]:
        """The response class."""
        return message_factory.GetMessageClass(self.descriptor.output_type)

    @cached_property
    def is_unary(self) -> bool:
        """True if neither requests nor responses are streamed."""
        return not self.descriptor.client_streaming and not self.descriptor.server_streaming

    @cached_property
    def is_transfer(self) -> bool:
        """True if bytes are uploaded or downloaded as a stream, which occupies a thread of the service."""
        return bool(not self.is_unary and (self.descriptor.client_streaming or is_download(self)))

    @cached_property
    def rules(self) -> tuple[HttpRule, ...]:
        """The HTTP bindings; empty if the RPC is available over gRPC only."""
        options = self.descriptor.GetOptions()
        if not options.HasExtension(annotations_pb2.http):
            return ()
        rule = options.Extensions[annotations_pb2.http]
        return tuple(_http_rule(binding) for binding in (rule, *rule.additional_bindings))

    @cached_property
    def only_reads(self) -> bool:
        """True if all HTTP bindings use GET, so that the call can be retried."""
        return bool(self.rules) and all(rule.verb == "GET" for rule in self.rules)

    @cached_property
    def scope(self) -> str:
        """The path of the field that determines the project, such as `parent` or `source.name`; empty if there is none."""
        for rule in self.rules:
            for variable in rule.template.variables:
                if rule.template.segments[variable.start] == PROJECT_COLLECTION:
                    return variable.field_path
        fields = self.descriptor.input_type.fields_by_name
        return next((name for name in _SCOPE_FIELDS if name in fields and not self.rules), "")


def is_upload(rpc: Rpc, rule: HttpRule) -> bool:
    """Returns True if the HTTP body is the content of an HttpBody, of any length."""
    field = rpc.descriptor.input_type.fields_by_name.get(rule.body)
    is_bytes = field is not None and field.message_type is not None and field.message_type.full_name == HTTP_BODY
    return bool(rpc.descriptor.client_streaming and is_bytes)


def is_download(rpc: Rpc) -> bool:
    """Returns True if the response is bytes instead of a message."""
    return bool(rpc.descriptor.output_type.full_name == HTTP_BODY)


def files_field(rpc: Rpc) -> FieldDescriptor | None:
    """Returns the field with a list of files, messages with the bytes of a file in `data`; None if the request has none."""
    for field in rpc.descriptor.input_type.fields:
        data = field.message_type.fields_by_name.get("data") if field.message_type and field.is_repeated else None
        if data is not None and data.type == FieldDescriptor.TYPE_BYTES:
            return field
    return None


def all_rpcs() -> tuple[Rpc, ...]:
    """Returns the RPCs of all packages, sorted by name."""
    return tuple(sorted(_all_rpcs(), key=lambda rpc: rpc.full_name))


def get_rpc(full_name: str) -> Rpc:
    """Returns an RPC by name.

    Raises:
        KeyError: there is no such RPC.
    """
    return Rpc(descriptor_pool.Default().FindMethodByName(full_name))


def _all_rpcs() -> Iterator[Rpc]:
    for file in everything.FILES:
        for service in descriptor_pool.Default().FindFileByName(file).services_by_name.values():
            for method in service.methods:
                yield Rpc(method)


def _http_rule(rule: http_pb2.HttpRule) -> HttpRule:
    kind = rule.WhichOneof("pattern")
    if kind in _VERBS:
        return HttpRule(kind.upper(), PathTemplate.parse(getattr(rule, kind)), rule.body)
    return HttpRule(rule.custom.kind, PathTemplate.parse(rule.custom.path), rule.body)


def find_field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """Finds a field by its proto name or its JSON name."""
    field: FieldDescriptor | None = descriptor.fields_by_name.get(name)
    if field is None:
        field = next((candidate for candidate in descriptor.fields if candidate.json_name == name), None)
    return field


def is_map(field: FieldDescriptor) -> bool:
    """Returns True for `map<…>` fields."""
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def map_value(field: FieldDescriptor) -> FieldDescriptor:
    """Returns the field descriptor of a map's values."""
    assert field.message_type is not None
    return field.message_type.fields_by_name["value"]
